"""Writers that go on through the fault: the client library with sessions, and raw connections without.

`LibraryWorkload` is what users run: it may retry, and must apply nothing twice. `RawWorkload` never retries anything
by itself (a harness that does finds its own bugs), so its ledger holds the honest refused and unknown outcomes.
Each runs on threads of its own, started by the test's thread and therefore in its network namespace.
"""

import asyncio
import threading
import time
from types import TracebackType
from typing import Any, Callable, Sequence

import raftkv
from raftkv.errors import RaftKVError
from raftkv.wire import commands
from raftkv_jepsen.machines.native import ConnectionEnded, NativeConnection
from raftkv_jepsen.machines.waiting import wait_until

from .ledger import ACKNOWLEDGED, UNKNOWN, Ledger, outcome_of

STOP_DEADLINE_S = 60.0
CALL_TIMEOUT_S = 30.0
VALUE_BYTES = 64


class Workload:
    """The shared part: threads, the end, and waiting for progress."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._failures: list[BaseException] = []

    def _start(self, runs: Sequence[Callable[[], None]]) -> None:
        self._threads = [threading.Thread(target=self._guarded, args=(run,), daemon=True) for run in runs]
        for thread in self._threads:
            thread.start()

    def _guarded(self, run: Callable[[], None]) -> None:
        # A writer that dies would leave a test that passes without load.
        try:
            run()
        except BaseException as error:
            self._failures.append(error)

    def __enter__(self) -> "Workload":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if error is None:
            self.stop()

    def stop(self) -> Ledger:
        """Ends the writers after the requests in flight and returns the ledger. Raises what broke a writer."""
        self._stop.set()
        for thread in self._threads:
            thread.join(STOP_DEADLINE_S)
        alive = sum(thread.is_alive() for thread in self._threads)
        assert alive == 0, f"{alive} writers did not end; client errors: {self.ledger.errors[-5:]}"
        if self._failures:
            raise self._failures[0]
        return self.ledger

    def wait_acknowledged(self, more: int, *, deadline_s: float = 20.0) -> None:
        """Waits until so many more writes have been acknowledged."""
        wanted = self.ledger.acknowledged_count + more

        def reached() -> bool:
            assert not self._failures, f"a writer broke: {self._failures[0]!r}"
            return self.ledger.acknowledged_count >= wanted

        wait_until(
            reached,
            f"{more} more acknowledged writes",
            deadline_s=deadline_s,
            seen=lambda: (self.ledger.acknowledged_count, self.ledger.errors[-3:]),
        )


class LibraryWorkload(Workload):
    """Async clients in one event loop; each writer owns a counter, an overwritten key and a family of keys."""

    def __init__(
        self, endpoints: str, *, writers: int = 6, timeout_s: float = CALL_TIMEOUT_S, pause_s: float = 0
    ) -> None:
        super().__init__()
        self._endpoints = endpoints
        self._writers = writers
        self._timeout_s = timeout_s
        self._pause_s = pause_s
        self._start([lambda: asyncio.run(self._run())])

    async def _run(self) -> None:
        async with raftkv.connect(self._endpoints, timeout=self._timeout_s) as client, asyncio.TaskGroup() as writers:
            for number in range(self._writers):
                writers.create_task(self._write(client, number))

    async def _write(self, client: Any, number: int) -> None:
        counter, overwritten = f"counter/{number}".encode(), f"overwrite/{number}".encode()
        expected, sequence = 0, 0
        while not self._stop.is_set():
            sequence += 1
            await self._write_single(client, f"single/{number}/{sequence}".encode())
            expected = await self._increment(client, counter, expected)
            await self._overwrite(client, overwritten, sequence)
            await asyncio.sleep(self._pause_s)

    async def _write_single(self, client: Any, key: bytes) -> None:
        value = key.ljust(VALUE_BYTES, b".")
        try:
            result = await client.put(key, value)
        except RaftKVError as error:
            self.ledger.record_error(error)
            self.ledger.record_single(key, value, outcome_of(error))
        else:
            self.ledger.record_single(key, value, ACKNOWLEDGED, result.revision)

    async def _increment(self, client: Any, key: bytes, expected: int) -> int:
        """The value known to be there; -1 when an unknown outcome made it uncertain."""
        try:
            value = int(await client.increment(key, 1))
        except RaftKVError as error:
            self.ledger.record_error(error)
            self.ledger.record_counter(key, outcome_of(error))
            return -1 if error.may_have_happened else expected
        self.ledger.record_counter(key, ACKNOWLEDGED)
        assert expected == -1 or value == expected + 1, f"{key!r} went from {expected} to {value}"
        return value

    async def _overwrite(self, client: Any, key: bytes, sequence: int) -> None:
        try:
            await client.put(key, str(sequence).encode())
        except RaftKVError as error:
            self.ledger.record_error(error)
            self.ledger.record_overwrite(key, outcome_of(error))
        else:
            self.ledger.record_overwrite(key, ACKNOWLEDGED)


class RawWorkload(Workload):
    """Threads with one raw connection each, in bursts, without sessions; they go to another member when one fails."""

    BURST = 8
    TIMEOUT_S = 2.0

    def __init__(self, endpoints: Sequence[str], *, writers: int = 3) -> None:
        super().__init__()
        self._endpoints = list(endpoints)
        self._start([lambda number=number: self._run(number) for number in range(writers)])  # type: ignore[misc]

    def _run(self, number: int) -> None:
        turn, sequence = number, 0
        while not self._stop.is_set():
            turn += 1
            try:
                connection = NativeConnection(self._endpoints[turn % len(self._endpoints)], timeout_s=self.TIMEOUT_S)
            except (OSError, ConnectionEnded, RaftKVError) as error:
                self.ledger.record_error(error)
                self._stop.wait(0.05)  # all members may be down: do not spin
                continue
            with connection:
                serving = True
                while serving and not self._stop.is_set():
                    sequence += self.BURST
                    serving = self._burst(connection, number, sequence)
            self._stop.wait(0.01)

    def _burst(self, connection: NativeConnection, number: int, sequence: int) -> bool:
        """Sends singles and as many counter steps; whether this member still serves."""
        counter = f"raw-counter/{number}".encode()
        keys = [f"raw-single/{number}/{sequence + offset}".encode() for offset in range(self.BURST)]
        requests: list[list[Any]] = [[commands.PUT, 0, key, key, 0, 0] for key in keys]
        requests += [[commands.INCREMENT, 0, counter, 1] for _ in keys]
        try:
            ids = connection.send(*requests)
        except (OSError, ConnectionEnded) as error:
            self._all_unknown(keys, counter, error)
            return False
        serving, ends_s = True, time.monotonic() + self.TIMEOUT_S
        for position, request_id in enumerate(ids):
            outcome, revision = self._outcome(connection, request_id, ends_s)
            serving = serving and outcome == ACKNOWLEDGED
            if position < len(keys):
                self.ledger.record_single(keys[position], keys[position], outcome, revision)
            else:
                self.ledger.record_counter(counter, outcome)
        return serving

    def _outcome(self, connection: NativeConnection, request_id: int, ends_s: float) -> tuple[str, int]:
        try:
            answer = connection.answer(request_id, timeout_s=ends_s - time.monotonic())
        except (OSError, ConnectionEnded) as error:
            self.ledger.record_error(error)
            return UNKNOWN, 0
        if answer[0] == commands.OK:
            return ACKNOWLEDGED, int(answer[1])
        failure = commands.error_of(answer)
        self.ledger.record_error(failure)
        return outcome_of(failure), 0

    def _all_unknown(self, keys: list[bytes], counter: bytes, error: BaseException) -> None:
        self.ledger.record_error(error)
        for key in keys:
            self.ledger.record_single(key, key, UNKNOWN)
            self.ledger.record_counter(counter, UNKNOWN)


def gap_s(workload: Workload, since_s: float) -> float:
    """The longest time without an acknowledged write since then."""
    return workload.ledger.longest_gap_s(since_s, time.monotonic())

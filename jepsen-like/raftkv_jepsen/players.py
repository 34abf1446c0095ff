"""The clients: all workloads in one event loop on a thread of its own, which lives in the clients' network namespace.

The main thread is the nemesis's, because daemons die with the thread that started them. A client that breaks (a bug of the harness, not an
error of the cluster) ends the run with its traceback instead of leaving a run without load.
"""

import asyncio
import random
import threading
from typing import Any, Callable, Coroutine, Final, Mapping, Sequence

from raftkv_jepsen.clients.base import SESSIONS, Client, Door
from raftkv_jepsen.recorder import Recorder
from raftkv_jepsen.workloads.base import Stage, Workload

ABANDON_S: Final = 8.0
STOP_S: Final = 90.0
"""For the operations under way, the last looks and the last events."""


class Players:
    """Starts with `start`, plays until `stop`."""

    def __init__(
        self,
        recorder: Recorder,
        workloads: Sequence[type[Workload]],
        make_client: Callable[[int, bool], Client],
        nodes: Sequence[str],
        *,
        doors: Mapping[str, Callable[[str, str], Door]],
        clients: int,
        rate: float,
        seed: int,
    ) -> None:
        share = clients // max(1, len(workloads))
        self._each = {workload: max(workload.clients_min, share) for workload in workloads}
        self.stage = Stage(recorder, tuple(nodes), pause_s=sum(self._each.values()) / rate, doors=doors)
        self._classes = list(workloads)
        self._make_client = make_client
        self._seed = seed
        self._abandoned = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="clients", daemon=True)

    def start(self) -> None:
        """In the network namespace that the calling thread is in."""
        self._thread.start()

    def stop(self) -> None:
        """After the healing: the loops end, then come the last looks. Raises what broke a client."""
        self.stage.stopping = True
        self._thread.join(STOP_S)
        if self._failure is not None:
            raise self._failure
        if self._thread.is_alive():
            self.stage.concerns.append(f"the clients did not come to an end within {STOP_S:g} s")

    def abandon(self) -> None:
        """Somebody has broken the run off: no last looks. What is under way stays open."""
        self.stage.stopping = self._abandoned = True
        self._thread.join(ABANDON_S)

    def writes_ok(self) -> int:
        """Acknowledged so far. Raises what broke a client."""
        if self._failure is not None:
            raise self._failure
        return self.stage.recorder.writes_ok

    def _run(self) -> None:
        try:
            asyncio.run(self._play())
        except BaseException as error:
            self._failure = error

    async def _play(self) -> None:
        draw = random.Random(f"clients {self._seed}")
        clients: list[Client] = []
        workloads: list[Workload] = []
        for kind in self._classes:
            own = []
            for _ in range(self._each[kind]):
                number = len(clients)
                own.append(self._make_client(number, SESSIONS in kind.needs or number % 2 == 0))
                clients.append(own[-1])
            workloads.append(kind(self.stage, own, len(clients) - len(own), random.Random(draw.random())))
        try:
            await _together([loop for workload in workloads for loop in workload.loops()])
            if not self._abandoned:
                await _together([workload.finish() for workload in workloads])
        finally:
            for workload in workloads:
                await workload.release()
            for client in clients:
                await client.close()


async def _together(coroutines: Sequence[Coroutine[Any, Any, None]]) -> None:
    async with asyncio.TaskGroup() as group:
        for coroutine in coroutines:
            group.create_task(coroutine)

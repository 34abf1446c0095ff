"""Blocking connections, a few per address: borrowed for one attempt, checked before reuse, replaced after a lifetime.

A loan ends with its `with` block. One that is dropped without ending is a leak: it is warned about with the stack of whoever borrowed it, and its
place is freed, so that a leak costs a warning and not the client. Lifetimes carry jitter, so that clients that began
together do not reconnect together.
"""

import sys
import threading
import warnings
from time import monotonic
from types import TracebackType
from typing import Callable, Final

from raftkv.client.blockingconn import BlockingConnection
from raftkv.client.options import Options, draw
from raftkv.client.session import Session
from raftkv.client.wireconn import WireConnection
from raftkv.errors import ClientClosed, DeadlineExceeded

CONNECTIONS_MAX: Final = 8
STACK_FRAMES_MAX: Final = 12
LEAK_AGE_S: Final = 60.0


class _Record:
    """What the pool remembers of a loan. It does not hold the loan itself: a dropped one has to be collected."""

    __slots__ = ("address", "connection", "since", "stack")

    def __init__(self, address: str, connection: BlockingConnection, since: float, stack: str) -> None:
        self.address = address
        self.connection = connection
        self.since = since
        self.stack = stack


class Loan:
    """A borrowed connection. Leaving the `with` block gives it back, or closes it when the block raised or called `discard`."""

    __slots__ = ("_pool", "_record", "connection", "is_new")

    def __init__(self, pool: "Pool", record: _Record, is_new: bool) -> None:
        self.connection = record.connection
        self.is_new = is_new
        """Greeted just now."""
        self._pool = pool
        self._record: _Record | None = record

    def __enter__(self) -> "Loan":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(healthy=kind is None)

    def discard(self) -> None:
        """Close the connection: somebody may still be answering on it."""
        self._end(healthy=False)

    def _end(self, healthy: bool) -> None:
        record, self._record = self._record, None
        if record is not None:
            self._pool._take_back(record, healthy)

    def __del__(self) -> None:
        record, self._record = self._record, None
        if record is None or sys.is_finalizing():
            return
        self._pool._take_back(record, healthy=False)
        warnings.warn(
            f"a connection to {record.address} was borrowed and never returned; borrowed at:\n{record.stack}",
            ResourceWarning,
            stacklevel=1,
            source=self,
        )


class Pool:
    """Thread-safe. `new_wire` makes the protocol state of a new connection under a session."""

    def __init__(
        self,
        options: Options,
        new_wire: Callable[[Session | None], WireConnection],
        *,
        connections_max: int = CONNECTIONS_MAX,
        leak_age_s: float = LEAK_AGE_S,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        assert connections_max > 0, "a pool holds at least one connection"
        self._options = options
        self._new_wire = new_wire
        self._connections_max = connections_max
        self._leak_age_s = leak_age_s
        self._clock = clock
        # Reentrant: a collection of garbage may end a loan at any point, also while this thread holds the lock.
        self._changed = threading.Condition(threading.RLock())
        self._idle: dict[str, list[BlockingConnection]] = {}
        self._used: dict[str, int] = {}
        self._records: set[_Record] = set()
        self._closed = False

    def borrow(self, address: str, session: Session | None, *, connect_timeout_s: float, deadline: float) -> Loan:
        """A connection that works as far as can be told.

        Raises Unreachable, ClusterMismatch or ProtocolError when none can be opened, DeadlineExceeded when all stayed borrowed
        until the deadline, ClientClosed.
        """
        while True:
            connection = self._claim(address, deadline)
            try:
                if connection is None:
                    connection = self._open(address, session, connect_timeout_s, deadline)
                    return self._lend(connection, is_new=True)
                if self._is_fit(connection, session, connect_timeout_s):
                    return self._lend(connection, is_new=False)
            except BaseException:
                self._free(address)
                raise
            connection.close()
            self._free(address)

    def drop_idle(self) -> None:
        """Close idle connections: whoever calls next opens a new one."""
        with self._changed:
            idle = [connection for connections in self._idle.values() for connection in connections]
            self._idle.clear()
        for connection in idle:
            connection.close()

    def close(self) -> None:
        """Close idle connections and wake those who wait on borrowed ones; old loans are reported as leaks."""
        with self._changed:
            self._closed = True
            idle = [connection for connections in self._idle.values() for connection in connections]
            self._idle.clear()
            records = list(self._records)
            self._changed.notify_all()
        for connection in idle:
            connection.close()
        now = self._clock()
        for record in records:
            record.connection.interrupt()
            if now - record.since > self._leak_age_s:
                warnings.warn(
                    f"a connection to {record.address} has been borrowed for {now - record.since:.0f} s and was not returned "
                    f"when the client closed; borrowed at:\n{record.stack}",
                    ResourceWarning,
                    stacklevel=2,
                )

    def abandon(self) -> None:
        """In a forked child: close our copies of the parent's sockets. Without the lock, which the parent may have held."""
        for connections in self._idle.values():
            for connection in connections:
                connection.close()
        for record in self._records:
            record.connection.close()

    def _claim(self, address: str, deadline: float) -> BlockingConnection | None:
        """A place among the address's connections, with an idle connection or (None) the right to open one."""
        with self._changed:
            while True:
                if self._closed:
                    raise ClientClosed()
                idle = self._idle.get(address)
                if idle:
                    self._used[address] = self._used.get(address, 0) + 1
                    return idle.pop()
                if self._used.get(address, 0) < self._connections_max:
                    self._used[address] = self._used.get(address, 0) + 1
                    return None
                remaining_s = deadline - self._clock()
                if remaining_s <= 0 or not self._changed.wait(min(remaining_s, threading.TIMEOUT_MAX)):
                    raise self._exhausted(address)

    def _free(self, address: str) -> None:
        with self._changed:
            self._used[address] -= 1
            assert self._used[address] >= 0, "a place is freed once"
            self._changed.notify()

    def _open(
        self, address: str, session: Session | None, connect_timeout_s: float, deadline: float
    ) -> BlockingConnection:
        now = self._clock()
        connection = BlockingConnection.open(
            address,
            self._new_wire(session),
            monotonic() + min(connect_timeout_s, max(0.0, deadline - now)),
            monotonic() + max(0.0, deadline - now),
            tls=self._options.tls,
        )
        connection.retire_at = now + self._options.draw_lifetime_s(draw())
        return connection

    def _is_fit(self, connection: BlockingConnection, session: Session | None, connect_timeout_s: float) -> bool:
        now = self._clock()
        if now >= connection.retire_at or not connection.serves(session) or not connection.is_open():
            return False
        if now - connection.heard_at <= self._options.idle_s:
            return True
        return connection.is_alive(monotonic() + connect_timeout_s)

    def _lend(self, connection: BlockingConnection, is_new: bool) -> Loan:
        record = _Record(connection.address, connection, self._clock(), _stack())
        with self._changed:
            if self._closed:  # while it was made or looked at
                connection.close()
                raise ClientClosed()
            self._records.add(record)
        return Loan(self, record, is_new)

    def _take_back(self, record: _Record, healthy: bool) -> None:
        connection = record.connection
        with self._changed:
            self._records.discard(record)
            keep = healthy and not self._closed and connection.wire.broken is None
            if keep:
                self._idle.setdefault(record.address, []).append(connection)
            self._free(record.address)
        if not keep:
            connection.close()

    def _exhausted(self, address: str) -> DeadlineExceeded:
        now = self._clock()
        ages = [(now - record.since, record.stack) for record in self._records if record.address == address]
        text = f"all {self._connections_max} connections to {address} stayed borrowed until the deadline"
        if ages:
            age_s, stack = max(ages)
            text += f"; the longest for {age_s:.1f} s, borrowed at:\n{stack}"
        return DeadlineExceeded(text)


def _stack() -> str:
    """Who is borrowing, innermost first. By hand: the traceback module reads source files and costs 1 ms at import."""
    frame = sys._getframe(2)
    lines: list[str] = []
    while frame is not None and len(lines) < STACK_FRAMES_MAX:
        code = frame.f_code
        lines.append(f"  {code.co_filename}:{frame.f_lineno} in {code.co_name}")
        if frame.f_back is None:
            break
        frame = frame.f_back
    return "\n".join(lines)

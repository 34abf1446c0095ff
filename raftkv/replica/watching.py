"""Watches and waits of a member's clients: begun behind a read barrier, ended when the member is cut off or leaves.

What they hear of is the store's business (store/watches.py). A watch or a wait begins at a linearizable point: the member has confirmed
with the leader that it knows everything that was acknowledged before. A member that lost the majority says so to all of them
instead of keeping silent, and they go elsewhere. So does one that cannot confirm for another reason, because its disk is full and it
applies nothing any more, for instance: while anybody watches, it asks itself again and again whether it could still begin a watch.
"""

from collections import deque
from typing import Any, Callable, Final, NamedTuple, Protocol, Sequence

from raftkv.errors import DeadlineExceeded, Overloaded, RaftKVError
from raftkv.limits import Limits
from raftkv.replica.groups import ReadGroup, WriteGroup
from raftkv.units import Milliseconds, Revision
from raftkv.wire.commands import GET, Answer, failure
from raftkv.wire.identity import ANYBODY, MEMBER_USER, Caller

BARRIER = [GET, 0, b"\0"]
OPENINGS_PER_STEP = 128
BARRIER_TIMEOUT_MS: Final = 5_000  # a member that needs longer is none to watch at
BARRIER_INTERVAL_MS: Final = 5_000


class Batch(Protocol):
    """Events handed over together, shared by all watchers that get the same; a door keeps its own bytes of them in `encoded`."""

    more: bool
    """Further events of the last revision follow."""
    live: bool
    """They have just happened; else they are read from history."""
    revision: Revision
    encoded: dict[str, Any]

    def items(self) -> list[list[Any]]:
        """[kind, key-value, previous key-value or None] per event, as in wire/protocol.py."""
        ...


class WatchSink(Protocol):
    """A connection of a front door, as in store/watches.py. `tag` is the door's own name of a watch."""

    @property
    def takes_events(self) -> bool: ...

    def on_events(self, tag: int, batch: Batch) -> None: ...

    def on_progress(self, tag: int, revision: Revision) -> None: ...

    def on_canceled(self, tag: int, error: RaftKVError) -> None: ...

    def on_created(self, tag: int, watcher: Any, revision: Revision) -> None:
        """The watch has begun; its first event is none before `revision` + 1, unless it starts in the past."""
        ...


class WaitTable(Protocol):
    """The waits of the store (store/waits.py)."""

    def __len__(self) -> int: ...

    def add(
        self,
        command: Sequence[Any],
        answer: Callable[[Answer], None],
        deadline_ms: Milliseconds,
        user: str | None = None,
        auth_revision: int = 0,
    ) -> Any:
        """Raises a RaftKVError for what this user may not wait for."""
        ...

    def remove(self, wait: Any) -> None: ...

    def expire(self, now_ms: Milliseconds) -> None: ...

    def fail_all(self, error: RaftKVError) -> None: ...


class Hub(Protocol):
    """The watches of the store (store/watches.py)."""

    @property
    def waits(self) -> WaitTable: ...

    def create(
        self, command: Sequence[Any], sink: Any, tag: int, user: str | None = None, auth_revision: int = 0
    ) -> tuple[Any, Revision]: ...

    def cancel(self, watcher: Any) -> None: ...

    def cancel_all(self, error: RaftKVError) -> None: ...

    def request_progress(self, sink: Any, done: Callable[[Revision], None]) -> None: ...

    def forget(self, sink: Any) -> None: ...

    def step(self) -> None: ...

    def tick(self, now_ms: Milliseconds) -> None: ...

    @property
    def has_backlog(self) -> bool: ...

    @property
    def is_active(self) -> bool:
        """Whether anybody watches or waits."""
        ...


class Watching:
    """Watches and waits of one member."""

    def __init__(
        self,
        hub: Hub,
        submit_reads: Callable[[ReadGroup], None],
        deadline: Callable[[Milliseconds], Milliseconds],
        limits: Limits,
    ) -> None:
        self._hub = hub
        self._deadline = deadline
        self._gathering: list[_Opening] = []  # wait for the barrier after the one under way
        self._is_asking = False
        self._is_patient = False  # the barrier under way has all the time that one may take
        self._next_barrier_ms: Milliseconds = 0
        self._openings: deque[_Opening] = deque()  # behind their barrier, a few per turn
        self._submit_reads = submit_reads
        self._waits_max = limits.waits_max

    @property
    def has_backlog(self) -> bool:
        """Events wait, and somebody takes them."""
        return bool(self._openings) or self._hub.has_backlog

    def open(
        self,
        command: Sequence[Any],
        sink: WatchSink,
        tag: int,
        deadline_ms: Milliseconds,
        caller: Caller = ANYBODY,
    ) -> None:
        """Begin a watch: ends in `on_created`, later perhaps `on_canceled`, or in `on_canceled` alone."""

        def begin() -> None:
            try:
                watcher, revision = self._hub.create(command, sink, tag, *caller)
            except RaftKVError as error:
                sink.on_canceled(tag, error)
            else:
                sink.on_created(tag, watcher, revision)

        self._behind_barrier(begin, lambda error: sink.on_canceled(tag, error), deadline_ms)

    def close(self, watcher: Any) -> None:
        """End a watch without another word."""
        self._hub.cancel(watcher)

    def wait(self, command: Sequence[Any], done: "Waiter", deadline_ms: Milliseconds, caller: Caller = ANYBODY) -> None:
        """Answer once the condition holds, at a linearizable point, or when the deadline passes."""

        def begin() -> None:
            if done.gone:
                return
            if len(self._hub.waits) >= self._waits_max:
                done.answer(failure(Overloaded(f"this member serves at most {self._waits_max} waits")))
                return
            try:
                done.wait = self._hub.waits.add(command, done.answer, deadline_ms, *caller)
            except RaftKVError as error:
                done.answer(failure(error))

        self._behind_barrier(begin, lambda error: done.answer(failure(error)), deadline_ms)

    def give_up(self, waiter: "Waiter") -> None:
        """Its connection is gone."""
        waiter.gone = True
        if waiter.wait is not None:
            self._hub.waits.remove(waiter.wait)

    def request_progress(self, sink: WatchSink, done: Callable[[Revision], None]) -> None:
        """Say the revision once all watches of the sink have had everything up to it."""
        self._hub.request_progress(sink, done)

    def forget(self, sink: WatchSink) -> None:
        """The connection is gone."""
        self._hub.forget(sink)

    def step(self) -> None:
        """Begin what may begin, and hand out events; once per turn of the loop."""
        if self._openings:
            for _ in range(min(OPENINGS_PER_STEP, len(self._openings))):
                self._openings.popleft().begin()
        self._hub.step()

    def tick(self, now_ms: Milliseconds) -> None:
        """Signs of progress, and waits whose time is up."""
        self._hub.tick(now_ms)
        if len(self._hub.waits):
            self._hub.waits.expire(now_ms)
        if now_ms >= self._next_barrier_ms and not self._is_asking and self._hub.is_active:
            self._ask()

    def send_away(self, error: RaftKVError) -> None:
        """This member is cut off, or leaves: all have to go on elsewhere."""
        openings, self._openings = self._openings, deque()
        for opening in openings:
            opening.refuse(error)
        self._hub.cancel_all(error)
        self._hub.waits.fail_all(error)

    # All that come while one barrier is under way share the next.

    def _behind_barrier(
        self, begin: Callable[[], None], refuse: Callable[[RaftKVError], None], deadline_ms: Milliseconds
    ) -> None:
        self._gathering.append(_Opening(begin, refuse, deadline_ms))
        if not self._is_asking:
            self._ask()

    def _ask(self) -> None:
        openings, self._gathering = self._gathering, []
        self._is_asking = True
        latest_ms = self._deadline(BARRIER_TIMEOUT_MS)
        deadline_ms = min(latest_ms, max((opening.deadline_ms for opening in openings), default=latest_ms))
        self._is_patient = deadline_ms == latest_ms
        self._submit_reads(
            ReadGroup(_Barrier(self, openings), [0], [BARRIER], deadline_ms=deadline_ms, user=MEMBER_USER)
        )

    def on_barrier(self, openings: "list[_Opening]", error: RaftKVError | None) -> None:
        """These may begin, or never will here."""
        self._is_asking = False
        self._next_barrier_ms = self._deadline(BARRIER_INTERVAL_MS)
        if error is None:
            self._openings.extend(openings)
        else:
            for opening in openings:
                opening.refuse(error)
            if self._is_patient and isinstance(error, DeadlineExceeded):
                self.send_away(
                    DeadlineExceeded(
                        "this member does not keep up with the others: go elsewhere", may_have_happened=False
                    )
                )
        if self._gathering and not self._is_asking:
            self._ask()


class Waiter:
    """Whoever gets the answer of a wait, once."""

    __slots__ = ("answer", "gone", "wait")

    def __init__(self, answer: Callable[[Answer], None]) -> None:
        self.answer = answer
        self.wait: Any = None
        self.gone = False


class _Opening(NamedTuple):
    """A watch or a wait that is about to begin."""

    begin: Callable[[], None]
    refuse: Callable[[RaftKVError], None]
    deadline_ms: Milliseconds


class _Barrier:
    """The origin of a read that nobody wants the answer of: that it was answered is what counts."""

    takes_answers = True

    def __init__(self, watching: Watching, openings: list[_Opening]) -> None:
        self._watching = watching
        self._openings = openings

    def on_answers(self, group: WriteGroup | ReadGroup, answers: Sequence[Answer]) -> None:
        self._watching.on_barrier(self._openings, None)

    def on_refused(self, group: WriteGroup | ReadGroup, error: RaftKVError) -> None:
        self._watching.on_barrier(self._openings, error)

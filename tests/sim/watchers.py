"""Watches as a workload: watchers of the whole store, on any member, through restarts, snapshots, cuts and compactions.

Every change of the store is a revision of its own, so a gap or a duplicate shows without a witness: the next revision is the last one plus one.
And what a revision holds must be the same for all watchers, wherever they heard of it. At the end each has heard of everything. They
sit beside the members, not behind the network: what a client does about a lost connection is in WatchState, which is the real one.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from raftkv.client.watchstate import WatchState, watch_command
from raftkv.errors import RaftKVError, WatchCompacted
from raftkv.replica.watching import Batch
from raftkv.units import Revision
from raftkv.wire.commands import OK, Answer, failure
from raftkv.wire.protocol import WATCH_CREATE, WATCH_EVENTS

from .world import QUIET_US_MAX, World

if TYPE_CHECKING:
    from .process import Process

WATCHERS = 3
LOOK_US = 150_000
LEAVE_CHANCE = 0.02
SLOW_CHANCE = 0.3


class WatchedWorld(World):
    """A world with watchers, and history that is compacted within seconds."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        random = self.stream("watched")
        self.knobs.limits = replace(
            self.knobs.limits,
            history_revisions_max=random.choice((20, 200, 10**6)),
            watch_queue_events_max=random.choice((2, 4096)),
            watch_fragment_bytes=random.choice((100, 1 << 19)),
        )
        self.events_of: dict[Revision, list[Any]] = {}
        self.watchers = [SimWatcher(self, number) for number in range(WATCHERS)]

    def begin(self) -> None:
        super().begin()
        for watcher in self.watchers:
            watcher.look()

    def rest_and_compare(self) -> None:
        super().rest_and_compare()
        leader = next(m.process for m in self.machines.values() if m.process and m.process.state.is_leader)
        revision = leader.storage.revision
        for watcher in self.watchers:
            watcher.is_resting = True

        def told() -> bool:
            return all(watcher.state.began and watcher.state.next_revision > revision for watcher in self.watchers)

        if not self.run_until(self.now_us + QUIET_US_MAX, told):
            places = [(watcher.state.began, watcher.state.next_revision) for watcher in self.watchers]
            self.checks.violate(f"watchers at {places} never hear of revision {revision}")


class SimWatcher:
    """One watch, which goes from member to member. A WatchSink."""

    def __init__(self, world: WatchedWorld, number: int) -> None:
        self.is_resting = False
        self.state = _new_state()
        self.compacted = 0
        self.heard = 0
        self._world = world
        self._random = world.stream(f"watcher {number}")
        self._process: Process | None = None
        self._watcher: Any = None
        self._tag = 0  # of the attempt under way: what an older one brings is for nobody
        self._last: Revision = 0
        self._is_slow = False

    def look(self) -> None:
        """Now and then: is the member still there, and does one want to stay?"""
        self._world.after(LOOK_US, self.look)
        process = self._process
        self._is_slow = not self.is_resting and self._random.random() < SLOW_CHANCE
        if process is not None:
            gone = process.machine.process is not process or process.machine.paused
            if gone or (not self.is_resting and self._random.random() < LEAVE_CHANCE):
                self._leave()
            else:
                process.turn()  # as when a socket has room again
        if self._process is None:
            self._attach()

    def _attach(self) -> None:
        alive = [m.process for m in self._world.machines.values() if m.process and not m.paused]
        if alive:
            self._process = self._random.choice(alive)
            self._tag += 1
            service = self._process.service
            service.watching.open(self.state.command(), self, self._tag, service.deadline(2_000))
            if self._process is not None:
                self._process.turn()

    def _leave(self) -> None:
        process, self._process, watcher, self._watcher = self._process, None, self._watcher, None
        self._tag += 1
        if watcher is not None and process is not None:
            process.service.watching.close(watcher)

    # WatchSink.

    @property
    def takes_events(self) -> bool:
        return not self._is_slow

    def on_created(self, tag: int, watcher: Any, revision: Revision) -> None:
        if tag != self._tag:
            assert self._process is None or self._watcher is not watcher, "another one"
            return
        self._watcher = watcher
        self._receive([OK, WATCH_CREATE, revision])

    def on_events(self, tag: int, batch: Batch) -> None:
        if tag == self._tag:
            self._receive([OK, WATCH_EVENTS, batch.revision, batch.more, batch.items()])

    def on_progress(self, tag: int, revision: Revision) -> None:
        if tag == self._tag:
            self._receive([OK, WATCH_EVENTS, revision, False, []])

    def on_canceled(self, tag: int, error: RaftKVError) -> None:
        if tag != self._tag:
            return
        self._watcher = None
        self._leave()
        try:
            self._receive(failure(error))
        except WatchCompacted as gone:
            if gone.compact_revision < self.state.next_revision:
                self._world.checks.violate(
                    f"refused at {self.state.next_revision}, compacted is {gone.compact_revision}"
                )
            self.compacted += 1
            self.state, self._last = _new_state(), 0
        except RaftKVError:
            pass  # elsewhere

    def _receive(self, answer: Answer) -> None:
        world = self._world
        for batch in self.state.receive(answer):
            if self._last and batch.revision != self._last + 1:
                world.checks.violate(f"a watch heard of revision {batch.revision} after {self._last}")
            known = world.events_of.setdefault(batch.revision, batch.events)
            if known != batch.events:
                world.checks.violate(f"two watches heard different things of revision {batch.revision}")
            self._last = batch.revision
            self.heard += len(batch.events)
        if self._last and self.state.next_revision > self._last + 1:
            world.checks.violate(f"a watch was told of progress to {self.state.next_revision - 1} after {self._last}")


def _new_state() -> WatchState:
    return WatchState(watch_command(b"\0", b"\0", start_revision=0, prev_kv=False, only=None), progress=False)

"""Bugs of linearizable reads: raft/reads.py, replica/reads.py, replica/service.py, and leases."""

from collections.abc import Iterator, Sequence

from raftkv.raft import election
from raftkv.raft import reads as rounds
from raftkv.raft.messages import Message, ReadIndexResponse
from raftkv.raft.node import Raft
from raftkv.raft.reads import Reader, ReadRounds
from raftkv.raft.state import State
from raftkv.replica.groups import ReadGroup
from raftkv.replica.reads import PendingReads
from raftkv.replica.service import Service

from . import stories
from .registry import bug, swapped

LEASES = {"lease_reads": True, "check_quorum": True, "fast_failover": False, "drift_max": 0.04, "nemesis_us": 300_000}


@bug(
    "ReadIndex without a quorum round",
    "a leader takes it for granted that it still leads",
    "no read is older than what anybody was told before (6.4)",
    knobs={"disasters": ("isolate_leader",), "check_quorum": False, "lease_reads": False, "fates": ("dead",)},
)
def read_index_without_a_round() -> Iterator[None]:
    def serve(state: State, reader: Reader) -> None:
        if state.committed_in_term:
            rounds._deliver(state, state.commit_index, (reader,))
        else:
            state.reads.waiting.append(reader)
            state.dirty = True

    with swapped(rounds, "_serve", serve):
        yield


@bug(
    "stale read after leadership loss",
    "reads whose confirmation failed with the leadership are answered from what is applied",
    "no read is older than what anybody was told before (6.4)",
    knobs={"disasters": ("isolate_leader", "kill", "transfer"), "nemesis_us": 300_000},
)
def stale_read_after_leadership_loss() -> Iterator[None]:
    def on_reads_failed(self: Service, contexts: Sequence[int]) -> None:
        for context in contexts:
            self._reads.confirmed(context, self._state_machine.applied_index)
        self._serving.serve(self._reads.take_ready(self._state_machine.applied_index))

    with swapped(Service, "on_reads_failed", on_reads_failed):
        yield


@bug(
    "reuse of a ReadIndex request across leaders",
    "a member repeats its question under the same id, so that a late answer of the leader before serves newer reads",
    "a confirmation never reuses its id (6.4, etcd#20418)",
    knobs={
        "members": 3,
        "disasters": ("slow_link", "transfer"),
        "nemesis_us": 150_000,
        "chaos_us": 8_000_000,
        "reordering": 0.5,
        "latency_us": (500, 30_000),
        "lease_reads": False,
        "pipelined": 4,
        "think_us": 5_000,
    },
)
def reuse_of_a_read_index_request() -> Iterator[None]:
    original_admit, original_start = election.admit, PendingReads.start_round

    def admit(state: State, message: Message) -> bool:
        return type(message) is ReadIndexResponse or original_admit(state, message)

    def start_round(self: PendingReads, now_ms: int) -> int:
        self._next_context = 7
        return original_start(self, now_ms)

    with swapped(election, "admit", admit), swapped(PendingReads, "start_round", start_round):
        yield


@bug(
    "a new leader reads before it has committed",
    "a leader takes its commit index for the newest before an entry of its term is committed",
    "no read is older than what anybody was told before (6.4, first step)",
    knobs={"disasters": ("kill", "isolate_leader"), "nemesis_us": 150_000, "sync_us": (500, 40_000)},
)
def read_before_the_first_commit() -> Iterator[None]:
    original = State.become_leader

    def become_leader(self: State) -> None:
        original(self)
        self.committed_in_term = self.commit_index > 0

    with swapped(State, "become_leader", become_leader):
        yield


@bug(
    "read before apply",
    "a confirmed read is answered although apply has not reached its index",
    "no read is older than what anybody was told before (6.4, last step)",
)
def read_before_apply() -> Iterator[None]:
    original = PendingReads.take_ready

    def take_ready(self: PendingReads, applied_index: int) -> list[ReadGroup]:
        return original(self, 1 << 60)

    with swapped(PendingReads, "take_ready", take_ready):
        yield


@bug(
    "lease read after clock jump",
    "a lease is compared with the time of the last tick, so after a pause it still counts",
    "a lease ends by the clock at the time of serving (6.4.1)",
    knobs={**LEASES, "disasters": ("pause",), "turn_us": 0},
)
def lease_read_after_clock_jump() -> Iterator[None]:
    original = Raft.tick
    ticked_ms: dict[int, int] = {}

    def tick(self: Raft) -> None:
        clock_ms = self._state.config.clock_ms
        if clock_ms is not None:
            ticked_ms[id(self._state)] = clock_ms()
        original(self)

    def has_lease(state: State) -> bool:
        now_ms = ticked_ms.get(id(state))
        return state.committed_in_term and now_ms is not None and 0 < state.reads.lease_until_ms > now_ms

    with swapped(Raft, "tick", tick), swapped(rounds, "has_lease", has_lease):
        yield


@bug(
    "lease outlives a transfer",
    "a leader goes on reading by its lease after it told another member to take over",
    "the lease ends before TimeoutNow is sent (3.10, 6.4.1)",
    story=stories.transfer_under_a_lease,
)
def lease_outlives_a_transfer() -> Iterator[None]:
    with swapped(ReadRounds, "bar_lease", lambda self, term: None):
        yield

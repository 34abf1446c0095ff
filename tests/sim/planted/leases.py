"""Bugs of leases: replica/leases.py, replica/lease_desk.py and store/leases.py. Their worlds have owners of leases."""

from collections.abc import Iterator

from raftkv.replica import leases as books
from raftkv.replica.lease_desk import LeaseDesk
from raftkv.replica.leases import LeaseBooks
from raftkv.store import store as store_module
from raftkv.store.keyspace import Keyspace
from raftkv.store.leases import Leases, load_leases
from raftkv.units import Milliseconds, Term

from .registry import bug, swapped

PROMISE = "no lease ends before its owner was told it would"


@bug(
    "keep-alive without a quorum round",
    "a leader takes it for granted that it still leads, and keeps leases alive that its successor ends",
    PROMISE,
    knobs={"leases": True, "disasters": ("isolate_leader",), "check_quorum": False, "nemesis_us": 1_500_000},
)
def keep_alive_without_a_round() -> Iterator[None]:
    start_round = LeaseDesk.start_round

    def answer_at_once(self: LeaseDesk, now_ms: Milliseconds) -> int:
        if self._books.in_office:
            groups, self._new = self._new, []
            for group in groups:
                self._answer(group, 0)
        return start_round(self, now_ms)

    with swapped(LeaseDesk, "start_round", answer_at_once):
        yield


@bug(
    "keep-alive answered before the log promises it",
    "a lease that was checkpointed is renewed in the leader's books alone",
    PROMISE,
    knobs={"leases": True, "disasters": ("kill", "isolate_leader", "transfer"), "nemesis_us": 600_000},
)
def keep_alive_before_the_reset() -> Iterator[None]:
    renew = LeaseBooks.renew

    def renew_at_once(self: LeaseBooks, lease_id: int, now_ms: Milliseconds) -> Milliseconds | None:
        ttl_ms = renew(self, lease_id, now_ms)
        lease = self._state_machine.leases.get(lease_id)
        if ttl_ms is None and lease is not None and lease_id not in self._proposed:
            self._resets.pop(lease_id, None)
            return lease.ttl_ms
        return ttl_ms

    with swapped(LeaseBooks, "renew", renew_at_once):
        yield


@bug(
    "a new leader counts leases from before its office",
    "what the log promises begins with the election of the predecessor",
    PROMISE,
    knobs={"leases": True, "disasters": ("kill", "transfer"), "nemesis_us": 600_000},
)
def office_that_began_earlier() -> Iterator[None]:
    take_office = LeaseBooks.take_office

    def take_it_earlier(self: LeaseBooks, term: Term, now_ms: Milliseconds) -> None:
        take_office(self, term, now_ms)
        self._office_since_ms = now_ms - 1_000

    with swapped(LeaseBooks, "take_office", take_it_earlier):
        yield


@bug(
    "a lease ends although it was renewed",
    "when its slot comes the deadline of its grant counts, not that of its last keep-alive",
    PROMISE,
    knobs={"leases": True},
)
def deadline_of_the_grant() -> Iterator[None]:
    look_at = LeaseBooks._look_at

    def look_at_the_slot(self: LeaseBooks, lease_id: int, now_ms: Milliseconds) -> None:
        lease = self._state_machine.leases.get(lease_id)
        if lease is not None and lease.remaining_ms < 2 * books.CHECKPOINT_REMAINING_MS_MIN:
            self._deadlines[lease_id] = now_ms
        look_at(self, lease_id, now_ms)

    with swapped(LeaseBooks, "_look_at", look_at_the_slot):
        yield


@bug(
    "attachments forgotten at a restart",
    "a member that starts knows its leases but not which keys hang on them",
    "members with one applied index have one digest",
    knobs={"leases": True, "disasters": ("kill", "power_loss"), "nemesis_us": 300_000},
)
def attachments_forgotten() -> Iterator[None]:
    def load_without_keys(keyspace: Keyspace) -> Leases:
        leases = load_leases(keyspace)
        for lease_id in leases:
            lease = leases.get(lease_id)
            assert lease is not None
            lease.keys.clear()
        return leases

    with swapped(store_module, "load_leases", load_without_keys):
        yield

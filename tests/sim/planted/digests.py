"""Bugs around the comparison of stores: replica/digests.py.

The simulator itself sees every digest that differs, at once. To know that members see it of each other, a store has to go astray
where the simulator does not look: in what its member notes of it.
"""

from collections.abc import Iterator

from raftkv.raft.effects import DigestHeard
from raftkv.replica.digests import Digests
from raftkv.units import Index

from .registry import bug, swapped

PROMISE = "a member whose store is not that of a quorum stops, and nobody else does"
SMALL_LOG = {"log_retained_entries_max": 5, "log_retained_bytes_max": 1024}


@bug(
    "store that goes astray",
    "one member's store is another one than those of the others, from some entry on",
    PROMISE,
    knobs={"disasters": ("transfer", "isolate_leader"), "nemesis_us": 1_000_000},
)
def store_goes_astray() -> Iterator[None]:
    note = Digests.note
    astray: list[Digests] = []

    def note_another(self: Digests, index: Index, digest: int) -> None:
        if not astray and index >= 20:
            astray.append(self)
        note(self, index, digest ^ 0x80 if self in astray else digest)

    with swapped(Digests, "note", note_another):
        yield


@bug(
    "digests of the old store kept",
    "a member that takes in a snapshot compares what it knew of the store before",
    PROMISE,
    knobs={"disasters": ("kill", "isolate_leader"), "nemesis_us": 150_000},
    limits=SMALL_LOG,
)
def digests_of_the_old_store() -> Iterator[None]:
    restart = Digests.restart

    def restart_and_mix(self: Digests, index: Index, digest: int) -> None:
        first_index = getattr(self, "_first_index", index)
        restart(self, index, digest)
        self._first_index = first_index

    with swapped(Digests, "restart", restart_and_mix):
        yield


@bug(
    "digests of different indexes compared",
    "a follower's report is taken for one about the index before",
    PROMISE,
)
def different_indexes() -> Iterator[None]:
    hear = Digests.hear

    def hear_of_another_index(self: Digests, heard: DigestHeard) -> None:
        if not heard.agreed and heard.index % 8 == 0:
            heard = DigestHeard(heard.source, heard.index - 1, heard.digest, agreed=False)
        hear(self, heard)

    with swapped(Digests, "hear", hear_of_another_index):
        yield

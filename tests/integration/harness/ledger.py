"""What was asked of the cluster and what came of it, and the check of one against the other.

Three shapes of write find three kinds of fault: a key written once (lost, doubled or invented writes), a counter (a retry
that applies twice), and a key written over and over (a lost overwrite). An outcome is acknowledged, refused (surely not
done) or unknown (done once or never); nothing may be both.
"""

import threading
import time
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Iterable

from raftkv.errors import RaftKVError
from raftkv_jepsen.machines.cluster import Cluster
from raftkv_jepsen.machines.native import NativeConnection

ACKNOWLEDGED = "acknowledged"
REFUSED = "refused"
UNKNOWN = "unknown"


def outcome_of(error: RaftKVError) -> str:
    """What an error says about its write."""
    return UNKNOWN if error.may_have_happened else REFUSED


@dataclass(slots=True)
class Single:
    """A key that is written once, ever."""

    value: bytes
    outcome: str
    revision: int = 0


@dataclass(slots=True)
class Tally:
    """Writes that add up on one key."""

    acknowledged: int = 0
    unknown: int = 0

    def add(self, outcome: str) -> None:
        self.acknowledged += outcome == ACKNOWLEDGED
        self.unknown += outcome == UNKNOWN

    def allows(self, found: int) -> bool:
        """Whether `found` applications can be explained."""
        return self.acknowledged <= found <= self.acknowledged + self.unknown


@dataclass(slots=True)
class Ledger:
    """Shared by all writers of a workload; each key belongs to one writer."""

    singles: dict[bytes, Single] = field(default_factory=dict)
    counters: dict[bytes, Tally] = field(default_factory=dict)
    overwrites: dict[bytes, Tally] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    acknowledged_at_s: list[float] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def record_single(self, key: bytes, value: bytes, outcome: str, revision: int = 0) -> None:
        with self._lock:
            assert key not in self.singles, f"{key!r} is written once"
            self.singles[key] = Single(value, outcome, revision)
            self._note(outcome)

    def record_counter(self, key: bytes, outcome: str) -> None:
        with self._lock:
            self.counters.setdefault(key, Tally()).add(outcome)
            self._note(outcome)

    def record_overwrite(self, key: bytes, outcome: str) -> None:
        with self._lock:
            self.overwrites.setdefault(key, Tally()).add(outcome)
            self._note(outcome)

    def record_error(self, error: BaseException) -> None:
        with self._lock:
            self.errors.append(f"{type(error).__name__}: {error}")

    def _note(self, outcome: str) -> None:
        if outcome == ACKNOWLEDGED:
            self.acknowledged_at_s.append(time.monotonic())

    @property
    def acknowledged_count(self) -> int:
        return len(self.acknowledged_at_s)

    def count(self, outcome: str) -> int:
        """How many single writes and counter steps ended so (refused counter steps are not kept)."""
        with self._lock:
            total = sum(single.outcome == outcome for single in self.singles.values())
            if outcome == UNKNOWN:
                total += sum(tally.unknown for tally in (*self.counters.values(), *self.overwrites.values()))
            return total

    def longest_gap_s(self, from_s: float, until_s: float) -> float:
        """The longest time without an acknowledged write between two readings of the monotonic clock."""
        with self._lock:
            marks = [from_s, *(at_s for at_s in self.acknowledged_at_s if from_s <= at_s <= until_s), until_s]
        return max(later - earlier for earlier, later in pairwise(marks))

    def check(self, dump: Iterable[list[Any]]) -> None:
        """Compares with what a member holds. Raises AssertionError with the first differences."""
        held = {bytes(items[0]): items for items in dump}
        faults = [
            *self._faults_of_singles(held),
            *self._faults_of_counters(held),
            *self._faults_of_overwrites(held),
        ]
        assert not faults, f"{len(faults)} differences, the first: {faults[:5]}; client errors: {self.errors[:5]}"

    def _faults_of_singles(self, held: dict[bytes, list[Any]]) -> list[str]:
        faults = []
        for key, single in self.singles.items():
            items = held.get(key)
            if items is None:
                if single.outcome == ACKNOWLEDGED:
                    faults.append(f"acknowledged {key!r} is lost")
            elif single.outcome == REFUSED:
                faults.append(f"refused {key!r} is present")
            elif items[5] != single.value:
                faults.append(f"{key!r} has another value")
            elif items[3] != 1:
                faults.append(f"{key!r} was applied {items[3]} times")
            elif single.revision and items[2] != single.revision:
                faults.append(f"{key!r} was acknowledged at revision {single.revision}, is at {items[2]}")
        return faults

    def _faults_of_counters(self, held: dict[bytes, list[Any]]) -> list[str]:
        faults = []
        for key, tally in self.counters.items():
            items = held.get(key)
            value, version = (int(items[5]), items[3]) if items is not None else (0, 0)
            if not tally.allows(value) or value != version:
                faults.append(f"counter {key!r} is {value} in {version} versions, should be {tally}")
        return faults

    def _faults_of_overwrites(self, held: dict[bytes, list[Any]]) -> list[str]:
        faults = []
        for key, tally in self.overwrites.items():
            items = held.get(key)
            version = 0 if items is None else items[3]
            if not tally.allows(version):
                faults.append(f"{key!r} has version {version}, should be {tally}")
        return faults


def check_everywhere(cluster: Cluster, ledger: Ledger) -> None:
    """The ledger against a linearizable read, and all running replicas against each other."""
    leader = cluster.leader()
    with leader.connect(timeout_s=20) as connection:
        dump = connection.dump(serializable=False)
    ledger.check(dump)
    cluster.wait_applied_equal()
    for node in cluster.nodes:
        if node.running:
            assert replica_dump(node.connect(timeout_s=20)) == dump, f"{node.name} differs from {leader.name}"


def replica_dump(connection: NativeConnection) -> list[list[Any]]:
    """What one member's own store holds."""
    with connection:
        return connection.dump(serializable=True)

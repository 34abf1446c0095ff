"""What the tests of the log share: a small log on a fake disk, and words for what was written."""

from typing import Sequence

from raftkv.limits import Limits
from raftkv.raft.messages import Configuration, Entry, HardState, SnapshotMeta
from raftkv.wal.fakedisk import FakeDisk
from raftkv.wal.record import Identity
from raftkv.wal.recovery import Recovered
from raftkv.wal.wal import Wal

DIRECTORY = "/data/wal"
IDENTITY = Identity(cluster_name="prod", node_id=7, name="n1", incarnation=2**62 + 1)
SEGMENT_BYTES = 4096
LIMITS = Limits(wal_segment_bytes=SEGMENT_BYTES)


def entry(index: int, term: int = 1, size_bytes: int = 20) -> Entry:
    data = f"{index}/{term}:".encode().ljust(size_bytes, b"x")
    return Entry(index, term, 1, data)


def entries(first: int, last: int, term: int = 1, size_bytes: int = 20) -> list[Entry]:
    return [entry(index, term, size_bytes) for index in range(first, last + 1)]


def snapshot(index: int, term: int = 1) -> SnapshotMeta:
    return SnapshotMeta(index, term, Configuration(frozenset({7})))


def create(disk: FakeDisk | None = None, limits: Limits = LIMITS) -> tuple[Wal, FakeDisk]:
    disk = disk or FakeDisk()
    return Wal.create(disk, DIRECTORY, IDENTITY, limits), disk


def save(wal: Wal, new_entries: Sequence[Entry] = (), hard_state: HardState | None = None) -> None:
    wal.write(hard_state, new_entries, None)
    wal.sync()


def reopen(disk: FakeDisk, limits: Limits = LIMITS) -> tuple[Wal, Recovered]:
    """As a new process does after a kill."""
    disk.kill()
    return Wal.open(disk, DIRECTORY, limits)


def recovered(disk: FakeDisk, limits: Limits = LIMITS) -> Recovered:
    _, found = reopen(disk, limits)
    disk.kill()
    return found


def segment_paths(disk: FakeDisk) -> list[str]:
    return [f"{DIRECTORY}/{name}" for name in sorted(disk.list(DIRECTORY)) if name.endswith(".wal")]


def recovered_copy(disk: FakeDisk) -> Recovered:
    """What a new process would find, without disturbing the owner."""
    copy = FakeDisk()
    for path in segment_paths(disk):
        file = copy.open(path, create=True)
        file.pwritev((disk.contents(path),), 0)
        file.fdatasync()
    return recovered(copy)

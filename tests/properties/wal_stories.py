"""A log and, beside it, a plain list of what it must hold: what the property tests of the log share."""

from dataclasses import dataclass, field, replace

from raftkv.limits import Limits
from raftkv.raft.messages import Entry, HardState
from raftkv.wal.fakedisk import FakeDisk
from raftkv.wal.recovery import Recovered
from raftkv.wal.wal import Wal
from tests.unit.wal.logs import DIRECTORY, IDENTITY, entries, entry, reopen, snapshot

SMALL = Limits(wal_segment_bytes=1536)


@dataclass(frozen=True)
class Model:
    """The log as plain data."""

    hard_state: tuple[int, int, int] = (0, 0, 0)
    start: tuple[int, int] = (0, 0)
    entries: tuple[tuple[int, int, bytes], ...] = ()

    @property
    def last_index(self) -> int:
        return self.start[0] + len(self.entries)

    def with_entries(self, new: list[Entry]) -> "Model":
        kept = self.entries[: new[0].index - self.start[0] - 1]
        return replace(self, entries=kept + tuple((item.index, item.term, item.data) for item in new))

    def compacted(self, index: int, term: int) -> "Model":
        return replace(self, start=(index, term), entries=self.entries[index - self.start[0] :])


def model_of(found: Recovered) -> Model:
    hard_state = found.hard_state
    return Model(
        (hard_state.term, hard_state.vote, hard_state.commit),
        (found.log_start_index, found.log_start_term),
        tuple((item.index, item.term, item.data) for item in found.entries),
    )


@dataclass
class Story:
    """Drives a log and keeps beside it what it must hold: `acknowledged`, or one of `possible` while a sync is unfinished."""

    disk: FakeDisk = field(default_factory=FakeDisk)
    wal: Wal = field(init=False)
    written: Model = Model()
    possible: list[Model] = field(default_factory=lambda: [Model()])  # the first is what was acknowledged

    def __post_init__(self) -> None:
        self.wal = Wal.create(self.disk, DIRECTORY, IDENTITY, SMALL)

    def save(self, new: list[Entry], hard_state: HardState | None = None) -> None:
        if hard_state is not None:
            self.written = replace(self.written, hard_state=(hard_state.term, hard_state.vote, hard_state.commit))
        if new:
            self.written = self.written.with_entries(new)
        self.wal.write(hard_state, new, None)

    def restore(self, index: int, term: int) -> None:
        self.written = replace(self.written, start=(index, term), entries=())
        self.wal.write(None, [], snapshot(index, term))

    def sync(self) -> None:
        self.possible.append(self.written)
        self.wal.sync()
        self.possible = [self.written]

    def compact(self, index: int) -> None:
        """Up to `index`, if it is durable; else nothing."""
        acknowledged = self.possible[0]
        if not max(acknowledged.start[0], self.written.start[0]) < index <= acknowledged.last_index:
            return
        term = acknowledged.entries[index - acknowledged.start[0] - 1][1]
        if self.written.last_index < index or self.written.entries[index - self.written.start[0] - 1][1] != term:
            return  # what is being replaced was not committed
        self.possible += [model.compacted(index, term) for model in self.possible]
        self.wal.compact(index, term)
        if self.wal.log_start_index == index:  # else the disk is full, and the mark has to wait
            self.possible = [model for model in self.possible if model.start[0] >= index]
            self.written = self.written.compacted(index, term)

    def come_back(self) -> None:
        """A new process, after a kill or a power loss."""
        self.wal, found = reopen(self.disk, SMALL)
        assert found.identity == IDENTITY
        assert model_of(found) in self.possible
        self.written = model_of(found)
        self.possible = [self.written]


def tell(story: Story) -> None:
    """A story with everything in it; ends with an acknowledged sync."""
    story.save(entries(1, 5), HardState(1, 7, 0))
    story.sync()
    for index in range(6, 20):
        story.save([entry(index, size_bytes=150)], HardState(1, 7, index - 1))
        story.sync()
    story.compact(9)
    story.save(entries(15, 17, term=2, size_bytes=90), HardState(2, 3, 14))
    story.save(entries(17, 18, term=3), HardState(3, 0, 14))
    story.sync()
    story.save([entry(19, term=3, size_bytes=2500)])
    story.sync()
    story.compact(16)
    story.restore(100, 4)
    story.save(entries(101, 110, term=4), HardState(4, 7, 101))
    story.sync()
    for index in range(111, 120):
        story.save([entry(index, term=4, size_bytes=150)])
        story.sync()
    story.compact(105)
    story.save(entries(120, 121, term=4), HardState(4, 7, 119))
    story.sync()


def told() -> Story:
    story = Story()
    tell(story)
    story.disk.kill()
    return story

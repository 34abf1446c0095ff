"""The log against crashes and full disks, compared with a plain list: nothing acknowledged is lost, nothing is made up.

Every test ends in one of two ways: what is read is what was acknowledged, or that and the whole of an unfinished sync. What
makes these more than examples is that the crash and the full disk come at every single operation of a story.
"""

import errno
from random import Random
from typing import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftkv.errors import DiskFailure, NoSpace
from raftkv.raft.messages import HardState
from raftkv.wal.fakedisk import FakeDisk
from raftkv.wal.wal import Wal
from tests.properties.wal_stories import SMALL, Story, tell
from tests.unit.wal.logs import DIRECTORY, entries, entry


class PowerLoss(BaseException):
    """Not an Exception: nothing may catch it."""


# Every operation of the story.


def operations_of_the_story() -> list[str]:
    names: list[str] = []
    story = Story()
    story.disk.fault = lambda operation, path: names.append(operation)
    tell(story)
    return names


def at_operation(number: int, error: Callable[[], BaseException]) -> Callable[[str, str], None]:
    """A fault that raises at the `number`-th operation from now."""
    seen = -1

    def fault(operation: str, path: str) -> None:
        nonlocal seen
        seen += 1
        if seen == number:
            raise error()

    return fault


def test_power_loss_at_every_operation() -> None:
    total = len(operations_of_the_story())
    assert total > 80
    for number in range(total):
        for seed in range(3):
            story = Story()
            story.disk.fault = at_operation(number, PowerLoss)
            with pytest.raises(PowerLoss):
                tell(story)
            story.disk.fault = None
            story.disk.crash(Random(1000 * number + seed))
            story.come_back()
            story.save([entry(story.written.last_index + 1, term=9)], HardState(9, 7, 0))
            story.sync()
            story.come_back()


def test_power_loss_while_coming_back() -> None:
    for seed in range(60):
        story = Story()
        story.disk.fault = at_operation(40 + seed, PowerLoss)
        with pytest.raises(PowerLoss):
            tell(story)
        for number in range(8):
            story.disk.crash(Random(100 * seed + number))
            story.disk.fault = at_operation(number, PowerLoss)
            try:
                Wal.open(story.disk, DIRECTORY, SMALL)
            except PowerLoss:
                continue
        story.disk.fault = None
        story.disk.crash(Random(seed))
        story.come_back()


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_a_failing_disk_at_every_operation(number: int) -> None:
    """Broken: it ends there, and what was acknowledged is found afterwards. Full: it goes on, and everything is found."""
    names = operations_of_the_story()
    ended = set()
    for position, name in enumerate(names):
        story = Story()
        story.disk.fault = at_operation(position, lambda: OSError(number, "injected"))
        try:
            tell_again_when_full(story)
        except DiskFailure:
            ended.add(name)
            with pytest.raises(DiskFailure):
                story.wal.sync()
            story.wal.close()
        story.disk.fault = None
        story.disk.crash(Random(position))
        story.come_back()
    ends_always = {"fdatasync", "unlink", "sync_directory"}
    assert ended == (ends_always | {"open", "preallocate", "pwritev", "rename"} if number == errno.EIO else ends_always)


def tell_again_when_full(story: Story) -> None:
    """The story, by somebody who tries once more after NoSpace."""
    sync, compact = story.sync, story.compact

    def persistent_sync() -> None:
        try:
            sync()
        except NoSpace:
            sync()

    def persistent_compact(index: int) -> None:
        try:
            compact(index)
        except NoSpace:
            compact(index)

    story.sync, story.compact = persistent_sync, persistent_compact  # type: ignore[method-assign]
    tell(story)


def test_a_disk_of_every_size() -> None:
    """Too small a disk refuses, says so ahead, keeps what was acknowledged, and goes on once there is room."""
    refused = 0
    for capacity_bytes in range(1536, 16_000, 256):
        story = Story(FakeDisk(capacity_bytes=capacity_bytes))
        index = 0
        while index < 60:
            index += 1
            story.save([entry(index, size_bytes=120)])
            try:
                story.sync()
            except NoSpace:
                refused += 1
                assert not story.wal.has_space
                break
        story.disk.crash(Random(capacity_bytes))
        story.come_back()
        story.disk.capacity_bytes *= 10
        last_index = story.written.last_index
        story.save(entries(last_index + 1, last_index + 30, size_bytes=120))
        story.sync()
        story.come_back()
        assert story.written.last_index == last_index + 30
    assert refused > 10


# Random stories.

STEPS = st.one_of(
    st.tuples(st.just("append"), st.integers(1, 6), st.integers(0, 400)),
    st.tuples(st.just("append"), st.just(1), st.integers(0, 3000)),
    st.tuples(st.just("replace"), st.integers(1, 20), st.integers(0, 200)),
    st.tuples(st.just("vote"), st.integers(0, 1), st.integers(1, 3)),
    st.tuples(st.just("sync"), st.just(0), st.just(0)),
    st.tuples(st.just("sync"), st.just(0), st.just(0)),
    st.tuples(st.just("compact"), st.integers(1, 30), st.just(0)),
    st.tuples(st.just("restore"), st.integers(1, 50), st.just(0)),
    st.tuples(st.just("crash"), st.integers(0, 2**32), st.integers(0, 12)),
    st.tuples(st.just("kill"), st.just(0), st.just(0)),
    st.tuples(st.just("close"), st.just(0), st.just(0)),
    st.tuples(st.just("room"), st.integers(0, 6), st.just(0)),
)


def take_step(story: Story, kind: str, first: int, second: int) -> None:
    written, disk = story.written, story.disk
    term, _, commit = written.hard_state
    if kind == "append":
        begin = written.last_index + 1
        story.save(entries(begin, begin + first - 1, term=term, size_bytes=second))
    elif kind == "replace" and written.entries:
        begin = max(written.start[0] + 1, written.last_index - first)
        story.save(entries(begin, begin + 2, term=term + 1, size_bytes=second), HardState(term + 1, 0, commit))
    elif kind == "vote":
        story.save([], HardState(term + 1, second, commit + first))
    elif kind == "sync":
        story.sync()
    elif kind == "compact":
        story.compact(written.start[0] + first)
    elif kind == "restore":
        story.restore(written.start[0] + first, term)
    elif kind == "close":
        story.wal.close()
        story.come_back()
    elif kind == "room":
        used = disk.capacity_bytes - disk.free_bytes(DIRECTORY)
        disk.capacity_bytes = used + first * 700 if first < 6 else 2**40


@settings(max_examples=300)
@given(steps=st.lists(STEPS, max_size=40))
def test_random_stories_with_crashes(steps: list[tuple[str, int, int]]) -> None:
    story = Story()
    for position, (kind, first, second) in enumerate(steps):
        try:
            if kind == "kill":
                story.come_back()
            elif kind == "crash":
                # In the middle of what comes next, unless that has fewer operations.
                story.disk.fault = at_operation(second, PowerLoss)
                story.save([entry(story.written.last_index + 1, term=story.written.hard_state[0])])
                story.sync()
                story.compact(story.written.last_index - 1)
                raise PowerLoss
            else:
                take_step(story, kind, first, second)
        except NoSpace:
            assert not story.wal.has_space
            story.disk.fault = None
        except PowerLoss:
            story.disk.fault = None
            story.disk.crash(Random(first + position))
            story.come_back()
    story.disk.capacity_bytes = 2**40
    story.sync()
    story.come_back()

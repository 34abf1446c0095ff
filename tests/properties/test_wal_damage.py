"""The log with damage at every byte: a valid prefix or a loud refusal, never a wrong record.

What was acknowledged is only ever missing where a torn tail, which nobody was told about, would look the same: in the very
last frame.
"""

from typing import Callable

import pytest

from raftkv.errors import Corruption
from raftkv.raft.messages import HardState
from raftkv.wal import frame
from raftkv.wal.fakedisk import FakeDisk
from tests.properties.wal_stories import SMALL, Model, Story, model_of, tell, told
from tests.unit.wal.logs import DIRECTORY, entries, entry, reopen, segment_paths


def frames_of(data: bytes) -> list[int]:
    offsets = [0]
    while (found := frame.decode(memoryview(data), offsets[-1])) is not None:
        offsets.append(found.end)
    return offsets


def opened(disk: FakeDisk) -> Model | None:
    """What the log holds, or None when it is refused."""
    try:
        _, found = reopen(disk, SMALL)
    except Corruption:
        return None
    return model_of(found)


def copy_of(story: Story) -> Callable[[], FakeDisk]:
    """Makes fresh copies of the story's files: opening repairs, so each damage wants its own."""
    contents = {path: story.disk.contents(path) for path in segment_paths(story.disk)}

    def make() -> FakeDisk:
        disk = FakeDisk()
        for path, data in contents.items():
            file = disk.open(path, create=True)
            file.pwritev((data,), 0)
            file.fdatasync()
        disk.sync_directory(DIRECTORY)
        return disk

    return make


def model_before_last_sync() -> Model:
    story = Story()
    models: list[Model] = []
    sync = story.sync

    def keep_and_sync() -> None:
        sync()
        models.append(story.possible[0])

    story.sync = keep_and_sync  # type: ignore[method-assign]
    tell(story)
    return models[-2].compacted(105, 4)


def test_every_byte_with_a_flipped_bit() -> None:
    story = told()
    whole, without_last = story.possible[0], model_before_last_sync()
    make = copy_of(story)
    paths = segment_paths(story.disk)
    assert len(paths) >= 2
    outcomes = set()
    for path in paths:
        data = story.disk.contents(path)
        ends = frames_of(data)
        for position in range(len(data)):
            disk = make()
            disk.flip_bit(path, position * 8 + position % 8)
            model = opened(disk)
            if path != paths[-1] or position < ends[-2]:
                assert model is None, f"{path} byte {position}: acknowledged, so it must be loud"
            elif position < ends[-1]:
                assert model == without_last, f"{path} byte {position}: not to be told from a torn tail"
            else:
                assert model == whole, f"{path} byte {position}: nothing was there"
            outcomes.add(model)
    assert outcomes == {None, whole, without_last}


def test_every_bit_of_an_old_segment_and_of_the_last() -> None:
    """Lengths, kinds, checksums and contents, of first frames with their marks and of those behind them."""
    story = told()
    without_last = model_before_last_sync()
    make = copy_of(story)
    paths = segment_paths(story.disk)
    for path in (paths[0], paths[-1]):
        ends = frames_of(story.disk.contents(path))
        assert len(ends) >= 3
        for bit in range(ends[-1] * 8):
            disk = make()
            disk.flip_bit(path, bit)
            is_last_frame = path == paths[-1] and bit >= ends[-2] * 8
            assert opened(disk) == (without_last if is_last_frame else None), f"{path} bit {bit}"


@pytest.mark.parametrize("value", [0x00, 0xFF, 0x80, 0x01])
def test_every_byte_of_the_last_segment_overwritten(value: int) -> None:
    story = told()
    whole, without_last = story.possible[0], model_before_last_sync()
    make = copy_of(story)
    path = segment_paths(story.disk)[-1]
    data = story.disk.contents(path)
    ends = frames_of(data)
    for position in range(len(data)):
        disk = make()
        disk.damage(path, position, bytes([value]))
        if data[position] == value or position >= ends[-1]:
            assert opened(disk) == whole, f"byte {position}"
        else:
            assert opened(disk) == (None if position < ends[-2] else without_last), f"byte {position}"


def test_a_frame_of_another_segment_or_place_is_refused() -> None:
    """Checksums are chained: a sector that was written to the wrong place is whole, and still not believed."""
    story = told()
    make = copy_of(story)
    paths = segment_paths(story.disk)[1:-1]
    frames = {path: story.disk.contents(path)[slice(*frames_of(story.disk.contents(path))[1:3])] for path in paths}
    assert len({len(frame) for frame in frames.values()}) == 1, "they would fit into each other's places"
    for path in paths:
        begin = frames_of(story.disk.contents(path))[1]
        for other in paths:
            disk = make()
            disk.damage(path, begin, frames[other])
            assert (opened(disk) is None) is (other != path), f"{other} in {path}"
        disk = make()
        disk.damage(path, 0, story.disk.contents(path)[begin:])
        assert opened(disk) is None, "the second frame in the place of the first"


def test_every_file_cut_at_every_byte_is_refused() -> None:
    story = told()
    make = copy_of(story)
    for path in segment_paths(story.disk):
        for size_bytes in range(len(story.disk.contents(path))):
            disk = make()
            disk.truncate(path, size_bytes)
            assert opened(disk) is None, f"{path} cut to {size_bytes} bytes: it was longer, and that was durable"


def test_the_last_segment_zeroed_from_every_byte_on_is_a_prefix() -> None:
    """As if nothing behind had ever been written. Frames that are gone without a trace are not to be told from none."""
    story = Story()
    models = [Model()]
    for index in range(1, 5):
        story.save([entry(index, term=index, size_bytes=10)], HardState(index, 7, 0))
        story.sync()
        models.append(story.possible[0])
    make = copy_of(story)
    (path,) = segment_paths(story.disk)
    data = story.disk.contents(path)
    ends = frames_of(data)
    for position in range(ends[1], ends[-1]):
        disk = make()
        disk.damage(path, position, bytes(len(data) - position))
        whole_frames = sum(end <= position or not any(data[position:end]) for end in ends[2:])
        assert opened(disk) == models[whole_frames], f"byte {position}"


@pytest.mark.parametrize("hole_bytes", [8, 64, 512])
def test_a_hole_of_zeros_anywhere_loses_nothing_silently(hole_bytes: int) -> None:
    story = told()
    whole, without_last = story.possible[0], model_before_last_sync()
    make = copy_of(story)
    paths = segment_paths(story.disk)
    for path in paths:
        data = story.disk.contents(path)
        ends = frames_of(data)
        for position in range(0, len(data) - hole_bytes + 1, 8):
            disk = make()
            disk.damage(path, position, bytes(hole_bytes))
            if not any(data[position : position + hole_bytes]):
                assert opened(disk) == whole
            elif path == paths[-1] and position >= ends[-2]:
                assert opened(disk) == without_last
            elif path == paths[-1] and position + hole_bytes > ends[-2] and position >= ends[1]:
                # A hole over the start of the last frame is what an unfinished sync may leave too.
                assert opened(disk) in (None, *prefixes_of(whole))
            else:
                assert opened(disk) is None, f"{path} byte {position}"


def prefixes_of(whole: Model) -> list[Model]:
    hard_states = {(4, 7, 101), (4, 7, 119)}
    starts = {(100, 4), (105, 4)}
    found = []
    for start in starts:
        base = [item for item in whole_log() if item[0] > start[0]]
        for length in range(len(base) + 1):
            found += [Model(hard_state, start, tuple(base[:length])) for hard_state in hard_states]
    assert whole in found
    return found


def whole_log() -> list[tuple[int, int, bytes]]:
    long = [entry(index, term=4, size_bytes=150) for index in range(111, 120)]
    every = entries(101, 110, term=4) + long + entries(120, 121, term=4)
    return [(item.index, item.term, item.data) for item in every]


@pytest.mark.parametrize("size_bytes", [10, 60, 140])
def test_an_unfinished_sync_torn_in_every_combination_of_sectors(size_bytes: int) -> None:
    story = Story()
    story.save(entries(1, 3), HardState(1, 7, 0))
    story.sync()
    acknowledged = story.possible[0]
    (path,) = segment_paths(story.disk)
    begin = frames_of(story.disk.contents(path))[-1]
    make = copy_of(story)
    story.save([entry(4, size_bytes=size_bytes)], HardState(2, 3, 1))
    story.sync()
    data = story.disk.contents(path)
    sector_bytes = 24
    sectors = range(begin, frames_of(data)[-1], sector_bytes)
    assert 3 <= len(sectors) <= 10
    for chosen in range(2 ** len(sectors)):
        disk = make()
        for number, start in enumerate(sectors):
            if chosen >> number & 1:
                disk.damage(path, start, data[start : start + sector_bytes])
        model = opened(disk)
        lost = [data[start : start + sector_bytes] for number, start in enumerate(sectors) if not chosen >> number & 1]
        assert model == (acknowledged if any(map(any, lost)) else story.possible[0]), f"sectors {chosen:b}"

"""Frames: what is written is read, every damaged bit is noticed, and later frames are found behind damage."""

import pytest

from raftkv.wal import frame


def frames(*bodies: bytes, batch: int = 1, seed: int = 0) -> bytes:
    data = b""
    for number, body in enumerate(bodies):
        header, padded_body, seed = frame.encode([body], batch=batch + number, offset=len(data), seed=seed)
        data += header + padded_body
    return data


@pytest.mark.parametrize("size", range(1, 20))
def test_a_frame_is_read_back_with_its_padding(size: int) -> None:
    body = bytes(range(1, size + 1))
    data = frames(body)
    found = frame.decode(memoryview(data), 0)
    assert found is not None
    assert bytes(found.body) == body.ljust(-(-size // 8) * 8, b"\0")
    assert (found.batch, found.seed, found.end) == (1, 0, len(data))
    assert len(data) == frame.padded(size)
    assert len(data) % frame.ALIGNMENT == 0


def test_records_are_joined() -> None:
    header, body, _ = frame.encode([b"one", b"two"], batch=1, offset=0, seed=0)
    assert (len(header), body) == (frame.HEADER_BYTES, b"onetwo\0\0")


def test_frames_are_chained() -> None:
    data = frames(b"one", b"two")
    first = frame.decode(memoryview(data), 0)
    assert first is not None
    second = frame.decode(memoryview(data), first.end)
    assert second is not None
    assert second.seed == first.checksum
    assert second.batch == first.batch + 1


def test_every_flipped_bit_is_noticed() -> None:
    data = frames(b"some bytes of a record")
    for bit in range(len(data) * 8):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        assert frame.decode(memoryview(damaged), 0) is None, f"bit {bit}"


def test_every_cut_is_noticed() -> None:
    data = frames(b"some bytes of a record")
    for size in range(len(data)):
        assert frame.decode(memoryview(data)[:size], 0) is None
        assert frame.decode(memoryview(data[:size].ljust(len(data), b"\0")), 0) is None or not any(data[size:])


def test_a_frame_is_good_only_in_its_place() -> None:
    data = frames(b"one")
    assert frame.decode(memoryview(bytes(8) + data), 8) is None


def test_zeros_are_no_frame() -> None:
    assert frame.decode(memoryview(bytes(1000)), 0) is None


def test_a_later_frame_is_found_behind_damage_of_any_length() -> None:
    bodies = [b"x" * 40] * 4
    data = frames(*bodies)
    size = len(data) // 4
    for damaged_bytes in range(1, size + 1):
        damaged = data[:size] + bytes(damaged_bytes) + data[size + damaged_bytes :]
        assert frame.find_later(damaged, size + 8, batch_min=3) == 2 * size


def test_a_later_frame_that_is_bad_itself_is_evidence_too() -> None:
    data = bytearray(frames(b"a" * 40, b"b" * 40))
    data[-1] ^= 1
    data[:8] = bytes(8)
    assert frame.find_later(bytes(data), 8, batch_min=2) == len(data) // 2


def test_an_earlier_frame_or_one_from_elsewhere_is_no_evidence() -> None:
    stored_by_a_client = frames(b"one", b"two")
    data = bytes(64) + stored_by_a_client
    assert frame.find_later(data, 0, batch_min=1) is None, "it says another place"
    assert frame.find_later(stored_by_a_client, 0, batch_min=3) is None, "it says an earlier batch"
    assert frame.find_later(bytes(100) + frame.MAGIC, 0, batch_min=1) is None, "too short for a frame"


@pytest.mark.parametrize("size", [0, 1, 100, 65535, 65536, 65537, 200_000])
def test_used_until_finds_the_last_byte(size: int) -> None:
    for position in {0, size // 2, size - 1} & set(range(size)):
        data = bytearray(size)
        data[position] = 1
        assert frame.used_until(bytes(data), 0) == position + 1
        assert frame.used_until(bytes(data), size) == size
    assert frame.used_until(bytes(size), 0) == 0


def test_an_empty_or_misplaced_frame_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="has a body"):
        frame.encode([], batch=1, offset=0, seed=0)
    with pytest.raises(AssertionError, match="aligned"):
        frame.encode([b"x"], batch=1, offset=4, seed=0)

"""Records: each kind is read back as it was written, and what this version does not know is refused."""

import pytest

from raftkv.raft.messages import Entry, HardState
from raftkv.wal import record
from raftkv.wal.record import Identity, LogStart, LogState, Record, SegmentHeader, SnapshotMark

HEADER = SegmentHeader(Identity("klüster", 2**63 - 1, "n1", 2**62), 9, 64 << 20, LogState(5, 2, 90, 80, 4, 100))


def decoded(*pieces: bytes) -> list[Record]:
    return list(record.decode_records(memoryview(b"".join(pieces))))


def test_each_kind_is_read_back() -> None:
    entries = [Entry(5, 2, 0, b""), Entry(6, 2, 1, b"data" * 100), Entry(7, 3, 2, b"\0\0")]
    pieces = [
        record.encode_segment(HEADER),
        record.encode_hard_state(5, 3, 99),
        *record.encode_entries(entries),
        *record.encode_entries([Entry(8, 3, 1, b"one")]),
        record.encode_log_start(LogStart(6, 2)),
        record.encode_snapshot(SnapshotMark(70, 3)),
    ]
    assert decoded(*pieces) == [
        HEADER,
        HardState(5, 3, 99),
        entries,
        [Entry(8, 3, 1, b"one")],
        LogStart(6, 2),
        SnapshotMark(70, 3),
    ]


def test_padding_ends_a_frame() -> None:
    assert decoded(record.encode_hard_state(1, 2, 3), bytes(7)) == [HardState(1, 2, 3)]
    assert decoded(bytes(8)) == []
    with pytest.raises(ValueError, match="padding is not zero"):
        decoded(bytes(7), b"\1")


def test_one_entry_has_the_same_bytes_as_the_general_form() -> None:
    one = b"".join(record.encode_entries([Entry(8, 3, 1, b"one")]))
    two = b"".join(record.encode_entries([Entry(8, 3, 1, b"one"), Entry(9, 3, 1, b"")]))
    assert len(two) - len(one) == 13, "an entry costs 13 bytes in the table"
    assert one[0] == two[0] == record.ENTRIES


def test_the_mark_has_the_size_that_the_reserve_counts_with() -> None:
    assert len(record.encode_log_start(LogStart(1, 1))) == record.MARK_BYTES


@pytest.mark.parametrize("kind", [6, 7, 128, 255])
def test_an_unknown_kind_is_refused(kind: int) -> None:
    with pytest.raises(ValueError, match=f"kind {kind} is not known"):
        decoded(bytes([kind]) + bytes(50))


def test_an_unknown_format_version_is_refused() -> None:
    encoded = bytearray(record.encode_segment(HEADER))
    encoded[1] = record.FORMAT_VERSION + 1
    with pytest.raises(ValueError, match="format version 2, this raftkv knows 1"):
        decoded(bytes(encoded))


@pytest.mark.parametrize(
    "encoded",
    [
        record.encode_segment(HEADER),
        record.encode_hard_state(1, 2, 3),
        b"".join(record.encode_entries([Entry(1, 1, 1, b"abc"), Entry(2, 1, 1, b"def")])),
        b"".join(record.encode_entries([Entry(1, 1, 1, b"abc")])),
        record.encode_log_start(LogStart(1, 1)),
    ],
)
def test_a_record_that_ends_early_is_refused(encoded: bytes) -> None:
    for size in range(1, len(encoded)):
        with pytest.raises(ValueError, match=r"ends early|longer than its frame"):
            decoded(encoded[:size])


def test_entries_with_a_gap_are_a_bug() -> None:
    with pytest.raises(AssertionError, match="entry 7 where 6 was due"):
        record.encode_entries([Entry(5, 1, 1, b""), Entry(7, 1, 1, b"")])


def test_a_state_can_be_copied() -> None:
    copy = HEADER.state.copy()
    assert copy == HEADER.state
    copy.term += 1
    assert copy != HEADER.state

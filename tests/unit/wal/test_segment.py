"""Names of segments, and the one message about damage."""

import pytest

from raftkv.wal.segment import corruption, parse_name, segment_name


def test_names_are_read_back_and_sort_by_sequence() -> None:
    names = [segment_name(sequence, 1000 - sequence) for sequence in (1, 9, 10, 15, 16, 255, 256)]
    assert names == sorted(names)
    assert [parse_name(name) for name in names] == [(s, 1000 - s) for s in (1, 9, 10, 15, 16, 255, 256)]


@pytest.mark.parametrize(
    "name", ["", "next.tmp", "1-1.wal", segment_name(1, 1) + "~", "lost+found", segment_name(1, 1).upper()]
)
def test_other_files_are_no_segments(name: str) -> None:
    assert parse_name(name) is None


def test_damage_is_one_line_with_file_offset_and_advice() -> None:
    error = corruption("/data/wal/x.wal", 4096, "a bad frame")
    assert "/data/wal/x.wal is damaged at byte 4096 (a bad frame)" in error.message
    assert "remove this member from the cluster, delete its data directory, and add it anew" in error.message
    assert "\n" not in error.message
    assert error.details["file"] == "/data/wal/x.wal"
    assert error.details["offset"] == 4096
    assert error.details["advice"] in error.message

"""A segment: one preallocated file of frames, and what its name says.

The name carries the sequence number, which goes up by one, so that a missing file is noticed, and the index of the first
entry that it may hold, for whoever looks at the directory. A segment gets its name only once its first frame is durable:
a crash before that leaves a file called NEXT_NAME, which nobody was told about and which is thrown away. Therefore the first
frame of a named segment is never torn, and a bad one is corruption.

The first frame repeats identity, hard state and log start, so that older segments can go; then it holds the batch that no
longer fitted into the segment before, with the checksum chain carried on.
"""

import re
from dataclasses import dataclass
from typing import Final

from raftkv.errors import Corruption
from raftkv.units import Index
from raftkv.wal.frame import padded
from raftkv.wal.record import MARK_BYTES

NEXT_NAME: Final = "next.tmp"

# The end of every segment is kept for log start marks: with the disk full, compaction must still be able to say what may go.
RESERVE_BYTES: Final = 16 * padded(MARK_BYTES)

ADVICE: Final = (
    "do not edit or remove it by hand: remove this member from the cluster, delete its data directory, and add it anew"
)

_NAME = re.compile(r"([0-9a-f]{16})-([0-9a-f]{16})\.wal")


@dataclass(slots=True)
class Segment:
    """A named segment. `last_index`: the last of its entries that a replay still needs; replaced ones do not count."""

    name: str
    sequence: int
    size_bytes: int
    last_index: Index


def segment_name(sequence: int, first_index: Index) -> str:
    assert 0 < sequence < 2**64, "segments count from 1"
    return f"{sequence:016x}-{first_index:016x}.wal"


def parse_name(name: str) -> tuple[int, Index] | None:
    """Sequence and first index, or None for a file that is no segment."""
    match = _NAME.fullmatch(name)
    return (int(match[1], 16), int(match[2], 16)) if match else None


def corruption(path: str, offset: int, what: str) -> Corruption:
    """The one message about damage: which file, where, and what to do."""
    return Corruption(
        f"the log file {path} is damaged at byte {offset} ({what}); {ADVICE}",
        details={"file": path, "offset": offset, "advice": ADVICE},
    )


__all__ = ["ADVICE", "NEXT_NAME", "RESERVE_BYTES", "Segment", "corruption", "parse_name", "segment_name"]

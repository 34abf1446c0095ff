"""The data of the main job: every source file of the running Python's standard library, as keys and values.

A file larger than a part is split, so that a key never meets the value limit; the parts of a file sort behind each other.
"""

import sysconfig
from hashlib import sha256
from pathlib import Path
from typing import Iterator, NamedTuple

PREFIX = "stdlib/"
PART_BYTES = 256 * 1024
FOREIGN = frozenset({"site-packages", "dist-packages", "__pycache__"})


class Part(NamedTuple):
    """One key of the data set."""

    key: bytes
    value: bytes

    @property
    def digest(self) -> bytes:
        return sha256(self.value).digest()


def source_files(root: Path) -> list[Path]:
    """The source files below `root`, sorted, without what was installed there."""
    return sorted(path for path in root.rglob("*.py") if FOREIGN.isdisjoint(path.relative_to(root).parts))


def load_parts() -> tuple[list[Part], int]:
    """All parts, and the number of files they come from."""
    root = Path(sysconfig.get_path("stdlib"))
    parts: list[Part] = []
    file_count = 0
    for path in source_files(root):
        data = path.read_bytes()
        file_count += 1
        parts.extend(split(f"{PREFIX}{path.relative_to(root)}", data))
    assert len({part.key for part in parts}) == len(parts), "keys are unique"
    return parts, file_count


def split(name: str, data: bytes) -> Iterator[Part]:
    """A small file under its name; a large one under name#000, name#001, ..."""
    if len(data) <= PART_BYTES:
        yield Part(name.encode("utf-8", "surrogateescape"), data)
        return
    for number, start in enumerate(range(0, len(data), PART_BYTES)):
        yield Part(f"{name}#{number:03d}".encode("utf-8", "surrogateescape"), data[start : start + PART_BYTES])

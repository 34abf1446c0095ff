"""The next segment's file, made ahead: so that changing over does not wait, and a full disk shows before it hurts.

Its blocks are reserved and read as zeros. It has a name of no meaning until its first frame is durable, see segment.py; what
a crash leaves of it is thrown away.
"""

import errno
from os.path import join
from typing import Final

from raftkv.wal.disk import Disk, File
from raftkv.wal.segment import NEXT_NAME

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def is_full(error: OSError) -> bool:
    """Whether the disk is full for now. Everything else means that it is broken."""
    return error.errno in _FULL


class NextSegment:
    """At most one file. `file` is None while the disk had no room for it."""

    __slots__ = ("_directory", "_disk", "_free_bytes_refused", "file", "path", "size_bytes")

    def __init__(self, disk: Disk, directory: str) -> None:
        self._disk = disk
        self._directory = directory
        self._free_bytes_refused = -1
        self.path = join(directory, NEXT_NAME)
        self.file: File | None = None
        self.size_bytes = 0

    def prepare(self, size_bytes: int) -> None:
        """Have a file of at least `size_bytes`, if the disk has room for it. Raises OSError when the disk is broken."""
        assert size_bytes > 0, "a segment holds something"
        if self.size_bytes >= size_bytes:
            return
        self.close()
        free_bytes = self._free_bytes()
        if free_bytes < size_bytes:
            self._free_bytes_refused = free_bytes
            return
        try:
            file = self._disk.open(self.path, create=True)
            try:
                file.preallocate(size_bytes)
            except OSError:
                file.close()
                self._disk.unlink(self.path)
                raise
        except OSError as error:
            if not is_full(error):
                raise
            self._free_bytes_refused = free_bytes
        else:
            self.file, self.size_bytes = file, size_bytes
            self._free_bytes_refused = -1

    def could_prepare(self, size_bytes: int) -> bool:
        """Whether there is a file, or it looks as if one could now be made. Any thread may ask."""
        if self.file is not None:
            return True
        # A quota refuses although the file system has room: then only more room than at the refusal counts.
        free_bytes = self._free_bytes()
        return free_bytes >= size_bytes and free_bytes > self._free_bytes_refused

    def give_up(self) -> None:
        """The file became a segment: it is somebody else's now."""
        assert self.file is not None, "there is a file to give up"
        self.file, self.size_bytes = None, 0

    def close(self) -> None:
        if self.file is not None:
            self.file.close()
            self.file, self.size_bytes = None, 0

    def _free_bytes(self) -> int:
        try:
            return self._disk.free_bytes(self._directory)
        except OSError:
            return 0


__all__ = ["NextSegment", "is_full"]

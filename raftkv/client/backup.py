"""Fetching a member's backup: which piece to ask for next, and whether what came is what was announced. Sans-IO, for both clients."""

import zlib
from typing import Any, Final, Mapping

from raftkv.errors import Corruption
from raftkv.wire.commands import Answer, Command
from raftkv.wire.protocol import BACKUP_CLOSE, BACKUP_OPEN, BACKUP_READ

PIECE_BYTES: Final = 1 << 20


class Fetch:
    """Send `command` to one and the same member and give the answer to `feed`, until it is None; then `made` says what it was."""

    __slots__ = ("_checksum", "_offset", "command", "made")

    def __init__(self) -> None:
        self.command: Command | None = [BACKUP_OPEN]
        self.made: Mapping[str, Any] = {}
        self._offset = 0
        self._checksum = 0

    def feed(self, answer: Answer) -> bytes:
        """The data of the answer, in order. Raises Corruption when the end has come and something is wrong."""
        assert self.command is not None, "there was a question"
        operation, data = self.command[0], b""
        if operation == BACKUP_OPEN:
            self.made = answer[1]
        elif operation == BACKUP_READ:
            data = answer[1]
            self._offset += len(data)
            self._checksum = zlib.crc32(data, self._checksum)
        size_bytes = self.made["size_bytes"]
        if operation == BACKUP_CLOSE:
            self.command = None
            if (self._offset, self._checksum) != (size_bytes, self.made["checksum"]):
                raise Corruption(
                    f"{self._offset} bytes came, {size_bytes} were announced, or they changed on the way: fetch it again"
                )
        elif self._offset < size_bytes and (data or operation == BACKUP_OPEN):
            self.command = [BACKUP_READ, self.made["id"], self._offset, PIECE_BYTES]
        else:
            self.command = [BACKUP_CLOSE, self.made["id"]]
        return data


__all__ = ["Fetch"]

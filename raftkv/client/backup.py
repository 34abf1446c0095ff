"""Fetching a member's backup: which pieces to ask for, and whether what came is what was announced. Sans-IO: `ask` sends."""

import zlib
from typing import Any, Callable, Final, Mapping

from raftkv.errors import Corruption
from raftkv.wire.commands import Answer, Command
from raftkv.wire.protocol import BACKUP_CLOSE, BACKUP_OPEN, BACKUP_READ

PIECE_BYTES: Final = 1 << 20


def fetch(ask: Callable[[Command], Answer], write: Callable[[bytes], object]) -> Mapping[str, Any]:
    """Everything into `write`, in order. Raises what `ask` raises, and Corruption."""
    made: Mapping[str, Any] = ask([BACKUP_OPEN])[1]
    offset = checksum = 0
    while offset < made["size_bytes"]:
        data: bytes = ask([BACKUP_READ, made["id"], offset, PIECE_BYTES])[1]
        if not data:
            break
        write(data)
        checksum = zlib.crc32(data, checksum)
        offset += len(data)
    ask([BACKUP_CLOSE, made["id"]])
    if (offset, checksum) != (made["size_bytes"], made["checksum"]):
        raise Corruption(
            f"{offset} bytes came, {made['size_bytes']} were announced, or they changed on the way: fetch it again"
        )
    return made


__all__ = ["fetch"]

"""A backup file: the copy of a store, and behind it what it takes to trust it.

    the store's file, of whole pages | magic (8 bytes) | size of the store's file (8) | SHA-256 of the store's file (32)

The trailer is last, so that a file that was cut short has none. LMDB does not look behind its last page, so the file can be read as
it is. What a client of etcd saves (raftkv/etcd/snapshots.py) has zeros in front of the trailer, so that they end at a multiple of 512
bytes, and behind it the SHA-256 of everything.
"""

import hashlib
import os
import shutil
import struct
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

from raftkv.errors import ConfigError, Corruption
from raftkv.store.keyspace import HEAD
from raftkv.store.lmdb_keyspace import LmdbKeyspace, sync_directory
from raftkv.store.meta import load_cluster, load_state
from raftkv.units import Index, Revision
from raftkv.wire.settings import Settings

MAGIC: Final = b"RKVBAK01"
_TRAILER: Final = struct.Struct(">8sQ32s")
TRAILER_BYTES: Final = _TRAILER.size
_SHA256_BYTES: Final = 32
_ALIGNMENT: Final = 512  # of what a client of etcd saves, its hash not counted
_PIECE_BYTES: Final = 1 << 20
_MAP_BYTES: Final = 16 * 1024 * 1024  # LMDB raises it to the size of the file


@dataclass(frozen=True, slots=True)
class BackupInfo:
    """What is in a backup. `records` counts records of keys (very long keys share one), `size_bytes` is that of the store's file."""

    cluster_id: int
    cluster_name: str
    index: Index
    revision: Revision
    compact_revision: Revision
    records: int
    members: list[str]
    size_bytes: int
    sha256: str


def trailer(size_bytes: int, sha256: bytes) -> bytes:
    """What stands behind a store's file of this size and hash."""
    return _TRAILER.pack(MAGIC, size_bytes, sha256)


class BackupWriter:
    """Writes a backup next to where it will be, and gives it its name when it is whole and durable."""

    def __init__(self, path: str) -> None:
        """Raises OSError, ConfigError for a path that exists."""
        if os.path.exists(path):
            raise ConfigError(f"{path} exists already: choose another name")
        self._path = path
        self._partial = f"{path}.part"
        self._file: Any = open(self._partial, "wb")  # noqa: SIM115 - closed by finish or abandon
        self._hash = hashlib.sha256()
        self._size_bytes = 0

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._hash.update(data)
        self._size_bytes += len(data)

    def finish(self) -> None:
        """Raises OSError."""
        self._file.write(trailer(self._size_bytes, self._hash.digest()))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        os.rename(self._partial, self._path)
        sync_directory(os.path.dirname(os.path.abspath(self._path)))

    def abandon(self) -> None:
        self._file.close()
        os.unlink(self._partial)


def verify(path: str) -> tuple[int, str]:
    """Size and SHA-256 of the store's file in a backup. Raises Corruption, OSError."""
    with open(path, "rb") as file:
        total_bytes = os.fstat(file.fileno()).st_size
        end = _end_of(file, total_bytes)
        magic, size_bytes, stated = _TRAILER.unpack(end[:TRAILER_BYTES].rjust(TRAILER_BYTES, b"\0"))
        if magic != MAGIC:
            raise Corruption(f"{path} is no backup of raftkv, or was cut short")
        padding_bytes = total_bytes - len(end) - size_bytes
        file.seek(0)
        digest = hashlib.sha256()
        is_whole = 0 <= padding_bytes < _ALIGNMENT and _feed(digest, file, size_bytes) and stated == digest.digest()
        if is_whole and len(end) > TRAILER_BYTES:
            whole = digest.copy()
            padding = file.read(padding_bytes)
            whole.update(padding + end[:TRAILER_BYTES])
            is_whole = not padding.strip(b"\0") and whole.digest() == end[TRAILER_BYTES:]
        elif padding_bytes:
            is_whole = False
    if not is_whole:
        raise Corruption(f"{path} is damaged: its checksum does not match")
    return size_bytes, digest.hexdigest()


def _end_of(file: BinaryIO, total_bytes: int) -> bytes:
    """The trailer, and the hash behind it if a client of etcd has saved the file."""
    for end_bytes, fits in (
        (TRAILER_BYTES + _SHA256_BYTES, total_bytes % _ALIGNMENT == _SHA256_BYTES),
        (TRAILER_BYTES, True),
    ):
        if fits and total_bytes >= end_bytes:
            file.seek(total_bytes - end_bytes)
            end = file.read(end_bytes)
            if end.startswith(MAGIC):
                return end
    return b""


def _feed(digest: Any, file: BinaryIO, size_bytes: int) -> bool:
    """Hash so much of the file; False when there is not so much."""
    while size_bytes > 0:
        piece = file.read(min(_PIECE_BYTES, size_bytes))
        if not piece:
            return False
        digest.update(piece)
        size_bytes -= len(piece)
    return True


def inspect(path: str) -> BackupInfo:
    """Verify a backup and look into it. Raises Corruption, OSError."""
    size_bytes, sha256 = verify(path)
    keyspace = LmdbKeyspace(path, _MAP_BYTES, read_only=True)
    try:
        state, cluster = load_state(keyspace), load_cluster(keyspace, Settings())
        return BackupInfo(
            cluster.cluster_id,
            cluster.cluster_name,
            state.applied_index,
            state.revision,
            state.compact_revision,
            keyspace.records(HEAD),
            sorted(member["name"] for member in cluster.members.values()),
            size_bytes,
            sha256,
        )
    finally:
        keyspace.close()


def extract(path: str, target: str) -> None:
    """Verify a backup and write the store's file, durably. Raises Corruption, OSError."""
    size_bytes, _ = verify(path)
    with open(path, "rb") as source, open(target, "xb") as file:
        shutil.copyfileobj(source, file, _PIECE_BYTES)
        file.truncate(size_bytes)
        file.flush()
        os.fsync(file.fileno())
    sync_directory(os.path.dirname(os.path.abspath(target)))


__all__ = ["BackupInfo", "BackupWriter", "extract", "inspect", "verify"]

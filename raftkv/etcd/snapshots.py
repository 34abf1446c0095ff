"""A backup of raftkv as the snapshot stream of etcd: what stands around the store's file, and how it is cut into messages.

Clients of etcd write down whatever comes and check two things: that the last 32 bytes are the SHA-256 of everything in front of them, and
that the length leaves 32 when divided by 512. store/backup.py knows a file of that form as one of its own.
"""

import hashlib
from typing import Callable, Final, Iterator

from raftkv.etcd.versions import STORAGE_VERSION
from raftkv.etcdpb import rpc_pb2 as rpc

BLOB_BYTES: Final = 32 * 1024
ALIGNMENT: Final = 512


class SnapshotStream:
    """Makes the messages. `trailer`: what stands behind the store's file in a backup, made of its size and its SHA-256."""

    def __init__(self, size_bytes: int, trailer_bytes: int, trailer: Callable[[int, bytes], bytes]) -> None:
        self._size_bytes = size_bytes
        self._trailer = trailer
        self._padding_bytes = -(size_bytes + trailer_bytes) % ALIGNMENT
        self._left_bytes = size_bytes + self._padding_bytes + trailer_bytes
        self._hash = hashlib.sha256()

    def feed(self, data: bytes) -> Iterator[rpc.SnapshotResponse]:
        """The next piece of the store's file."""
        self._hash.update(data)
        return self._cut(data)

    def finish(self) -> Iterator[rpc.SnapshotResponse]:
        """All of the file was fed: what comes behind it, the hash of everything last."""
        end = bytes(self._padding_bytes) + self._trailer(self._size_bytes, self._hash.digest())
        self._hash.update(end)
        yield from self._cut(end)
        assert not self._left_bytes, "as long as was announced"
        yield rpc.SnapshotResponse(blob=self._hash.digest(), version=STORAGE_VERSION)

    def _cut(self, data: bytes) -> Iterator[rpc.SnapshotResponse]:
        for start in range(0, len(data), BLOB_BYTES):
            blob = data[start : start + BLOB_BYTES]
            self._left_bytes -= len(blob)
            yield rpc.SnapshotResponse(remaining_bytes=self._left_bytes, blob=blob, version=STORAGE_VERSION)

"""The hash of a member's data, made in slices between everything else, for one who asks after the other."""

import asyncio
from typing import Final

from raftkv.daemon.storage import Storage
from raftkv.store.hashing import ContentHash
from raftkv.units import Revision

PAUSE_SECONDS: Final = 0.002  # between steps of a few milliseconds


class Hashing:
    """Of one member. One owner: the loop."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._turn = asyncio.Lock()  # two at a time would hold the loop twice as long

    async def hash_content(self, revision: Revision) -> ContentHash:
        """The finished hash as of a revision; 0: the current one. Raises Compacted, FutureRevision, Overloaded."""
        async with self._turn:
            storage = self._storage
            while True:
                if storage.refusal is not None:
                    raise storage.refusal.with_traceback(
                        None
                    )  # one object for many: it must not collect where it was raised
                store = storage.store
                hashing = store.content_hash(revision)
                while storage.store is store and storage.refusal is None:
                    if hashing.step():
                        return hashing
                    await asyncio.sleep(PAUSE_SECONDS)
                revision = hashing.revision  # a copy of the store, or a snapshot, has taken its place

"""The table META: where the store is, in the same transaction as the data that got it there.

An applied index that is saved apart from the data lets members diverge after a crash (etcd#13766).
"""

from dataclasses import astuple, dataclass
from typing import Final

import msgpack

from raftkv.errors import Corruption, Unsupported
from raftkv.store.keyspace import META, Keyspace
from raftkv.store.members import Cluster, unpack_cluster
from raftkv.units import Index, Milliseconds, Revision, Term
from raftkv.wire.settings import Settings

FORMAT_VERSION: Final = 1
STATE_KEY: Final = b"state"
CLUSTER_KEY: Final = b"cluster"


@dataclass(slots=True)
class StoredState:
    """The scalars of the state machine. Nothing has ever been compacted: `compact_revision` is -1, as in etcd."""

    applied_index: Index = 0
    applied_term: Term = 0
    revision: Revision = 1
    compact_revision: Revision = -1
    clock_ms: Milliseconds = 0
    digest: int = 0

    def pack(self) -> bytes:
        packed: bytes = msgpack.packb([FORMAT_VERSION, *astuple(self)])
        return packed


def load_state(keyspace: Keyspace) -> StoredState:
    """As last committed; that of an empty store if nothing was. Raises Unsupported for a newer format, Corruption."""
    data = keyspace.get(META, STATE_KEY)
    if data is None:
        return StoredState()
    try:
        version, *items = msgpack.unpackb(data)
    except (ValueError, TypeError) as error:
        raise Corruption(f"the state record of the store is damaged: {error}") from error
    if version != FORMAT_VERSION:
        raise Unsupported(f"the store has format {version}, this member knows {FORMAT_VERSION}: upgrade it")
    return StoredState(*items)


def load_cluster(keyspace: Keyspace, settings: Settings) -> Cluster:
    """As last committed; without identity, and with the given settings, if there is none yet."""
    data = keyspace.get(META, CLUSTER_KEY)
    return Cluster(settings) if data is None else unpack_cluster(data)

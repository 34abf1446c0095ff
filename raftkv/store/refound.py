"""A store becomes the first state of another cluster: for a forced recovery, and for whoever brings back a backup.

The new cluster has another id, so that nobody of the old one is taken for a member of it; one member; and a revision far beyond
any that the old one can have given out, everything before it compacted. So no watch goes on where it must not, and no
fencing token of the old cluster is ever valid again. Sessions end: what they remember may contradict what was lost.
"""

from typing import Final

from raftkv.raft.membership import encode_configuration
from raftkv.raft.messages import Configuration
from raftkv.store.auth import auth_keys
from raftkv.store.keyspace import META, SESSIONS, Keyspace, TableChange
from raftkv.store.meta import CLUSTER_KEY, STATE_KEY, load_cluster, load_state
from raftkv.units import NodeId, Revision
from raftkv.wire.settings import Settings

REVISION_STEP: Final[Revision] = 1_000_000_000
_KEYS_MAX: Final = 1024


def refound(
    keyspace: Keyspace,
    settings: Settings,
    *,
    cluster_id: int,
    cluster_name: str,
    node_id: NodeId,
    name: str,
    address: str,
    keep_users: bool = True,
) -> None:
    """Make the committed state of `keyspace` that of a new cluster with one member, durably. Nobody else may use it.

    `settings` count where the state has none; `address` is the member's peer address. Without `keep_users` there are no users and roles in it,
    and nobody has to log in.
    """
    state = load_state(keyspace)
    cluster = load_cluster(keyspace, settings)
    state.revision += REVISION_STEP
    state.compact_revision = state.revision
    cluster.refound(
        cluster_id, cluster_name, node_id, name, address, encode_configuration(Configuration(frozenset({node_id})))
    )
    sessions: list[bytes] = []
    start: bytes | None = b"\0"
    while start is not None:
        keys, start = keyspace.keys(SESSIONS, start, None, _KEYS_MAX)
        sessions += keys
    keyspace.commit(
        [
            TableChange(
                META,
                [(STATE_KEY, state.pack()), (CLUSTER_KEY, cluster.pack())],
                [] if keep_users else auth_keys(keyspace),
            ),
            TableChange(SESSIONS, [], sessions),
        ]
    )
    keyspace.renew()


__all__ = ["REVISION_STEP", "refound"]

"""What the generators of this room yield: a call of etcd, or a pause. And the paths of etcd's procedures."""

from typing import Any, Final, Generator, NamedTuple, TypeAlias

from raftkv.wire.commands import Answer


class Rpc(NamedTuple):
    """One call; it is answered by the response, or by an error that is thrown in."""

    path: str
    request: Any
    """A message; of a stream (`streams`) the list of all messages that are sent, answered by the list of all that come."""
    safe: bool
    """Doing it twice does no harm, so it is repeated whatever became of it. Otherwise only if it surely was not done."""
    at: str = ""
    """At this address and no other."""
    leaderless: bool = False
    """A member without a leader may answer it."""
    streams: bool = False


class Pause(NamedTuple):
    """Somebody else was faster, several times over: let others pass."""

    seconds: float


Program: TypeAlias = Generator[Rpc | Pause, Any, Answer]
"""One command on its way to its answer."""
Steps: TypeAlias = Generator[Rpc | Pause, Any, Any]
"""A part of a program."""

RANGE: Final = "/etcdserverpb.KV/Range"
PUT: Final = "/etcdserverpb.KV/Put"
DELETE: Final = "/etcdserverpb.KV/DeleteRange"
TXN: Final = "/etcdserverpb.KV/Txn"
COMPACT: Final = "/etcdserverpb.KV/Compact"
LEASE_GRANT: Final = "/etcdserverpb.Lease/LeaseGrant"
LEASE_REVOKE: Final = "/etcdserverpb.Lease/LeaseRevoke"
LEASE_KEEP_ALIVE: Final = "/etcdserverpb.Lease/LeaseKeepAlive"
LEASE_TTL: Final = "/etcdserverpb.Lease/LeaseTimeToLive"
LEASES: Final = "/etcdserverpb.Lease/LeaseLeases"
WATCH: Final = "/etcdserverpb.Watch/Watch"
MEMBER_ADD: Final = "/etcdserverpb.Cluster/MemberAdd"
MEMBER_REMOVE: Final = "/etcdserverpb.Cluster/MemberRemove"
MEMBER_LIST: Final = "/etcdserverpb.Cluster/MemberList"
MEMBER_PROMOTE: Final = "/etcdserverpb.Cluster/MemberPromote"
STATUS: Final = "/etcdserverpb.Maintenance/Status"
DEFRAGMENT: Final = "/etcdserverpb.Maintenance/Defragment"
MOVE_LEADER: Final = "/etcdserverpb.Maintenance/MoveLeader"
AUTHENTICATE: Final = "/etcdserverpb.Auth/Authenticate"
AUTH: Final = "/etcdserverpb.Auth/"

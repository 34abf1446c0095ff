"""etcd's recipes for locks and elections as commands: everybody puts a key of its own under a name, and the oldest one has it.

The key is the name, a slash and the lease in hexadecimal, so that one who asks again finds its place instead of a new one. Whoever is not the
oldest waits for the one in front of it alone. Pure, as all of this room: daemon/etcd/queueing.py does the waiting.
"""

from typing import Any, Final, NamedTuple

from raftkv.etcd.responses import Origin, fill_key_value, header
from raftkv.etcd.statuses import UNKNOWN, Status
from raftkv.etcdpb import election_pb2 as election
from raftkv.etcdpb import lock_pb2 as lock
from raftkv.wire.commands import (
    COMPARE_CREATE,
    DELETE_RANGE,
    EQUAL,
    LEASE_GRANT,
    PUT,
    RANGE,
    SORT_ASCEND,
    SORT_CREATE,
    SORT_DESCEND,
    TXN,
    UNCOUNTED,
    Answer,
    Command,
    KeyValueItems,
    prefix_range_end,
)

OWN_LEASE_TTL_MS: Final = 60_000  # of the lease for one who brings none; nobody keeps it alive

NO_LEADER: Final = Status(UNKNOWN, "election: no leader")
NOT_LEADER: Final = Status(UNKNOWN, "election: not leader")
LEADER_MISSING: Final = Status(UNKNOWN, '"leader" field must be provided')
SESSION_EXPIRED: Final = Status(UNKNOWN, "mutex: session is expired")


def prefix_of(name: bytes) -> bytes:
    """What all keys that belong to a name begin with."""
    return name + b"/"


def key_of(name: bytes, lease: int) -> bytes:
    return prefix_of(name) + b"%x" % lease


def grant_command() -> Command:
    return [LEASE_GRANT, 0, 0, OWN_LEASE_TTL_MS]


class Place(NamedTuple):
    """Where somebody stands: its key, the revision at which that was created, and whether nobody is in front."""

    key: bytes
    revision: int
    value: bytes
    is_first: bool
    store_revision: int  # when this was found out


def enter_command(name: bytes, lease: int, value: bytes) -> Command:
    """Take a place, or find the one that is there already. It may be done twice."""
    key, oldest = key_of(name, lease), oldest_command(name)
    return [TXN, 0, [_created(key, 0)], [[PUT, 0, key, value, lease, 0], oldest], [own_command(key), oldest]]


def entered(name: bytes, lease: int, value: bytes, answer: Answer) -> Place:
    """Where `enter_command` has led to."""
    _, revision, succeeded, (own, oldest) = answer
    first_revision = oldest[2][0][1]
    created = revision
    if not succeeded:
        _, created, _, _, _, value = own[2][0]
    return Place(key_of(name, lease), created, value, first_revision == created, revision)


def leave_command(key: bytes, revision: int) -> Command:
    """Give up a place, unless the key is somebody else's by now. Its answer says whether it was."""
    return [TXN, 0, [_created(key, revision)], [[DELETE_RANGE, 0, key, b"", 0]], []]


def proclaim_command(key: bytes, revision: int, value: bytes, lease: int) -> Command:
    """Another value, while the place is held. Its answer says whether it was."""
    return [TXN, 0, [_created(key, revision)], [[PUT, 0, key, value, lease, 0]], []]


def ahead_command(name: bytes, revision: int) -> Command:
    """The last one in front of a place."""
    prefix = prefix_of(name)
    bounds = [0, 0, 0, revision - 1]
    return [RANGE, UNCOUNTED, prefix, prefix_range_end(prefix), 1, 0, SORT_DESCEND, SORT_CREATE, *bounds]


def oldest_command(name: bytes) -> Command:
    """Who has it."""
    prefix = prefix_of(name)
    return [RANGE, UNCOUNTED, prefix, prefix_range_end(prefix), 1, 0, SORT_ASCEND, SORT_CREATE, 0, 0, 0, 0]


def own_command(key: bytes) -> Command:
    """Whether a place is still there."""
    return [RANGE, 0, key, b"", 0, 0, 0, 0, 0, 0, 0, 0]


def first_of(answer: Answer) -> KeyValueItems | None:
    """The key-value that was asked for."""
    found: list[KeyValueItems] = answer[2]
    return found[0] if found else None


def _created(key: bytes, revision: int) -> list[Any]:
    return [EQUAL, COMPARE_CREATE, key, revision, b""]


def lock_response(key: bytes, origin: Origin, revision: int) -> lock.LockResponse:
    response = lock.LockResponse(key=key)
    response.header.CopyFrom(header(origin, revision))
    return response


def leader_key(name: bytes, place: Place, lease: int) -> election.LeaderKey:
    return election.LeaderKey(name=name, key=place.key, rev=place.revision, lease=lease)


def leader_response(items: KeyValueItems, origin: Origin, revision: int) -> election.LeaderResponse:
    response = election.LeaderResponse()
    response.header.CopyFrom(header(origin, revision))
    fill_key_value(response.kv, items)
    return response

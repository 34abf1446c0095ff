"""Commands and answers, as flat lists: what clients send, what the log replicates, what apply returns.

A command is a list whose first item is its operation. The same list travels from the client's frame into the log entry and
into apply, untouched: nothing is copied or rebuilt per request on the way. Numbers are on disk: never reuse one, and add
new items only at the end of a command, under a new BATCH_VERSION. A new write has its version in wire/versions.py.

Writes carry at position 1 their session sequence (0: no session). Reads carry at position 1 their flags.

| command | items |
|---|---|
| PUT | op, seq, key, value, lease, flags (PREV_KV, IGNORE_VALUE, IGNORE_LEASE) |
| DELETE_RANGE | op, seq, key, range_end, flags (PREV_KV) |
| TXN | op, seq, compares, success, failure; an operation in a branch is PUT, DELETE_RANGE, RANGE or TXN with seq 0 |
| INCREMENT | op, seq, key, delta[, lease of a key that it makes]; the value is decimal text, a missing key counts as 0, any other keeps its lease |
| APPEND | op, seq, key, value[, lease of a key that it makes]; a missing key counts as empty, any other keeps its lease |
| LEASE_GRANT | op, seq, lease id (0: drawn), ttl_ms (raised to the minimum) |
| LEASE_REVOKE | op, seq, lease id |
| GUARDED | op, seq, [[key, create_revision], ...], command: PUT, DELETE_RANGE, TXN, INCREMENT or APPEND with seq 0, done iff each key was created at that revision |
| COMPACT | op, seq, revision: what was superseded before it is let go of, and cannot be read any more |
| PUBLISH_MEMBER | op, 0, node_id, name, incarnation, client_address, peer_address, version[, priority to lead] (proposed by members only) |
| EXPIRE_SESSIONS | op, 0 (proposed by the leader only): drop the sessions whose time is up at the entry's time |
| EXPIRE_LEASES | op, 0, term, [lease id, ...] (proposed by the leader of that term; changes nothing in an entry of another) |
| CHECKPOINT_LEASES | op, 0, term, [[lease id, remaining_ms], ...] (as EXPIRE_LEASES): what a new leader has to give them |
| CREATE_CLUSTER | op, 0, cluster_id, cluster_name, [[node_id, name, peer_address], ...], settings (see wire/settings.py) (the first leader's first entry) |
| SET_ALARM | op, 0, node_id, on: that member's store is over its quota, or no more (proposed by members only) |
| RECORD_MEMBER | op, 0, node_id, name, peer_address, wants_vote: known to all before a configuration names it (proposed by the leader) |
| FORGET_MEMBER | op, 0, node_id: a recorded member that no configuration names (proposed by the leader) |
| ALARM | op, seq, member id (any number), kind (wire/alarms.py), on: an alarm that somebody raises or takes back by hand |
| DOWNGRADE | op, seq, version that is announced, or "" to take it back; it stops nothing and starts nothing |
| POOL_SET, POOL_DELETE, POOL_REQUEST, POOL_RELEASE, POOL_TICK, POOLS, POOL_QUEUE, POOL_WHY | see wire/pools.py |
| GET | op, flags (SERIALIZABLE), key |
| LEASE_TTL | op, flags (WITH_KEYS), lease id (asked of the leader) |
| LEASES | op, flags (SERIALIZABLE) |
| READ_TXN | op, flags (SERIALIZABLE), compares, success, failure: a TXN in whose branches, nested ones too, is nothing but RANGE |
| AUTH_ENABLE to ROLE_REVOKE_PERMISSION, ISSUE_TOKEN, AUTH_STATUS to AUTH_LIST | users, roles and logins: see wire/users.py |
| RANGE | op, flags (SERIALIZABLE, KEYS_ONLY, COUNT_ONLY, UNCOUNTED: do not count behind what is answered), key, range_end, limit, revision, sort_order, sort_target, min_mod, max_mod, min_create, max_create |

A compare is [result, target, key, operand, range_end]. A key-value is [key, create_revision, mod_revision, version, lease,
value]. Keys and values are bytes; an absent range_end is b"". Ranges are etcd's: [key, range_end), b"\\0" means to the end.

| answer | items after the status 0 |
|---|---|
| PUT | revision, previous key-value or None |
| DELETE_RANGE | revision, count deleted, previous key-values |
| TXN, READ_TXN | revision, succeeded, [[op, items of that answer...], ...] |
| INCREMENT | revision, new value (int) |
| APPEND | revision, new length in bytes |
| LEASE_GRANT | revision, lease id, ttl_ms |
| LEASE_REVOKE | revision, count of keys deleted |
| GUARDED | as the command inside |
| COMPACT | revision |
| GET | revision, key-value or None |
| RANGE | revision, key-values, more, count |
| LEASE_TTL | revision, remaining_ms (-1: no such lease), ttl_ms as granted, attached keys |
| LEASES | revision, [lease id, ...] in any order |
| PUBLISH_MEMBER, CREATE_CLUSTER, SET_ALARM, RECORD_MEMBER, FORGET_MEMBER | revision |
| ALARM | revision, [[member id, kind], ...]: those that there are now because of it, or that there are no more |
| DOWNGRADE | revision, whether it changed anything: one announcement at a time |
| EXPIRE_SESSIONS | revision, count of sessions dropped |
| EXPIRE_LEASES, CHECKPOINT_LEASES | revision, count of leases changed |
| those of users and roles | see wire/users.py |
| a failure | status 1, code, may_have_happened, message, details (see raftkv.errors) |

`revision` is the store's revision after the command, as in etcd's response header.
"""

from typing import Any, Final, Iterator, Sequence, TypeAlias

import msgpack

from raftkv.errors import Corruption, RaftKVError, from_code
from raftkv.units import Milliseconds
from raftkv.wire.pools import POOL_READS, POOL_TICK, POOL_WRITES
from raftkv.wire.users import AUTH_READS, AUTH_WRITES, ISSUE_TOKEN

Command: TypeAlias = list[Any]
Answer: TypeAlias = list[Any]
KeyValueItems: TypeAlias = list[Any]

PUT: Final = 1
DELETE_RANGE: Final = 2
TXN: Final = 3
INCREMENT: Final = 4
APPEND: Final = 5
LEASE_GRANT: Final = 6
LEASE_REVOKE: Final = 7
GUARDED: Final = 8
COMPACT: Final = 9
PUBLISH_MEMBER: Final = 32
PRIORITY_MAX: Final = 1000
EXPIRE_SESSIONS: Final = 33
CREATE_CLUSTER: Final = 34
EXPIRE_LEASES: Final = 35
CHECKPOINT_LEASES: Final = 36
SET_ALARM: Final = 37
RECORD_MEMBER: Final = 38
FORGET_MEMBER: Final = 39
ALARM: Final = 40
DOWNGRADE: Final = 41
GET: Final = 64
RANGE: Final = 65
LEASE_TTL: Final = 66
LEASES: Final = 67
READ_TXN: Final = 68

CLIENT_WRITES: Final = AUTH_WRITES | frozenset(
    {
        PUT,
        DELETE_RANGE,
        TXN,
        INCREMENT,
        APPEND,
        LEASE_GRANT,
        LEASE_REVOKE,
        GUARDED,
        COMPACT,
        ALARM,
        DOWNGRADE,
        *POOL_WRITES,
    }
)
SYSTEM_WRITES: Final = frozenset(
    {
        PUBLISH_MEMBER,
        EXPIRE_SESSIONS,
        CREATE_CLUSTER,
        EXPIRE_LEASES,
        CHECKPOINT_LEASES,
        SET_ALARM,
        RECORD_MEMBER,
        FORGET_MEMBER,
        ISSUE_TOKEN,
        POOL_TICK,
    }
)
READS: Final = AUTH_READS | POOL_READS | {GET, RANGE, LEASES, READ_TXN}

# Flags of writes.
PREV_KV: Final = 1
IGNORE_VALUE: Final = 2
IGNORE_LEASE: Final = 4

# Flags of reads.
SERIALIZABLE: Final = 1
KEYS_ONLY: Final = 2
COUNT_ONLY: Final = 4
WITH_KEYS: Final = 8
UNCOUNTED: Final = 16

# Compare results and targets, sort orders and targets: etcd's numbers.
EQUAL, GREATER, LESS, NOT_EQUAL = 0, 1, 2, 3
COMPARE_VERSION, COMPARE_CREATE, COMPARE_MOD, COMPARE_VALUE, COMPARE_LEASE = 0, 1, 2, 3, 4
SORT_NONE, SORT_ASCEND, SORT_DESCEND = 0, 1, 2
SORT_KEY, SORT_VERSION, SORT_CREATE, SORT_MOD, SORT_VALUE = 0, 1, 2, 3, 4

OK: Final = 0
FAILED: Final = 1

BATCH_VERSION: Final = 1

WriteGroupItems: TypeAlias = list[Any]
"""[session id (16 bytes) or None, register, ack_below, user or None, auth_revision, [command, ...]]: writes of one connection.

`register`: create the session if it is not known. Sequences below `ack_below` were answered and will never be retried.
"""

_pack = msgpack.Packer(autoreset=True, use_bin_type=True).pack


def encode_batch(time_ms: Milliseconds, groups: list[WriteGroupItems]) -> bytes:
    """The data of an ENTRY_COMMANDS. `time_ms` is the proposer's replicated time."""
    data: bytes = _pack([BATCH_VERSION, time_ms, groups])
    return data


def decode_batch(data: bytes) -> tuple[Milliseconds, list[WriteGroupItems]]:
    """Undo encode_batch. Raises Corruption for a version that this member does not know: it must not guess."""
    version, time_ms, groups = msgpack.unpackb(data, raw=False, strict_map_key=False)
    if version != BATCH_VERSION:
        raise Corruption(f"log entry has batch version {version}, this member knows {BATCH_VERSION}: upgrade it")
    return time_ms, groups


def failure(error: RaftKVError) -> Answer:
    """The answer that carries an error."""
    return [FAILED, error.code, error.may_have_happened, error.message, error.details]


def error_of(answer: Answer) -> RaftKVError:
    """The error that a failure answer carries."""
    _, code, may_have_happened, message, details = answer[:5]
    return from_code(code, message, may_have_happened=may_have_happened, details=details)


def prefix_range_end(prefix: bytes) -> bytes:
    """The range_end that covers all keys with `prefix`; b"\\0" (to the end) for an empty one or one of 0xff only."""
    trimmed = prefix.rstrip(b"\xff")
    if not trimmed:
        return b"\0"
    return trimmed[:-1] + bytes((trimmed[-1] + 1,))


def only_reads(command: Sequence[Any]) -> bool:
    """Whether a TXN, nested ones included, can change nothing. It need not be valid."""
    return all(
        type(operation) is list
        and bool(operation)
        and (operation[0] == RANGE or (operation[0] == TXN and len(operation) == 5 and only_reads(operation)))
        for branch in command[3:5]
        if type(branch) is list
        for operation in branch
    )


def as_read(command: Command) -> Command:
    """A TXN as the READ_TXN that it is, which needs no entry of the log; any other as it is. Serializable when all its ranges are."""
    if command[0] != TXN or not only_reads(command):
        return command
    ranges = list(_ranges(command))
    stale = bool(ranges) and all(operation[1] & SERIALIZABLE for operation in ranges)
    return [READ_TXN, SERIALIZABLE if stale else 0, *command[2:]]


def _ranges(command: Command) -> Iterator[Command]:
    for branch in command[3:5]:
        for operation in branch:
            if operation[0] == TXN:
                yield from _ranges(operation)
            else:
                yield operation


def command_bytes(command: Command) -> int:
    """What batches and queues are measured by: the bytes of a valid write, and what it costs to apply as if it were bytes.

    An entry is applied in one go. A megabyte of puts of nothing, counted by their bytes alone, were 16,000, and held the loop for 33 ms.
    """
    operation = command[0]
    if operation in (PUT, APPEND):
        return len(command[2]) + len(command[3]) + _COMMAND_OVERHEAD_BYTES
    if operation == TXN:
        return sum(map(command_bytes, (*command[3], *command[4]))) + (len(command[2]) + 1) * _COMPARE_BYTES
    if operation in _SMALL or operation in AUTH_WRITES:
        return _COMMAND_OVERHEAD_BYTES
    if operation in POOL_WRITES:
        return _POOL_BYTES
    if operation == GUARDED:
        return sum(len(key) + _COMMAND_OVERHEAD_BYTES for key, _ in command[2]) + command_bytes(command[3])
    return len(command[2]) + _COMMAND_OVERHEAD_BYTES


_COMMAND_OVERHEAD_BYTES: Final = 512
_COMPARE_BYTES: Final = 256
_POOL_BYTES: Final = 64 * 1024  # a decision about all requests: up to milliseconds, so an entry has few of them
_SMALL: Final = frozenset({LEASE_GRANT, LEASE_REVOKE, COMPACT, ALARM, DOWNGRADE})

"""The commands of leases: grant and revoke for clients, expire and checkpoint for the leader.

What the leader proposes carries its term. An entry of another term changes nothing: it was decided by somebody who has lost the
office since, from books that do not count any more (etcd#15247). Deadlines are not looked at here: they are the leader's.
"""

import struct
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from raftkv.errors import InvalidRequest, LeaseExists, LeaseNotFound, TooManyLeases
from raftkv.wire.commands import OK, Answer, Command
from raftkv.wire.validate import validate

if TYPE_CHECKING:
    from raftkv.store.state import State

_DRAW: Final = struct.Struct(">QI")
_EFFECT: Final = struct.Struct(">cqQ")
_INT64_MAX: Final = 2**63 - 1


def grant(state: "State", command: Command) -> Answer:
    """LEASE_GRANT. A TTL below the minimum is raised to it, as etcd does."""
    settings = state.cluster.settings
    validate(command, settings)
    _, _, lease_id, ttl_ms = command
    leases = state.mvcc.leases
    if lease_id in leases:
        raise LeaseExists(f"lease {lease_id} exists already")
    if len(leases) >= settings.leases_max:
        raise TooManyLeases(f"the cluster keeps at most {settings.leases_max} leases")
    if not lease_id:
        lease_id = draw_id(state)
    ttl_ms = max(ttl_ms, settings.lease_ttl_ms_min)
    leases.grant(lease_id, ttl_ms)
    state.mvcc.tally.leases_granted += 1
    state.effects.append(_EFFECT.pack(b"g", lease_id, ttl_ms))
    return [OK, state.mvcc.revision, lease_id, ttl_ms]


def draw_id(state: "State") -> int:
    """An id that nobody uses, above 0, the same on every member: from the place in the log."""
    while True:
        state.draws += 1
        digest = blake2b(_DRAW.pack(state.index, state.draws), digest_size=8).digest()
        lease_id = int.from_bytes(digest) >> 1
        if lease_id and lease_id not in state.mvcc.leases:
            return lease_id


def revoke(state: "State", command: Command) -> Answer:
    """LEASE_REVOKE: its keys go with it, at one revision."""
    validate(command, state.cluster.settings)
    lease_id = command[2]
    if lease_id not in state.mvcc.leases:
        raise LeaseNotFound(f"lease {lease_id} does not exist")
    count = _end(state, lease_id)
    return [OK, state.mvcc.revision, count]


def expire(state: "State", command: Command) -> Answer:
    """EXPIRE_LEASES: each lease is a revision of its own. Stops after as many keys as one command may delete."""
    term, lease_ids = _of_leader(command)
    keys_left = state.cluster.settings.lease_expiry_keys_max
    expired = 0
    if term == state.term:
        for lease_id in lease_ids:
            if type(lease_id) is not int:
                raise InvalidRequest("EXPIRE_LEASES lists ids")
        for lease_id in lease_ids:
            if keys_left <= 0:
                break  # whoever is left is listed again
            if lease_id in state.mvcc.leases:
                keys_left -= 1 + _end(state, lease_id)
                expired += 1
    state.mvcc.tally.leases_expired += expired
    return [OK, state.mvcc.revision, expired]


def checkpoint(state: "State", command: Command) -> Answer:
    """CHECKPOINT_LEASES: what a new leader has to give each of them."""
    term, rows = _of_leader(command)
    if not all(type(row) is list and len(row) == 2 and type(row[0]) is type(row[1]) is int for row in rows):
        raise InvalidRequest("CHECKPOINT_LEASES lists ids with the time that remains")
    leases = state.mvcc.leases
    changed = 0
    if term == state.term:
        for lease_id, remaining_ms in rows:
            lease = leases.get(lease_id)
            if lease is not None:
                remaining_ms = min(max(1, remaining_ms), lease.ttl_ms)
                leases.set_remaining(lease_id, remaining_ms)
                state.effects.append(_EFFECT.pack(b"c", lease_id, remaining_ms))
                changed += 1
    return [OK, state.mvcc.revision, changed]


def _of_leader(command: Command) -> tuple[int, list[Any]]:
    if len(command) != 4 or type(command[2]) is not int or type(command[3]) is not list:
        raise InvalidRequest("what a leader says of leases is its term and a list")
    return command[2], command[3]


def _end(state: "State", lease_id: int) -> int:
    """Delete a lease with its keys, in key order, at one revision; how many keys there were."""
    mvcc = state.mvcc
    lease = mvcc.leases.get(lease_id)
    assert lease is not None, "looked up before"
    keys = sorted(lease.keys)
    for key in keys:
        record = mvcc.get(key)
        assert record is not None, "an attached key exists"
        mvcc.delete(record, key)
    mvcc.leases.end(lease_id)
    mvcc.tally.leases_revoked += 1
    state.effects.append(_EFFECT.pack(b"e", lease_id, len(keys)))
    mvcc.finish()
    return len(keys)

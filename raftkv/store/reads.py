"""Reads that are answered in one go, at the applied state. Ranges that may be long are in ranges.py."""

from typing import Any, Sequence

from raftkv.errors import InvalidRequest
from raftkv.limits import Limits
from raftkv.store.auth_reads import read_auth
from raftkv.store.pool_reads import read_pools
from raftkv.store.ranges import read_range
from raftkv.store.records import key_value
from raftkv.store.state import State
from raftkv.store.transactions import read_txn
from raftkv.wire.commands import GET, LEASES, OK, RANGE, READ_TXN, Answer
from raftkv.wire.pools import POOL_READS
from raftkv.wire.users import AUTH_READS
from raftkv.wire.validate import validate


def read_small(state: State, command: Sequence[Any], limits: Limits) -> Answer:
    """Answer a GET, LEASES, a READ_TXN, a read of users and roles or of pools, or a RANGE known to be small.

    Raises InvalidRequest or one of its kinds, FutureRevision, Compacted, UserNotFound, RoleNotFound, PoolNotFound or PoolRequestNotFound.
    """
    kind, mvcc = command[0], state.mvcc
    if kind == GET:
        mvcc.tally.ranges += 1
        key = command[2]
        if type(key) is not bytes or not key:
            validate(command, limits)
        record = mvcc.get(key)
        return [OK, mvcc.revision, None if record is None else key_value(record)]
    validate(command, limits)
    if kind == LEASES:
        return [OK, mvcc.revision, list(mvcc.leases)]
    if kind in AUTH_READS:
        return read_auth(state.auth, mvcc.revision, command)
    if kind in POOL_READS:
        return read_pools(state.pools, mvcc.revision, state.clock_ms, command)
    if kind == READ_TXN:
        return read_txn(mvcc, command, state.cluster.settings.range_reply_bytes_max)
    if kind != RANGE:
        raise InvalidRequest("a read is GET or RANGE")
    mvcc.tally.ranges += 1
    return read_range(mvcc, command, state.cluster.settings.range_reply_bytes_max)

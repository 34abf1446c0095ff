"""The alarms in the state machine: while a member's store is over its quota nothing grows, and while one is said to be corrupt nothing changes.

An alarm and not a figure decides, because members measure their own pages and would disagree. A member raises the one for its quota
itself and takes it back (replica/upkeep.py); both kinds may be raised by hand. Deletes and compaction are never refused for
lack of space, so that the way out stays open. Which commands grow or change is judged by their kind alone, as etcd does: a put of a
smaller value grows, too.
"""

from typing import Final

from raftkv.errors import CorruptAlarm, NoSpace
from raftkv.store.members import Cluster
from raftkv.wire.alarms import CORRUPT, NOSPACE
from raftkv.wire.commands import (
    APPEND,
    COMPACT,
    DELETE_RANGE,
    GUARDED,
    INCREMENT,
    LEASE_GRANT,
    LEASE_REVOKE,
    PUT,
    TXN,
    Command,
)
from raftkv.wire.pools import POOL_DELETE, POOL_RELEASE, POOL_REQUEST, POOL_SET

_GROWING: Final = frozenset({PUT, INCREMENT, APPEND, LEASE_GRANT, POOL_SET, POOL_REQUEST})
_CHANGING: Final = _GROWING | {DELETE_RANGE, COMPACT, LEASE_REVOKE, POOL_DELETE, POOL_RELEASE}


def grows(command: Command) -> bool:
    """Whether a command, or anything inside it, may need room. Anything that is no valid command does not: it is refused anyway."""
    return _holds(command, _GROWING)


def changes(command: Command) -> bool:
    """Whether a command of a client, or anything inside it, may change data."""
    return _holds(command, _CHANGING)


def _holds(command: Command, kinds: frozenset[int]) -> bool:
    if not isinstance(command, list) or not command:
        return False
    kind = command[0]
    if kind == GUARDED and len(command) == 4:
        return _holds(command[3], kinds)
    if kind == TXN and len(command) == 5:
        branches = [branch for branch in command[3:] if isinstance(branch, list)]
        return any(_holds(inner, kinds) for branch in branches for inner in branch)
    return kind in kinds


def check_alarms(command: Command, cluster: Cluster) -> None:
    """Raises NoSpace for a command that grows, CorruptAlarm for one that changes anything, while there is such an alarm."""
    if (names := cluster.alarm_names(NOSPACE)) and grows(command):
        raise NoSpace(
            f"the store is over its quota on {', '.join(names)}: delete keys, compact, or raise quota_bytes",
            details={"members": names},
        )
    if (names := cluster.alarm_names(CORRUPT)) and changes(command):
        raise CorruptAlarm(
            f"the data of {', '.join(names)} is said to be corrupt: nothing is changed until the alarm is taken back",
            details={"members": names},
        )


__all__ = ["changes", "check_alarms", "grows"]

"""The quota in the state machine: members whose store is over it say so through the log, and while one does, nothing grows.

An alarm and not a figure decides, because members measure their own pages and would disagree. It is raised and taken back by
the member itself (replica/upkeep.py); deletes and compaction are never refused, so that the way out stays open. Which commands
grow is judged by their kind alone, as etcd does: a put of a smaller value is one, too.
"""

from typing import Final

from raftkv.errors import NoSpace
from raftkv.wire.commands import APPEND, GUARDED, INCREMENT, LEASE_GRANT, PUT, TXN, Command

_GROWING: Final = frozenset({PUT, INCREMENT, APPEND, LEASE_GRANT})


def grows(command: Command) -> bool:
    """Whether a command, or anything inside it, may need room. Anything that is no valid command does not: it is refused anyway."""
    if not isinstance(command, list) or not command:
        return False
    kind = command[0]
    if kind == GUARDED and len(command) == 4:
        return grows(command[3])
    if kind == TXN and len(command) == 5:
        branches = [branch for branch in command[3:] if isinstance(branch, list)]
        return any(grows(inner) for branch in branches for inner in branch)
    return kind in _GROWING


def check_quota(command: Command, names: list[str]) -> None:
    """Raises NoSpace for a command that grows, while the members of these names are over their quota."""
    if grows(command):
        who = ", ".join(names)
        raise NoSpace(
            f"the store is over its quota on {who}: delete keys, compact, or raise quota_bytes",
            details={"members": names},
        )


__all__ = ["check_quota", "grows"]

"""The leader's door while members of several versions are about: a write that not every member knows is refused, and says which member is behind.

What members are is what the log says of them (PUBLISH_MEMBER, at every start with another version). One that has said nothing yet is not waited for: if it
is older than it should be, it stops at the first entry that it does not know.
"""

from typing import Any, Final, Mapping, Protocol, Sequence

from raftkv.errors import Unsupported
from raftkv.wire.commands import Command
from raftkv.wire.versions import FIRST_RELEASE, SINCE, Version, read_version, show_version


class Members(Protocol):
    """What the replicated store knows of the members."""

    def members(self) -> Sequence[Mapping[str, Any]]: ...


class VersionGate:
    """`since`: the version that brought each write."""

    __slots__ = ("_everybodys", "_members", "_since")

    def __init__(self, members: Members, since: Mapping[int, Version] = SINCE) -> None:
        self._members = members
        self._since = since
        self._everybodys: Final = frozenset(
            operation for operation, version in since.items() if version <= FIRST_RELEASE
        )

    def refusal(self, commands: Sequence[Command]) -> Unsupported | None:
        """Why not all of these may be proposed now. There is no release without most commands, so this is one look at each."""
        everybodys = self._everybodys
        for command in commands:
            if command[0] not in everybodys:
                refusal = self._refusal_of(command[0])
                if refusal is not None:
                    return refusal
        return None

    def _refusal_of(self, operation: int) -> Unsupported | None:
        since = self._since.get(operation)
        if since is None:
            return Unsupported(f"operation {operation} is no write that the leader knows: upgrade every member")
        behind = []
        for member in self._members.members():
            version = read_version(member["version"])
            if version is not None and version < since:
                behind.append(f"{member['name']} has {member['version']}")
        if not behind:
            return None
        needed = show_version(since)
        return Unsupported(
            f"operation {operation} needs version {needed} on every member, {', '.join(behind)}: upgrade first",
            details={"version": needed},
        )


__all__ = ["VersionGate"]

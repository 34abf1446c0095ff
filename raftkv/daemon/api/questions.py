"""Questions about leases on their way through the native door: checked, and gathered until the read of the socket is done."""

from typing import Any

from raftkv.limits import Limits
from raftkv.replica.groups import Origin, ReadGroup
from raftkv.wire.commands import LEASE_TTL, Command
from raftkv.wire.identity import ANYBODY, Caller
from raftkv.wire.protocol import check_keep_alive
from raftkv.wire.validate import validate


def check_question(command: Any, limits: Limits) -> None:
    """Raises InvalidRequest for a KEEP_ALIVE or LEASE_TTL that is malformed or too large."""
    if command[0] == LEASE_TTL:
        validate(command, limits)
    else:
        check_keep_alive(command, limits.keep_alive_leases_max)


class Questions:
    """Those that one read of a socket has brought so far."""

    __slots__ = ("_commands", "_tags", "_timeout_ms")

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._tags: list[int] = []
        self._commands: list[Command] = []
        self._timeout_ms = 0

    def __len__(self) -> int:
        return len(self._tags)

    def add(self, request_id: int, timeout_ms: int, command: Command) -> None:
        """Take in one more; the longest timeout counts for all."""
        self._tags.append(request_id)
        self._commands.append(command)
        self._timeout_ms = max(self._timeout_ms, timeout_ms)

    @property
    def timeout_ms(self) -> int:
        return self._timeout_ms

    def take(self, origin: Origin, deadline_ms: int, caller: Caller = ANYBODY) -> ReadGroup:
        """All of them as one group."""
        user, auth_revision = caller
        group = ReadGroup(
            origin, self._tags, self._commands, deadline_ms=deadline_ms, user=user, auth_revision=auth_revision
        )
        self._clear()
        return group

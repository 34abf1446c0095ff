"""Requests to the member itself, through the native door: status, members, leadership, backups, its file. None of them is on the hot path.

Each handler checks the shape of its command and calls `done` once with the answer, now or later. Whoever adds one adds a row to
HANDLERS and nothing to the door.
"""

from typing import Any, Callable, Final, Protocol, TypeAlias

from raftkv.daemon.authn import Authenticator
from raftkv.daemon.backups import Backups
from raftkv.daemon.defrag import Defragmentation
from raftkv.errors import InvalidRequest, ProtocolError, RaftKVError
from raftkv.replica.membership import read_request
from raftkv.replica.service import Service
from raftkv.wire.commands import OK, Answer, Command, failure
from raftkv.wire.identity import ANYBODY, Caller
from raftkv.wire.protocol import (
    BACKUP_CLOSE,
    BACKUP_OPEN,
    BACKUP_READ,
    CHANGE_MEMBERS,
    DEFRAGMENT,
    MEMBERS,
    MOVE_LEADER,
    PING,
    STATUS,
)

Done: TypeAlias = Callable[[Answer], None]


class MemberControl(Protocol):
    """What the native door needs of the member besides the service (daemon/member.py)."""

    cluster_name: str
    authenticator: Authenticator
    backups: Backups
    defragmentation: Defragmentation

    def hello(self) -> dict[str, Any]: ...

    def status(self) -> dict[str, Any]: ...

    def members(self) -> list[dict[str, Any]]: ...

    def move_leader(self, target: str, done: Done) -> None: ...

    def schedule_pump(self) -> None: ...


def receive_control(
    member: MemberControl, service: Service, command: Command, timeout_ms: int, done: Done, caller: Caller = ANYBODY
) -> None:
    """Carry out one of HANDLERS if the caller may. Raises ProtocolError for a command that is malformed."""
    if service.access.is_on and command[0] != PING:  # that one says nothing
        try:
            service.access.check(command, *caller)
        except RaftKVError as error:
            done(failure(error))
            return
    HANDLERS[command[0]](member, service, command, timeout_ms, done)


def _ping(member: MemberControl, service: Service, command: Command, timeout_ms: int, done: Done) -> None:
    done([OK])


def _status(member: MemberControl, service: Service, command: Command, timeout_ms: int, done: Done) -> None:
    done([OK, member.status()])


def _members(member: MemberControl, service: Service, command: Command, timeout_ms: int, done: Done) -> None:
    done([OK, member.members()])


def _move_leader(member: MemberControl, service: Service, command: Command, timeout_ms: int, done: Done) -> None:
    if len(command) != 2 or type(command[1]) is not str:
        raise ProtocolError("MOVE_LEADER takes a member's name")
    member.move_leader(command[1], done)


def _change_members(member: MemberControl, service: Service, command: Command, timeout_ms: int, done: Done) -> None:
    try:
        request = read_request(command[1] if len(command) == 2 else None)
    except InvalidRequest as error:
        done(failure(error))
        return
    service.change_members(request, done, timeout_ms)
    member.schedule_pump()


def _open_backup(member: MemberControl, service: Service, command: Command, timeout_ms: int, done: Done) -> None:
    member.backups.open(done)


def _read_backup(member: MemberControl, service: Service, command: Command, timeout_ms: int, done: Done) -> None:
    if len(command) != 4 or not all(type(item) is int and item >= 0 for item in command[1:]):
        raise ProtocolError("BACKUP_READ takes id, offset and size")
    member.backups.read(command[1], command[2], command[3], done)


def _close_backup(member: MemberControl, service: Service, command: Command, timeout_ms: int, done: Done) -> None:
    if len(command) != 2 or type(command[1]) is not int:
        raise ProtocolError("BACKUP_CLOSE takes an id")
    member.backups.close(command[1])
    done([OK])


def _defragment(member: MemberControl, service: Service, command: Command, timeout_ms: int, done: Done) -> None:
    member.defragmentation.start(done)


HANDLERS: Final[dict[int, Callable[[MemberControl, Service, Command, int, Done], None]]] = {
    PING: _ping,
    STATUS: _status,
    MEMBERS: _members,
    MOVE_LEADER: _move_leader,
    CHANGE_MEMBERS: _change_members,
    BACKUP_OPEN: _open_backup,
    BACKUP_READ: _read_backup,
    BACKUP_CLOSE: _close_backup,
    DEFRAGMENT: _defragment,
}

__all__ = ["HANDLERS", "MemberControl", "receive_control"]

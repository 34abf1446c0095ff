"""Whose group is being applied, and whether it may: asked only while authentication is on (access.py has the rules).

Who asks is judged once per group, before its session is touched, so that a client that logs in again finds the session as it left it.
What members propose themselves comes without a user: no door takes such a command, so nobody else can have proposed it.
"""

from typing import TYPE_CHECKING, Any

from raftkv.errors import InvalidRequest, RaftKVError
from raftkv.wire.commands import SYSTEM_WRITES, Answer, Command, failure
from raftkv.wire.validate import validate

if TYPE_CHECKING:
    from raftkv.store.state import State


def refusal_of_caller(state: "State") -> Answer | None:
    """The answer to every command of a client in this group, if it is the same for all."""
    try:
        if not (state.user is None or type(state.user) is str) or type(state.auth_revision) is not int:
            raise InvalidRequest("user or auth revision of a group are malformed")
        state.access.check_caller(state.user, state.auth_revision)
    except RaftKVError as error:
        return failure(error)
    return None


def is_of_member(command: Any) -> bool:
    """A command that only a member can have proposed."""
    return type(command) is list and bool(command) and type(command[0]) is int and command[0] in SYSTEM_WRITES


def check_access(state: "State", command: Command) -> None:
    """Raises RaftKVError. Rules look at valid commands only."""
    if command[0] not in SYSTEM_WRITES:
        validate(command, state.cluster.settings)
        state.access.check(command, state.user, state.auth_revision)


__all__ = ["check_access", "is_of_member", "refusal_of_caller"]

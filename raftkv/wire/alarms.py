"""Alarms that somebody raises by hand, and the announcement of a downgrade, as etcd has them: what can be refused without any state.

Beside the alarm that a member raises itself because of its quota (SET_ALARM): that one also ends by itself. These stay until they are
taken back. Any number may stand for a member, as in etcd.
"""

from typing import TYPE_CHECKING, Any, Callable, Final

from raftkv.errors import InvalidRequest
from raftkv.wire.commands import ALARM, DOWNGRADE

if TYPE_CHECKING:  # limits needs dataclasses, 10 ms that the command line does not have
    from raftkv.limits import Limits
    from raftkv.wire.settings import Settings

NOSPACE: Final = 1
CORRUPT: Final = 2
ALARM_KINDS: Final = (NOSPACE, CORRUPT)

_UINT64_MAX: Final = 2**64 - 1
_VERSION_CHARACTERS_MAX: Final = 64


def _check_alarm(command: list[Any], bounds: "Limits | Settings") -> int:
    if len(command) != 5:
        raise InvalidRequest(f"ALARM has 5 items, not {len(command)}")
    member, kind, on = command[2:]
    if type(member) is not int or not 0 <= member <= _UINT64_MAX or type(on) is not bool:
        raise InvalidRequest("ALARM has the id of a member and a flag")
    if kind not in ALARM_KINDS or type(kind) is not int:
        raise InvalidRequest("the kind of an alarm is 1, no space, or 2, corrupt")
    return 0


def _check_downgrade(command: list[Any], bounds: "Limits | Settings") -> int:
    if len(command) != 3:
        raise InvalidRequest(f"DOWNGRADE has 3 items, not {len(command)}")
    target = command[2]
    if type(target) is not str or len(target) > _VERSION_CHARACTERS_MAX or not target.isprintable():
        raise InvalidRequest("DOWNGRADE has the text of a version")
    return 0


ALARM_CHECKS: Final[dict[int, Callable[[Any, "Limits | Settings"], int]]] = {
    ALARM: _check_alarm,
    DOWNGRADE: _check_downgrade,
}
"""Rows of the table in validate.py."""

__all__ = ["ALARM_CHECKS", "ALARM_KINDS", "CORRUPT", "NOSPACE"]

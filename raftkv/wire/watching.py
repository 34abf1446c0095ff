"""Watches and waits as they travel: flags, conditions, and what can be refused about a request without any state.

Its numbers are controls of the native protocol (protocol.py); the tables are there.
"""

from typing import TYPE_CHECKING, Any, Final

from raftkv.errors import InvalidRequest, KeyEmpty, KeyTooLarge

if TYPE_CHECKING:  # limits needs dataclasses, 10 ms that the command line does not have
    from raftkv.limits import Limits

# Flags of WATCH_CREATE.
WATCH_PREV_KV: Final = 1
NO_PUT: Final = 2
NO_DELETE: Final = 4
WATCH_PROGRESS_NOTIFY: Final = 8
_FLAGS: Final = 15

# Conditions of WAIT.
UNTIL_EXISTS: Final = 0
UNTIL_DELETED: Final = 1
UNTIL_CHANGED: Final = 2
UNTIL_DIFFERS: Final = 3  # gone, or written after the revision

_INT64_MAX: Final = 2**63 - 1


def check_watch(command: list[Any], limits: "Limits") -> None:
    """Raises InvalidRequest or KeyTooLarge for a WATCH_CREATE that can never be done. An empty key means the first one."""
    if len(command) != 5:
        raise InvalidRequest("WATCH_CREATE has 5 items")
    _, key, range_end, start_revision, flags = command
    if type(key) is not bytes or type(range_end) is not bytes:
        raise InvalidRequest("key and range_end of a watch are bytes")
    if max(len(key), len(range_end)) > limits.key_bytes_max + 1:
        raise KeyTooLarge(f"the key has more than {limits.key_bytes_max} bytes")
    if type(start_revision) is not int or not -_INT64_MAX <= start_revision <= _INT64_MAX:
        raise InvalidRequest("the start revision is a 64-bit integer")
    if type(flags) is not int or flags & ~_FLAGS:
        raise InvalidRequest("WATCH_CREATE has flags that are not known")


def check_wait(command: list[Any], limits: "Limits") -> None:
    """Raises InvalidRequest, KeyEmpty or KeyTooLarge for a WAIT that can never be done."""
    if len(command) != 5:
        raise InvalidRequest("WAIT has 5 items")
    _, condition, all_of_them, keys, revision = command
    if type(condition) is not int or not UNTIL_EXISTS <= condition <= UNTIL_DIFFERS or type(all_of_them) is not bool:
        raise InvalidRequest("WAIT has a condition that is not known")
    if type(revision) is not int or not 0 <= revision <= _INT64_MAX:
        raise InvalidRequest("the revision of WAIT is an integer of 0 or more")
    if type(keys) is not list or not 0 < len(keys) <= limits.wait_keys_max:
        raise InvalidRequest(f"WAIT takes 1 to {limits.wait_keys_max} keys")
    for key in keys:
        if type(key) is not bytes:
            raise InvalidRequest("the key is not bytes")
        if not key:
            raise KeyEmpty()
        if len(key) > limits.key_bytes_max:
            raise KeyTooLarge(f"the key has {len(key)} bytes, at most {limits.key_bytes_max} are accepted")

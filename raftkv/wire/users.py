"""The commands of users, roles and logins: their numbers, and what can be refused about them without any state.

| command | items |
|---|---|
| AUTH_ENABLE, AUTH_DISABLE | op, seq |
| USER_ADD | op, seq, name, password hash (wire/passwords.py; "": none), no_password (can never have one) |
| USER_DELETE | op, seq, name |
| USER_CHANGE_PASSWORD | op, seq, name, password hash |
| USER_GRANT_ROLE, USER_REVOKE_ROLE | op, seq, user, role |
| ROLE_ADD, ROLE_DELETE | op, seq, role |
| ROLE_GRANT_PERMISSION | op, seq, role, kind (READ, WRITE, READWRITE; None: not given), key, range_end |
| ROLE_REVOKE_PERMISSION | op, seq, role, key, range_end |
| ISSUE_TOKEN | op, 0, user, auth revision of the login, BLAKE2b of the token (proposed by members only): good on every member from here on |
| AUTH_STATUS | op, flags (SERIALIZABLE) |
| USER_GET, ROLE_GET | op, flags (SERIALIZABLE), name |
| AUTH_LIST | op, flags (SERIALIZABLE), LIST_USERS or LIST_ROLES |

| answer | items after the status 0 |
|---|---|
| all writes | revision |
| AUTH_STATUS | revision, enabled, auth revision |
| USER_GET | revision, [role, ...] |
| ROLE_GET | revision, [[kind, key, range_end], ...] |
| AUTH_LIST | revision, [name, ...] |

Ranges are those of wire/commands.py. A password in clear is in none of them.
"""

from typing import Any, Callable, Final, Sequence

from raftkv.errors import InvalidRequest, KeyTooLarge
from raftkv.wire.passwords import is_password_hash

AUTH_ENABLE: Final = 16
AUTH_DISABLE: Final = 17
USER_ADD: Final = 18
USER_DELETE: Final = 19
USER_CHANGE_PASSWORD: Final = 20
USER_GRANT_ROLE: Final = 21
USER_REVOKE_ROLE: Final = 22
ROLE_ADD: Final = 23
ROLE_DELETE: Final = 24
ROLE_GRANT_PERMISSION: Final = 25
ROLE_REVOKE_PERMISSION: Final = 26
ISSUE_TOKEN: Final = 27
AUTH_STATUS: Final = 84
USER_GET: Final = 85
ROLE_GET: Final = 86
AUTH_LIST: Final = 87

AUTH_WRITES: Final = frozenset(range(AUTH_ENABLE, ROLE_REVOKE_PERMISSION + 1))
AUTH_READS: Final = frozenset({AUTH_STATUS, USER_GET, ROLE_GET, AUTH_LIST})

READ, WRITE, READWRITE = 0, 1, 2  # etcd's numbers
LIST_USERS, LIST_ROLES = 0, 1
TOKEN_DIGEST_BYTES: Final = 32
NAME_BYTES_MAX: Final = 256
ROOT: Final = "root"

_SERIALIZABLE: Final = 1  # as in commands.py, which imports this file
_INT64_MAX: Final = 2**63 - 1

Bounds = Any  # Limits or Settings: what is used of it is key_bytes_max


def _check_bare(command: Sequence[Any], bounds: Bounds) -> int:
    _fields(command, 2)
    return 0


def _check_name(command: Sequence[Any], bounds: Bounds) -> int:
    return _name_bytes(_fields(command, 3)[2])


def _check_user_add(command: Sequence[Any], bounds: Bounds) -> int:
    _, _, name, password, no_password = _fields(command, 5)
    if type(no_password) is not bool or not (password == "" if no_password else is_password_hash(password)):
        raise InvalidRequest("a user has a scrypt hash of a password, or none and never one")
    return _name_bytes(name)


def _check_change_password(command: Sequence[Any], bounds: Bounds) -> int:
    _, _, name, password = _fields(command, 4)
    if not is_password_hash(password):
        raise InvalidRequest("a password is given as its scrypt hash")
    return _name_bytes(name)


def _check_user_and_role(command: Sequence[Any], bounds: Bounds) -> int:
    _, _, user, role = _fields(command, 4)
    return _name_bytes(user) + _name_bytes(role)


def _check_grant_permission(command: Sequence[Any], bounds: Bounds) -> int:
    _, _, role, kind, key, range_end = _fields(command, 6)
    if kind is not None and (type(kind) is not int or not READ <= kind <= READWRITE):
        raise InvalidRequest("the kind of a permission is READ, WRITE or READWRITE")
    return _name_bytes(role) + _range_bytes(key, range_end, bounds)


def _check_revoke_permission(command: Sequence[Any], bounds: Bounds) -> int:
    _, _, role, key, range_end = _fields(command, 5)
    return _name_bytes(role) + _range_bytes(key, range_end, bounds)


def check_issue_token(command: Sequence[Any]) -> None:
    """Raises InvalidRequest. Not among the others: no client may send it."""
    _, _, user, auth_revision, digest = _fields(command, 5)
    if type(user) is not str or type(auth_revision) is not int or not 0 < auth_revision <= _INT64_MAX:
        raise InvalidRequest("ISSUE_TOKEN names a user and the auth revision of its login")
    if type(digest) is not bytes or len(digest) != TOKEN_DIGEST_BYTES:
        raise InvalidRequest(f"ISSUE_TOKEN has a digest of {TOKEN_DIGEST_BYTES} bytes")


def _check_status(command: Sequence[Any], bounds: Bounds) -> int:
    return _read(_fields(command, 2))


def _check_get(command: Sequence[Any], bounds: Bounds) -> int:
    return _read(_fields(command, 3)) + _name_bytes(command[2])


def _check_list(command: Sequence[Any], bounds: Bounds) -> int:
    if type(_fields(command, 3)[2]) is not int or command[2] not in (LIST_USERS, LIST_ROLES):
        raise InvalidRequest("AUTH_LIST lists users or roles")
    return _read(command)


AUTH_CHECKS: Final[dict[int, Callable[[Sequence[Any], Bounds], int]]] = {
    AUTH_ENABLE: _check_bare,
    AUTH_DISABLE: _check_bare,
    USER_ADD: _check_user_add,
    USER_DELETE: _check_name,
    USER_CHANGE_PASSWORD: _check_change_password,
    USER_GRANT_ROLE: _check_user_and_role,
    USER_REVOKE_ROLE: _check_user_and_role,
    ROLE_ADD: _check_name,
    ROLE_DELETE: _check_name,
    ROLE_GRANT_PERMISSION: _check_grant_permission,
    ROLE_REVOKE_PERMISSION: _check_revoke_permission,
    AUTH_STATUS: _check_status,
    USER_GET: _check_get,
    ROLE_GET: _check_get,
    AUTH_LIST: _check_list,
}


def _fields(command: Sequence[Any], count: int) -> Sequence[Any]:
    if len(command) != count:
        raise InvalidRequest(f"operation {command[0]} has {count} items, not {len(command)}")
    return command


def _read(command: Sequence[Any]) -> int:
    if command[1] & ~_SERIALIZABLE:
        raise InvalidRequest("the read has flags that are not known")
    return 0


def _name_bytes(name: Any) -> int:
    """Which empty ones are refused, and with which words, is decided in apply, behind the permission."""
    if type(name) is not str:
        raise InvalidRequest("the name of a user or a role is text")
    try:
        size_bytes = len(name.encode())
    except UnicodeEncodeError:
        raise InvalidRequest("the name of a user or a role is text that can be encoded") from None
    if size_bytes > NAME_BYTES_MAX:
        raise InvalidRequest(f"the name of a user or a role has at most {NAME_BYTES_MAX} bytes")
    return size_bytes


def _range_bytes(key: Any, range_end: Any, bounds: Bounds) -> int:
    if type(key) is not bytes or type(range_end) is not bytes:
        raise InvalidRequest("key and range_end of a permission are bytes")
    if max(len(key), len(range_end)) > bounds.key_bytes_max + 1:
        raise KeyTooLarge(f"the range of a permission has keys of more than {bounds.key_bytes_max} bytes")
    return len(key) + len(range_end)

"""The verbs of users and roles as commands, and their answers with names: what both clients share of them."""

from typing import Final, Literal, NamedTuple, TypeAlias

from raftkv.client.requests import Bytes, bounds
from raftkv.errors import InvalidRequest
from raftkv.wire.commands import Answer, Command
from raftkv.wire.users import (
    READ,
    READWRITE,
    ROLE_GRANT_PERMISSION,
    ROLE_REVOKE_PERMISSION,
    USER_ADD,
    WRITE,
)

Kind: TypeAlias = Literal["read", "write", "readwrite"]
_KINDS: Final[dict[str, int]] = {"read": READ, "write": WRITE, "readwrite": READWRITE}
_NAMES: Final[dict[int, Kind]] = {READ: "read", WRITE: "write", READWRITE: "readwrite"}


class Permission(NamedTuple):
    """What a role permits: `kind` on [key, range_end); an empty range_end means the key alone, b"\\0" all from it on."""

    kind: Kind
    key: bytes
    range_end: bytes


class AuthStatus(NamedTuple):
    """Whether everybody has to log in, and the revision of users and roles."""

    enabled: bool
    revision: int


def user_add(name: str, password_hash: str | None) -> Command:
    """`password_hash` None: a user that can never have a password."""
    return [USER_ADD, 0, name, password_hash or "", password_hash is None]


def grant_permission(
    role: str, kind: Kind, key: Bytes | None, range_end: Bytes | None, prefix: Bytes | None
) -> Command:
    """Raises InvalidRequest."""
    if kind not in _KINDS:
        raise InvalidRequest(f"a permission is {', '.join(_KINDS)}, not {kind!r}")
    return [ROLE_GRANT_PERMISSION, 0, role, _KINDS[kind], *bounds(key, range_end, prefix)]


def revoke_permission(role: str, key: Bytes | None, range_end: Bytes | None, prefix: Bytes | None) -> Command:
    """Raises InvalidRequest."""
    return [ROLE_REVOKE_PERMISSION, 0, role, *bounds(key, range_end, prefix)]


def permissions(answer: Answer) -> list[Permission]:
    return [Permission(_NAMES[kind], key, range_end) for kind, key, range_end in answer[2]]


def auth_status(answer: Answer) -> AuthStatus:
    return AuthStatus(answer[2], answer[3])

"""Users, roles, and whether anybody is asked for them: the replicated state of authentication, as records in META.

    auth                 -> [format, enabled, revision, since]
    auth/user/<name>     -> [password hash, no_password, [role, ...], since]
    auth/role/<name>     -> [[kind, key, range_end], ...]

`revision` grows with every change, as etcd's. `since` is the revision below which a login does not count any more: that of the user's
last password, or of the last time when authentication was switched off. So a change of a role ends no login, because permissions are
looked up when a command is applied, and a changed password ends those of its user alone. Which commands need what is in access.py.
"""

from collections import deque
from itertools import count
from typing import Any, Final, NamedTuple, Sequence

import msgpack

from raftkv.errors import AuthOldRevision, Corruption, PermissionDenied, Unsupported, UserEmpty
from raftkv.store.keyspace import META, Item, Keyspace
from raftkv.store.permissions import Grants, Permission
from raftkv.wire.identity import MEMBER_USER
from raftkv.wire.users import ROOT

FORMAT_VERSION: Final = 1
AUTH_KEY: Final = b"auth"
USER_PREFIX: Final = b"auth/user/"
ROLE_PREFIX: Final = b"auth/role/"
_END: Final = b"auth0"  # behind all of them
_SCAN_ITEMS: Final = 1024
_SCAN_BYTES: Final = 16 * 1024 * 1024
ISSUED_MAX: Final = 100_000

_generations = count(1)  # one row for all stores of a process, so that two of them never seem to be in the same state


class User:
    """One user. `password` is a hash, "" when there is none."""

    __slots__ = ("no_password", "password", "roles", "since")

    def __init__(self, password: str, no_password: bool, roles: list[str], since: int) -> None:
        self.password = password
        self.no_password = no_password
        self.roles = roles  # sorted
        self.since = since


class Issued(NamedTuple):
    """A token that members take from here on, until it was not used for its time."""

    digest: bytes
    user: str
    auth_revision: int


class AuthChanges(NamedTuple):
    """What a commit has to write to META, and to drop there."""

    puts: list[Item]
    deletes: list[bytes]


class Auth:
    """The state. Who changes it calls `changed` with the names of the records that are not what they were."""

    __slots__ = ("_changed", "_grants", "enabled", "generation", "issued", "revision", "roles", "since", "users")

    def __init__(self) -> None:
        self.enabled = False
        self.revision = 1
        self.since = 0
        self.users: dict[str, User] = {}
        self.roles: dict[str, list[Permission]] = {}  # permissions by key
        self.generation = next(_generations)
        """Another number after every change: who has judged by the old one judges anew."""
        self.issued: deque[Issued] = deque(maxlen=ISSUED_MAX)
        """Tokens that nobody has taken note of yet; nothing of them is replicated state."""
        self._changed: set[bytes] = set()
        self._grants: dict[str, Grants] = {}

    # Who may what.

    def grants_of(self, user: str | None, auth_revision: int) -> Grants:
        """What a caller may do. Raises UserEmpty, AuthOldRevision, or PermissionDenied for a user that is gone."""
        if user is None:
            raise UserEmpty()
        if user == MEMBER_USER:
            return _MEMBER
        known = self.users.get(user)
        if known is None:
            raise PermissionDenied(f"there is no user {user!r}")
        if auth_revision < known.since or auth_revision < self.since:
            raise AuthOldRevision()
        grants = self._grants.get(user)
        if grants is None:
            permissions = [permission for role in known.roles for permission in self.roles.get(role, ())]
            grants = self._grants[user] = Grants(user, known.roles, permissions, is_root=ROOT in known.roles)
        return grants

    def is_current(self, user: str, auth_revision: int) -> bool:
        """Whether a login of this user at that revision still counts."""
        known = self.users.get(user)
        return known is not None and auth_revision >= max(known.since, self.since)

    # Changes.

    def changed(self, *keys: bytes, counts: bool = True) -> bytes:
        """Something has changed: forget what was derived, and return it packed, for the digest. `counts`: as a revision."""
        if counts:
            self.revision += 1
        self.generation = next(_generations)
        self._grants.clear()
        self._changed.add(AUTH_KEY)
        self._changed.update(keys)
        return _pack([[key, self._record(key)] for key in (AUTH_KEY, *keys)])

    def take_changes(self) -> AuthChanges:
        """What changed since the last call, in the order of the keys."""
        puts: list[Item] = []
        deletes: list[bytes] = []
        for key in sorted(self._changed):
            record = self._record(key)
            if record is None:
                deletes.append(key)
            else:
                puts.append((key, _pack(record)))
        self._changed.clear()
        return AuthChanges(puts, deletes)

    def take_issued(self) -> list[Issued]:
        """The tokens issued since the last call."""
        issued = list(self.issued)
        self.issued.clear()
        return issued

    def take_over(self, other: "Auth") -> None:
        """In the place of the same state: what that one had to tell is told, and nothing twice."""
        self.issued = other.issued
        self.generation = other.generation

    def _record(self, key: bytes) -> Sequence[Any] | None:
        if key == AUTH_KEY:
            return [FORMAT_VERSION, self.enabled, self.revision, self.since]
        if key.startswith(USER_PREFIX):
            user = self.users.get(key[len(USER_PREFIX) :].decode())
            return None if user is None else [user.password, user.no_password, user.roles, user.since]
        return self.roles.get(key[len(ROLE_PREFIX) :].decode())


def user_key(name: str) -> bytes:
    """Of a user's record in META."""
    return USER_PREFIX + name.encode()


def role_key(name: str) -> bytes:
    """Of a role's record in META."""
    return ROLE_PREFIX + name.encode()


def auth_keys(keyspace: Keyspace) -> list[bytes]:
    """The records of META that are about users and roles."""
    found: list[bytes] = []
    start: bytes | None = AUTH_KEY
    while start is not None:
        keys, start = keyspace.keys(META, start, _END, _SCAN_ITEMS)
        found += keys
    return found


def load_auth(keyspace: Keyspace) -> Auth:
    """As committed; off and empty if there is nothing. Raises Unsupported for a newer format, Corruption."""
    auth = Auth()
    start: bytes | None = AUTH_KEY
    while start is not None:
        window = keyspace.window(META, start, _END, _SCAN_ITEMS, _SCAN_BYTES)
        for key, data in window.items:
            try:
                _take_in(auth, key, msgpack.unpackb(data))
            except (ValueError, TypeError) as error:
                raise Corruption(f"the record {key!r} of the store is damaged: {error}") from error
        start = window.resume
    return auth


def _take_in(auth: Auth, key: bytes, record: Any) -> None:
    if key == AUTH_KEY:
        version, *state = record
        if version != FORMAT_VERSION:
            raise Unsupported(f"users and roles have format {version}, this member knows {FORMAT_VERSION}: upgrade it")
        auth.enabled, auth.revision, auth.since = state
    elif key.startswith(USER_PREFIX):
        auth.users[key[len(USER_PREFIX) :].decode()] = User(*record)
    elif key.startswith(ROLE_PREFIX):
        auth.roles[key[len(ROLE_PREFIX) :].decode()] = [(kind, start, end) for kind, start, end in record]


def _pack(items: Any) -> bytes:
    packed: bytes = msgpack.packb(items, use_bin_type=True)
    return packed


_MEMBER: Final = Grants(MEMBER_USER, (), (), is_root=True)

__all__ = ["Auth", "AuthChanges", "Issued", "User", "auth_keys", "load_auth", "role_key", "user_key"]

"""Who may do what while authentication is on: one rule for every operation that a door takes, and none means root alone.

The rules are etcd's of its newest patches (nested transactions, keep-alives and previous values included), and the same in spirit where
etcd has no such command: what an answer tells has to be readable, what a command changes has to be writable. Asked in apply for writes,
and by whoever answers for reads, watches, waits and controls, each time by what is applied here: a permission that was taken away
counts from then on.
"""

from typing import Any, Callable, Final, Iterable, Protocol, Sequence

from raftkv.errors import PermissionDenied
from raftkv.store.auth import Auth
from raftkv.store.permissions import Grants
from raftkv.wire.commands import (
    ALARM,
    APPEND,
    COMPACT,
    DELETE_RANGE,
    DOWNGRADE,
    GET,
    GUARDED,
    INCREMENT,
    LEASE_GRANT,
    LEASE_REVOKE,
    LEASE_TTL,
    LEASES,
    PREV_KV,
    PUT,
    RANGE,
    READ_TXN,
    TXN,
    WITH_KEYS,
    prefix_range_end,
)
from raftkv.wire.pools import (
    KEY_PREFIX,
    POOL_DELETE,
    POOL_QUEUE,
    POOL_RELEASE,
    POOL_REQUEST,
    POOL_SET,
    POOL_WHY,
    POOLS,
    grant_key,
    pool_key,
)
from raftkv.wire.protocol import (
    BACKUP_CLOSE,
    BACKUP_OPEN,
    BACKUP_READ,
    CHANGE_MEMBERS,
    DEFRAGMENT,
    KEEP_ALIVE,
    MEMBERS,
    MOVE_LEADER,
    STATUS,
    WAIT,
    WATCH_CANCEL,
    WATCH_CREATE,
    WATCH_PROGRESS,
)
from raftkv.wire.users import (
    AUTH_DISABLE,
    AUTH_ENABLE,
    AUTH_LIST,
    AUTH_STATUS,
    ROLE_ADD,
    ROLE_DELETE,
    ROLE_GET,
    ROLE_GRANT_PERMISSION,
    ROLE_REVOKE_PERMISSION,
    USER_ADD,
    USER_CHANGE_PASSWORD,
    USER_DELETE,
    USER_GET,
    USER_GRANT_ROLE,
    USER_REVOKE_ROLE,
)


class KeyedLease(Protocol):
    """What is looked at of a lease."""

    keys: set[bytes]


class LeaseTable(Protocol):
    """The leases by id."""

    def get(self, lease_id: int) -> KeyedLease | None: ...


class Access:
    """Judges commands by the applied state. `is_on` is asked first, so that it costs nothing while nobody has to log in."""

    __slots__ = ("_auth", "_leases")

    def __init__(self, auth: Auth, leases: LeaseTable) -> None:
        self._auth = auth
        self._leases = leases

    @property
    def is_on(self) -> bool:
        return self._auth.enabled

    @property
    def generation(self) -> int:
        """Another number whenever a judgment might be another."""
        return self._auth.generation

    def check(self, command: Sequence[Any], user: str | None, auth_revision: int) -> None:
        """Judge a command that was validated. Raises UserEmpty, AuthOldRevision or PermissionDenied."""
        if not self._auth.enabled:
            return
        grants = self._auth.grants_of(user, auth_revision)
        if not grants.is_root:
            _RULES.get(command[0], _refuse)(self._leases, grants, command)

    def check_caller(self, user: str | None, auth_revision: int) -> None:
        """Judge only who asks. Raises as `check`."""
        if self._auth.enabled:
            self._auth.grants_of(user, auth_revision)


def _need(permitted: bool) -> None:
    if not permitted:
        raise PermissionDenied()


def _refuse(leases: LeaseTable, grants: Grants, command: Sequence[Any]) -> None:
    """Root alone."""
    raise PermissionDenied("only a user with the role root may do this")


def _anyone(leases: LeaseTable, grants: Grants, command: Sequence[Any]) -> None:
    """Whoever is logged in."""


def _put(leases: LeaseTable, grants: Grants, command: Sequence[Any]) -> None:
    """Whoever hangs a key on a lease decides when the lease's other keys go, so it has to be allowed to write those, too."""
    _, _, key, _, lease_id, flags = command
    _need(grants.write.covers_key(key))
    if flags & PREV_KV:
        _need(grants.read.covers_key(key))
    if lease_id:
        _need(grants.write.covers_all(_keys_of(leases, lease_id)))


def _delete_range(leases: LeaseTable, grants: Grants, command: Sequence[Any]) -> None:
    _, _, key, range_end, flags = command
    _need(grants.write.covers(key, range_end))
    if flags & PREV_KV:
        _need(grants.read.covers(key, range_end))


def _range(leases: LeaseTable, grants: Grants, command: Sequence[Any]) -> None:
    _need(grants.read.covers(command[2], command[3]))


def _txn(leases: LeaseTable, grants: Grants, command: Sequence[Any]) -> None:
    """Both branches, and those of nested transactions: which one is taken tells something about the keys compared."""
    _, _, compares, success, failure = command
    for compare in compares:
        _need(grants.read.covers(compare[2], compare[4]))
    for branch in (success, failure):
        for operation in branch:
            _RULES[operation[0]](leases, grants, operation)


def _change_in_place(leases: LeaseTable, grants: Grants, command: Sequence[Any]) -> None:
    """INCREMENT and APPEND answer with what came out, which tells what was there. A lease as with PUT."""
    _need(grants.write.covers_key(command[2]))
    _need(grants.read.covers_key(command[2]))
    if len(command) > 4 and command[4]:
        _need(grants.write.covers_all(_keys_of(leases, command[4])))


def _guarded(leases: LeaseTable, grants: Grants, command: Sequence[Any]) -> None:
    for key, _ in command[2]:
        _need(grants.read.covers_key(key))
    _RULES[command[3][0]](leases, grants, command[3])


def _lease_revoke(leases: LeaseTable, grants: Grants, command: Sequence[Any]) -> None:
    _need(grants.write.covers_all(_keys_of(leases, command[2])))


def _keep_alive(leases: LeaseTable, grants: Grants, command: Sequence[Any]) -> None:
    for lease_id in command[1]:
        _need(grants.write.covers_all(_keys_of(leases, lease_id)))


def _lease_ttl(leases: LeaseTable, grants: Grants, command: Sequence[Any]) -> None:
    if command[1] & WITH_KEYS:
        _need(grants.read.covers_all(_keys_of(leases, command[2])))


def _get(leases: LeaseTable, grants: Grants, command: Sequence[Any]) -> None:
    _need(grants.read.covers_key(command[2]))


def _watch(leases: LeaseTable, grants: Grants, command: Sequence[Any]) -> None:
    _need(grants.read.covers(command[1] or b"\0", command[2]))


def _wait(leases: LeaseTable, grants: Grants, command: Sequence[Any]) -> None:
    _need(grants.read.covers_all(command[3]))


def _user_get(leases: LeaseTable, grants: Grants, command: Sequence[Any]) -> None:
    """One's own."""
    _need(command[2] == grants.user)


def _role_get(leases: LeaseTable, grants: Grants, command: Sequence[Any]) -> None:
    """Those that one has."""
    _need(command[2] in grants.roles)


def _pool_change(leases: LeaseTable, grants: Grants, command: Sequence[Any]) -> None:
    _need(grants.write.covers_key(pool_key(command[2])))


def _pool_request(leases: LeaseTable, grants: Grants, command: Sequence[Any]) -> None:
    """As the put of its key."""
    _need(grants.write.covers_key(grant_key(command[2])))
    _need(grants.write.covers_all(_keys_of(leases, command[3])))


def _pool_release(leases: LeaseTable, grants: Grants, command: Sequence[Any]) -> None:
    _need(grants.write.covers_key(grant_key(command[2])))


def _pool_look(leases: LeaseTable, grants: Grants, command: Sequence[Any]) -> None:
    """Who sees one queue sees who else is in it."""
    _need(grants.read.covers(KEY_PREFIX, prefix_range_end(KEY_PREFIX)))


def _keys_of(leases: LeaseTable, lease_id: int) -> Iterable[bytes]:
    lease = leases.get(lease_id)
    return () if lease is None else lease.keys


_RULES: Final[dict[int, Callable[[LeaseTable, Grants, Sequence[Any]], None]]] = {
    PUT: _put,
    DELETE_RANGE: _delete_range,
    TXN: _txn,
    INCREMENT: _change_in_place,
    APPEND: _change_in_place,
    GUARDED: _guarded,
    LEASE_GRANT: _anyone,
    LEASE_REVOKE: _lease_revoke,
    COMPACT: _refuse,
    POOL_SET: _pool_change,
    POOL_DELETE: _pool_change,
    POOL_REQUEST: _pool_request,
    POOL_RELEASE: _pool_release,
    POOLS: _pool_look,
    POOL_QUEUE: _pool_look,
    POOL_WHY: _pool_look,
    ALARM: _refuse,
    DOWNGRADE: _refuse,
    GET: _get,
    RANGE: _range,
    LEASES: _anyone,
    READ_TXN: _txn,
    LEASE_TTL: _lease_ttl,
    KEEP_ALIVE: _keep_alive,
    WATCH_CREATE: _watch,
    WATCH_CANCEL: _anyone,
    WATCH_PROGRESS: _anyone,
    WAIT: _wait,
    STATUS: _anyone,
    MEMBERS: _anyone,
    MOVE_LEADER: _refuse,
    CHANGE_MEMBERS: _refuse,
    BACKUP_OPEN: _refuse,
    BACKUP_READ: _refuse,
    BACKUP_CLOSE: _refuse,
    DEFRAGMENT: _refuse,
    AUTH_ENABLE: _refuse,
    AUTH_DISABLE: _refuse,
    USER_ADD: _refuse,
    USER_DELETE: _refuse,
    USER_CHANGE_PASSWORD: _refuse,
    USER_GRANT_ROLE: _refuse,
    USER_REVOKE_ROLE: _refuse,
    ROLE_ADD: _refuse,
    ROLE_DELETE: _refuse,
    ROLE_GRANT_PERMISSION: _refuse,
    ROLE_REVOKE_PERMISSION: _refuse,
    AUTH_STATUS: _refuse,
    USER_GET: _user_get,
    ROLE_GET: _role_get,
    AUTH_LIST: _refuse,
}

__all__ = ["Access"]

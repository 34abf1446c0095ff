"""The commands of users and roles, with etcd's rules, order of checks and exceptions (its server/auth/store.go).

Whether the caller may do it was decided before (access.py). A command that changes nothing, a role granted twice for instance, is fine
and does not raise the auth revision; enabling does not either.
"""

from bisect import insort
from typing import TYPE_CHECKING, Callable, Final

from raftkv.errors import (
    AuthFull,
    AuthNotEnabled,
    AuthOldRevision,
    InvalidAuthManagement,
    PermissionNotGiven,
    PermissionNotGranted,
    RoleEmpty,
    RoleExists,
    RoleNotFound,
    RoleNotGranted,
    RootRoleMissing,
    RootUserMissing,
    UserEmpty,
    UserExists,
    UserNotFound,
)
from raftkv.store.auth import Issued, User, role_key, user_key
from raftkv.store.permissions import Permission, is_valid_range
from raftkv.wire.commands import OK, Answer, Command
from raftkv.wire.users import (
    AUTH_DISABLE,
    AUTH_ENABLE,
    ISSUE_TOKEN,
    ROLE_ADD,
    ROLE_DELETE,
    ROLE_GRANT_PERMISSION,
    ROLE_REVOKE_PERMISSION,
    ROOT,
    USER_ADD,
    USER_CHANGE_PASSWORD,
    USER_DELETE,
    USER_GRANT_ROLE,
    USER_REVOKE_ROLE,
    check_issue_token,
)
from raftkv.wire.validate import validate

if TYPE_CHECKING:
    from raftkv.store.state import State


def _enable(state: "State", command: Command) -> Answer:
    auth = state.auth
    if not auth.enabled:
        root = auth.users.get(ROOT)
        if root is None:
            raise RootUserMissing()
        if ROOT not in root.roles:
            raise RootRoleMissing()
        auth.enabled = True
        return _done(state, counts=False)
    return [OK, state.mvcc.revision]


def _disable(state: "State", command: Command) -> Answer:
    """Every login ends: whoever switches it on again does not want to find old ones."""
    auth = state.auth
    if not auth.enabled:
        return [OK, state.mvcc.revision]
    auth.enabled = False
    auth.since = auth.revision + 1
    return _done(state)


def _user_add(state: "State", command: Command) -> Answer:
    auth = state.auth
    _, _, name, password, no_password = command
    if not name:
        raise UserEmpty("the name of a user is empty")
    if name in auth.users:
        raise UserExists(f"user {name!r} exists already")
    if len(auth.users) >= state.cluster.settings.users_max:
        raise AuthFull(f"the cluster keeps at most {state.cluster.settings.users_max} users")
    auth.users[name] = User(password, no_password, [], auth.revision + 1)
    return _done(state, user_key(name))


def _user_delete(state: "State", command: Command) -> Answer:
    auth, name = state.auth, command[2]
    if auth.enabled and name == ROOT:
        raise InvalidAuthManagement("the user root cannot be deleted while authentication is enabled")
    _user(state, name)
    del auth.users[name]
    return _done(state, user_key(name))


def _change_password(state: "State", command: Command) -> Answer:
    """Of a user that can have none the password stays none, as in etcd; its logins end all the same."""
    _, _, name, password = command
    user = _user(state, name)
    if not user.no_password:
        user.password = password
    user.since = state.auth.revision + 1
    return _done(state, user_key(name))


def _grant_role(state: "State", command: Command) -> Answer:
    """The role root need not exist."""
    _, _, name, role = command
    user = _user(state, name)
    if role != ROOT:
        _role(state, role)
    if role in user.roles:
        return [OK, state.mvcc.revision]
    insort(user.roles, role)
    return _done(state, user_key(name))


def _revoke_role(state: "State", command: Command) -> Answer:
    _, _, name, role = command
    if state.auth.enabled and name == role == ROOT:
        raise InvalidAuthManagement("the user root keeps the role root while authentication is enabled")
    user = _user(state, name)
    if role not in user.roles:
        raise RoleNotGranted(f"user {name!r} does not have the role {role!r}")
    user.roles.remove(role)
    return _done(state, user_key(name))


def _role_add(state: "State", command: Command) -> Answer:
    auth, role = state.auth, command[2]
    if not role:
        raise RoleEmpty()
    if role in auth.roles:
        raise RoleExists(f"role {role!r} exists already")
    if len(auth.roles) >= state.cluster.settings.roles_max:
        raise AuthFull(f"the cluster keeps at most {state.cluster.settings.roles_max} roles")
    auth.roles[role] = []
    return _done(state, role_key(role))


def _role_delete(state: "State", command: Command) -> Answer:
    """Whoever had it has it no more."""
    auth, role = state.auth, command[2]
    if auth.enabled and role == ROOT:
        raise InvalidAuthManagement("the role root cannot be deleted while authentication is enabled")
    _role(state, role)
    del auth.roles[role]
    holders = sorted(name for name, user in auth.users.items() if role in user.roles)
    for name in holders:
        auth.users[name].roles.remove(role)
    return _done(state, role_key(role), *map(user_key, holders))


def _grant_permission(state: "State", command: Command) -> Answer:
    """A permission for the same range gets the new kind. Those of one key are in the order in which they were granted, as in etcd."""
    _, _, role, kind, key, range_end = command
    if kind is None:
        raise PermissionNotGiven()
    if not is_valid_range(key, range_end):
        raise InvalidAuthManagement("the range of the permission is empty")
    permissions = _role(state, role)
    for position, granted in enumerate(permissions):
        if granted[1:] == (key, range_end):
            permissions[position] = (kind, key, range_end)
            return _done(state, role_key(role))
    if len(permissions) >= state.cluster.settings.role_permissions_max:
        raise AuthFull(f"a role has at most {state.cluster.settings.role_permissions_max} permissions")
    insort(permissions, (kind, key, range_end), key=lambda granted: granted[1])
    return _done(state, role_key(role))


def _revoke_permission(state: "State", command: Command) -> Answer:
    _, _, role, key, range_end = command
    permissions = _role(state, role)
    kept = [granted for granted in permissions if granted[1:] != (key, range_end)]
    if len(kept) == len(permissions):
        raise PermissionNotGranted(f"role {role!r} has no permission for exactly this range")
    state.auth.roles[role] = kept
    return _done(state, role_key(role))


def _issue_token(state: "State", command: Command) -> Answer:
    """Tells the members of a login. Nothing replicated changes: a token lives in the memory of members, as in etcd."""
    check_issue_token(command)
    _, _, user, auth_revision, digest = command
    auth = state.auth
    if not auth.enabled:
        raise AuthNotEnabled()
    if not auth.is_current(user, auth_revision):
        raise AuthOldRevision("the user has changed since it gave its password")
    auth.issued.append(Issued(digest, user, auth_revision))
    return [OK, state.mvcc.revision]


def _user(state: "State", name: str) -> User:
    user = state.auth.users.get(name)
    if user is None:
        raise UserNotFound(f"there is no user {name!r}")
    return user


def _role(state: "State", name: str) -> list[Permission]:
    permissions = state.auth.roles.get(name)
    if permissions is None:
        raise RoleNotFound(f"there is no role {name!r}")
    return permissions


def _done(state: "State", *keys: bytes, counts: bool = True) -> Answer:
    state.effects.append(state.auth.changed(*keys, counts=counts))
    state.is_guarded = state.auth.enabled
    return [OK, state.mvcc.revision]


_APPLIED: Final[dict[int, Callable[["State", Command], Answer]]] = {
    AUTH_ENABLE: _enable,
    AUTH_DISABLE: _disable,
    USER_ADD: _user_add,
    USER_DELETE: _user_delete,
    USER_CHANGE_PASSWORD: _change_password,
    USER_GRANT_ROLE: _grant_role,
    USER_REVOKE_ROLE: _revoke_role,
    ROLE_ADD: _role_add,
    ROLE_DELETE: _role_delete,
    ROLE_GRANT_PERMISSION: _grant_permission,
    ROLE_REVOKE_PERMISSION: _revoke_permission,
}


def _validated(handler: Callable[["State", Command], Answer]) -> Callable[["State", Command], Answer]:
    def apply(state: "State", command: Command) -> Answer:
        validate(command, state.cluster.settings)
        return handler(state, command)

    return apply


AUTH_HANDLERS: Final[dict[int, Callable[["State", Command], Answer]]] = {
    **{operation: _validated(handler) for operation, handler in _APPLIED.items()},
    ISSUE_TOKEN: _issue_token,
}

__all__ = ["AUTH_HANDLERS"]

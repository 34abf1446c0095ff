"""The verbs of users and roles as calls of etcd. Names and errors are the same; a password goes to etcd as it is, which hashes it."""

from typing import Any, Callable, Final

from raftkv.etcdclient.rpcs import AUTH, Program, Rpc
from raftkv.etcdpb import auth_pb2
from raftkv.etcdpb import rpc_pb2 as rpc
from raftkv.wire.commands import OK, Command
from raftkv.wire.users import (
    AUTH_DISABLE,
    AUTH_ENABLE,
    AUTH_LIST,
    AUTH_STATUS,
    LIST_USERS,
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


def _permission(kind: Any, key: bytes, range_end: bytes) -> Any:
    return auth_pb2.Permission(permType=kind, key=key, range_end=range_end)


_WRITES: Final[dict[int, tuple[str, Callable[..., Any]]]] = {
    AUTH_ENABLE: ("AuthEnable", lambda: rpc.AuthEnableRequest()),
    AUTH_DISABLE: ("AuthDisable", lambda: rpc.AuthDisableRequest()),
    USER_ADD: (
        "UserAdd",
        lambda name, password, none: rpc.AuthUserAddRequest(
            name=name, password=password, options=auth_pb2.UserAddOptions(no_password=none)
        ),
    ),
    USER_DELETE: ("UserDelete", lambda name: rpc.AuthUserDeleteRequest(name=name)),
    USER_CHANGE_PASSWORD: (
        "UserChangePassword",
        lambda name, password: rpc.AuthUserChangePasswordRequest(name=name, password=password),
    ),
    USER_GRANT_ROLE: ("UserGrantRole", lambda user, role: rpc.AuthUserGrantRoleRequest(user=user, role=role)),
    USER_REVOKE_ROLE: ("UserRevokeRole", lambda user, role: rpc.AuthUserRevokeRoleRequest(name=user, role=role)),
    ROLE_ADD: ("RoleAdd", lambda name: rpc.AuthRoleAddRequest(name=name)),
    ROLE_DELETE: ("RoleDelete", lambda name: rpc.AuthRoleDeleteRequest(role=name)),
    ROLE_GRANT_PERMISSION: (
        "RoleGrantPermission",
        lambda role, *permission: rpc.AuthRoleGrantPermissionRequest(name=role, perm=_permission(*permission)),
    ),
    ROLE_REVOKE_PERMISSION: (
        "RoleRevokePermission",
        lambda role, key, range_end: rpc.AuthRoleRevokePermissionRequest(role=role, key=key, range_end=range_end),
    ),
}


def _write(command: Command) -> Program:
    name, request = _WRITES[command[0]]
    response = yield Rpc(AUTH + name, request(*command[2:]), safe=False)
    return [OK, response.header.revision]


def _status(command: Command) -> Program:
    response = yield Rpc(AUTH + "AuthStatus", rpc.AuthStatusRequest(), safe=True)
    return [OK, response.header.revision, response.enabled, response.authRevision]


def _user(command: Command) -> Program:
    response = yield Rpc(AUTH + "UserGet", rpc.AuthUserGetRequest(name=command[2]), safe=True)
    return [OK, response.header.revision, list(response.roles)]


def _role(command: Command) -> Program:
    response = yield Rpc(AUTH + "RoleGet", rpc.AuthRoleGetRequest(role=command[2]), safe=True)
    permissions = [[one.permType, one.key, one.range_end] for one in response.perm]
    return [OK, response.header.revision, permissions]


def _list(command: Command) -> Program:
    if command[2] == LIST_USERS:
        users = yield Rpc(AUTH + "UserList", rpc.AuthUserListRequest(), safe=True)
        return [OK, users.header.revision, list(users.users)]
    roles = yield Rpc(AUTH + "RoleList", rpc.AuthRoleListRequest(), safe=True)
    return [OK, roles.header.revision, list(roles.roles)]


PROGRAMS: Final[dict[int, Callable[[Command], Program]]] = {
    **dict.fromkeys(_WRITES, _write),
    AUTH_STATUS: _status,
    USER_GET: _user,
    ROLE_GET: _role,
    AUTH_LIST: _list,
}

"""etcd's Auth service: each call as a command, and the answers as responses."""

from typing import Any

import pytest

from raftkv.etcd.auth import AUTH_METHODS, change_password_command, has_password, user_add_command
from raftkv.etcd.responses import Origin
from raftkv.etcdpb import rpc_pb2 as rpc
from raftkv.limits import DEFAULT_LIMITS
from raftkv.wire import users
from raftkv.wire.passwords import hash_password
from raftkv.wire.validate import validate

ORIGIN = Origin(1, 2, 3)
BY_NAME = {method.path.rpartition("/")[2]: method for method in AUTH_METHODS}
HASH = hash_password("secret", b"salt-of-16-bytes")


def permission(**fields: Any) -> rpc.AuthRoleGrantPermissionRequest:
    request = rpc.AuthRoleGrantPermissionRequest(name="r")
    request.perm.SetInParent()
    for name, value in fields.items():
        setattr(request.perm, name, value)
    return request


@pytest.mark.parametrize(
    ("name", "request_", "command"),
    [
        ("AuthDisable", rpc.AuthDisableRequest(), [users.AUTH_DISABLE, 0]),
        ("AuthStatus", rpc.AuthStatusRequest(), [users.AUTH_STATUS, 0]),
        ("UserGet", rpc.AuthUserGetRequest(name="u"), [users.USER_GET, 0, "u"]),
        ("UserList", rpc.AuthUserListRequest(), [users.AUTH_LIST, 0, users.LIST_USERS]),
        ("UserDelete", rpc.AuthUserDeleteRequest(name="u"), [users.USER_DELETE, 0, "u"]),
        ("UserGrantRole", rpc.AuthUserGrantRoleRequest(user="u", role="r"), [users.USER_GRANT_ROLE, 0, "u", "r"]),
        ("UserRevokeRole", rpc.AuthUserRevokeRoleRequest(name="u", role="r"), [users.USER_REVOKE_ROLE, 0, "u", "r"]),
        ("RoleAdd", rpc.AuthRoleAddRequest(name="r"), [users.ROLE_ADD, 0, "r"]),
        ("RoleGet", rpc.AuthRoleGetRequest(role="r"), [users.ROLE_GET, 0, "r"]),
        ("RoleList", rpc.AuthRoleListRequest(), [users.AUTH_LIST, 0, users.LIST_ROLES]),
        ("RoleDelete", rpc.AuthRoleDeleteRequest(role="r"), [users.ROLE_DELETE, 0, "r"]),
        (
            "RoleGrantPermission",
            permission(permType=2, key=b"a", range_end=b"b"),
            [users.ROLE_GRANT_PERMISSION, 0, "r", users.READWRITE, b"a", b"b"],
        ),
        ("RoleGrantPermission", permission(), [users.ROLE_GRANT_PERMISSION, 0, "r", users.READ, b"", b""]),
        (
            "RoleGrantPermission",
            rpc.AuthRoleGrantPermissionRequest(name="r"),
            [users.ROLE_GRANT_PERMISSION, 0, "r", None, b"", b""],
        ),
        (
            "RoleRevokePermission",
            rpc.AuthRoleRevokePermissionRequest(role="r", key=b"a", range_end=b"b"),
            [users.ROLE_REVOKE_PERMISSION, 0, "r", b"a", b"b"],
        ),
    ],
)
def test_commands(name: str, request_: Any, command: list[Any]) -> None:
    assert BY_NAME[name].command(request_) == command
    validate(command, DEFAULT_LIMITS)
    assert isinstance(request_, BY_NAME[name].request)


def test_new_users() -> None:
    request = rpc.AuthUserAddRequest(name="u", password="secret", hashedPassword="of the client, and not looked at")
    assert has_password(request)
    assert user_add_command(request, HASH) == [users.USER_ADD, 0, "u", HASH, False]
    request.options.no_password = True
    assert not has_password(request)
    assert user_add_command(request, "") == [users.USER_ADD, 0, "u", "", True]
    changed = change_password_command(rpc.AuthUserChangePasswordRequest(name="u", password="x"), HASH)
    assert changed == [users.USER_CHANGE_PASSWORD, 0, "u", HASH]
    for command in (user_add_command(request, ""), changed):
        validate(command, DEFAULT_LIMITS)


def respond(name: str, answer: list[Any]) -> Any:
    method = BY_NAME[name]
    made = method.response(method.request(), answer, ORIGIN)
    assert isinstance(made, method.answered_by)
    response: Any = made
    assert response.header.revision == 7
    assert response.header.cluster_id == 1
    return response


def test_responses() -> None:
    for name in ("AuthDisable", "UserDelete", "RoleAdd", "RoleGrantPermission"):
        respond(name, [0, 7])
    status = respond("AuthStatus", [0, 7, True, 5])
    assert (status.enabled, status.authRevision) == (True, 5)
    assert respond("UserGet", [0, 7, ["a", "b"]]).roles == ["a", "b"]
    assert respond("UserList", [0, 7, ["u"]]).users == ["u"]
    assert respond("RoleList", [0, 7, ["r"]]).roles == ["r"]
    perm = respond("RoleGet", [0, 7, [[1, b"a", b""], [2, b"b", b"\0"]]]).perm
    assert [(one.permType, one.key, one.range_end) for one in perm] == [(1, b"a", b""), (2, b"b", b"\0")]

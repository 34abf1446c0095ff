"""etcd's Auth service: those of its calls that are one command, in both directions; and the parts of the others.

UserAdd and UserChangePassword carry a password in clear, Authenticate makes a token, and AuthEnable asks how the peers talk: these four
need the member (daemon/etcd/auth.py).
"""

from typing import Any, Final

from raftkv.etcd.methods import Method
from raftkv.etcd.responses import Origin, header
from raftkv.etcdpb import rpc_pb2 as rpc
from raftkv.wire.commands import Answer, Command
from raftkv.wire.users import (
    AUTH_DISABLE,
    AUTH_LIST,
    AUTH_STATUS,
    LIST_ROLES,
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

_NO_SEQUENCE: Final = 0
_NO_FLAGS: Final = 0


def has_password(request: rpc.AuthUserAddRequest) -> bool:
    """Whether the new user is to have one, an empty one perhaps. A hash that the client made is not looked at, as in etcd."""
    return not request.options.no_password


def user_add_command(request: rpc.AuthUserAddRequest, password_hash: str) -> Command:
    return [USER_ADD, _NO_SEQUENCE, request.name, password_hash, not has_password(request)]


def change_password_command(request: rpc.AuthUserChangePasswordRequest, password_hash: str) -> Command:
    return [USER_CHANGE_PASSWORD, _NO_SEQUENCE, request.name, password_hash]


def grant_permission_command(request: rpc.AuthRoleGrantPermissionRequest) -> Command:
    kind = int(request.perm.permType) if request.HasField("perm") else None
    return [
        ROLE_GRANT_PERMISSION,
        _NO_SEQUENCE,
        request.name,
        kind,
        request.perm.key,
        request.perm.range_end,
    ]


def status_response(request: rpc.AuthStatusRequest, answer: Answer, origin: Origin) -> rpc.AuthStatusResponse:
    _, revision, enabled, auth_revision = answer
    return rpc.AuthStatusResponse(header=header(origin, revision), enabled=enabled, authRevision=auth_revision)


def user_get_response(request: rpc.AuthUserGetRequest, answer: Answer, origin: Origin) -> rpc.AuthUserGetResponse:
    return rpc.AuthUserGetResponse(header=header(origin, answer[1]), roles=answer[2])


def user_list_response(request: rpc.AuthUserListRequest, answer: Answer, origin: Origin) -> rpc.AuthUserListResponse:
    return rpc.AuthUserListResponse(header=header(origin, answer[1]), users=answer[2])


def role_list_response(request: rpc.AuthRoleListRequest, answer: Answer, origin: Origin) -> rpc.AuthRoleListResponse:
    return rpc.AuthRoleListResponse(header=header(origin, answer[1]), roles=answer[2])


def role_get_response(request: rpc.AuthRoleGetRequest, answer: Answer, origin: Origin) -> rpc.AuthRoleGetResponse:
    response = rpc.AuthRoleGetResponse(header=header(origin, answer[1]))
    for kind, key, range_end in answer[2]:
        response.perm.add(key=key, range_end=range_end).permType = kind
    return response


def _method(name: str, gateway: str, command: Any, response: Any = None) -> Method:
    """Most of them answer with a header and nothing else."""
    request_class = getattr(rpc, f"{name}Request")
    response_class = getattr(rpc, f"{name}Response")
    if response is None:

        def response(request: Any, answer: Answer, origin: Origin) -> Any:
            return response_class(header=header(origin, answer[1]))

    return Method(
        f"/etcdserverpb.Auth/{name.removeprefix('Auth') if name[4:8] in ('User', 'Role') else name}",
        (f"/auth/{gateway}",),
        request_class,
        response_class,
        command,
        response,
    )


AUTH_METHODS: Final[tuple[Method, ...]] = (
    _method("AuthDisable", "disable", lambda request: [AUTH_DISABLE, _NO_SEQUENCE]),
    _method("AuthStatus", "status", lambda request: [AUTH_STATUS, _NO_FLAGS], status_response),
    _method("AuthUserGet", "user/get", lambda request: [USER_GET, _NO_FLAGS, request.name], user_get_response),
    _method("AuthUserList", "user/list", lambda request: [AUTH_LIST, _NO_FLAGS, LIST_USERS], user_list_response),
    _method("AuthUserDelete", "user/delete", lambda request: [USER_DELETE, _NO_SEQUENCE, request.name]),
    _method(
        "AuthUserGrantRole",
        "user/grant",
        lambda request: [USER_GRANT_ROLE, _NO_SEQUENCE, request.user, request.role],
    ),
    _method(
        "AuthUserRevokeRole",
        "user/revoke",
        lambda request: [USER_REVOKE_ROLE, _NO_SEQUENCE, request.name, request.role],
    ),
    _method("AuthRoleAdd", "role/add", lambda request: [ROLE_ADD, _NO_SEQUENCE, request.name]),
    _method("AuthRoleGet", "role/get", lambda request: [ROLE_GET, _NO_FLAGS, request.role], role_get_response),
    _method("AuthRoleList", "role/list", lambda request: [AUTH_LIST, _NO_FLAGS, LIST_ROLES], role_list_response),
    _method("AuthRoleDelete", "role/delete", lambda request: [ROLE_DELETE, _NO_SEQUENCE, request.role]),
    _method("AuthRoleGrantPermission", "role/grant", grant_permission_command),
    _method(
        "AuthRoleRevokePermission",
        "role/revoke",
        lambda request: [ROLE_REVOKE_PERMISSION, _NO_SEQUENCE, request.role, request.key, request.range_end],
    ),
)

"""etcd's Auth service: the four calls that are more than a command. The others are in raftkv/etcd/auth.py.

Who may not do it is told so before a password is hashed: hashing is dear on purpose.
"""

from typing import Any, Final

from raftkv.daemon.etcd.asking import permit
from raftkv.daemon.etcd.calls import Call, Procedure
from raftkv.daemon.etcd.house import House
from raftkv.daemon.etcd.tasks import answered_by
from raftkv.etcd.auth import change_password_command, has_password, user_add_command
from raftkv.etcd.responses import header
from raftkv.etcdpb import rpc_pb2 as rpc
from raftkv.wire.users import AUTH_ENABLE, USER_ADD, USER_CHANGE_PASSWORD


async def enable(house: House, call: Call, request: rpc.AuthEnableRequest) -> rpc.AuthEnableResponse:
    """Only where members authenticate each other (docs/auth.md)."""
    house.member.authenticator.check_peers()
    answer = await house.ask([AUTH_ENABLE, 0], call.caller, call.timeout_ms)
    return rpc.AuthEnableResponse(header=header(house.origin(), answer[1]))


async def authenticate(house: House, call: Call, request: rpc.AuthenticateRequest) -> rpc.AuthenticateResponse:
    """A token, good on every member."""
    token = await house.member.authenticator.authenticate(request.name, request.password)
    return rpc.AuthenticateResponse(header=header(house.origin(), house.view.revision), token=token)


async def user_add(house: House, call: Call, request: rpc.AuthUserAddRequest) -> rpc.AuthUserAddResponse:
    permit(house, [USER_ADD], call.caller)
    password_hash = ""
    if has_password(request):
        password_hash = await house.member.authenticator.hash_password(request.password)
    answer = await house.ask(user_add_command(request, password_hash), call.caller, call.timeout_ms)
    return rpc.AuthUserAddResponse(header=header(house.origin(), answer[1]))


async def change_password(
    house: House, call: Call, request: rpc.AuthUserChangePasswordRequest
) -> rpc.AuthUserChangePasswordResponse:
    """Ends the logins and tokens of that user."""
    permit(house, [USER_CHANGE_PASSWORD], call.caller)
    password_hash = await house.member.authenticator.hash_password(request.password)
    answer = await house.ask(change_password_command(request, password_hash), call.caller, call.timeout_ms)
    return rpc.AuthUserChangePasswordResponse(header=header(house.origin(), answer[1]))


def _procedure(name: str, gateway: str, request: Any, response: Any, answer: Any) -> Procedure:
    return Procedure(f"/etcdserverpb.Auth/{name}", (f"/auth/{gateway}",), request, response, answered_by(answer))


PROCEDURES: Final = (
    _procedure("AuthEnable", "enable", rpc.AuthEnableRequest, rpc.AuthEnableResponse, enable),
    _procedure("Authenticate", "authenticate", rpc.AuthenticateRequest, rpc.AuthenticateResponse, authenticate),
    _procedure("UserAdd", "user/add", rpc.AuthUserAddRequest, rpc.AuthUserAddResponse, user_add),
    _procedure(
        "UserChangePassword",
        "user/changepw",
        rpc.AuthUserChangePasswordRequest,
        rpc.AuthUserChangePasswordResponse,
        change_password,
    ),
)

"""Who asks over plain HTTP: `Authorization: Basic ...`, or a token as etcd's JSON gateway gives them out.

A page says which request of the native protocol it is like, and is judged as that one.
"""

import asyncio
from base64 import b64decode
from typing import Awaitable, Callable, TypeAlias

from raftkv.daemon.authn import Authenticator
from raftkv.errors import AuthNotEnabled, InvalidAuthToken, RaftKVError
from raftkv.replica.service import Service
from raftkv.wire.commands import Command
from raftkv.wire.identity import ANYBODY, Caller

Judge: TypeAlias = Callable[[Command, str | None, str], Awaitable[RaftKVError | None]]
"""Why whoever sent this Authorization header, over a connection with a certificate of this name ("": none), may not do what is like this command; None if it may."""


def make_judge(authenticator: Authenticator, service: Service) -> Judge:
    """The judge of a member's pages."""

    async def judge(command: Command, authorization: str | None, certificate_name: str) -> RaftKVError | None:
        if not service.access.is_on:
            return None
        try:
            if authorization is None and certificate_name:
                caller = authenticator.caller_of_certificate(certificate_name)
            else:
                caller = await caller_of(authenticator, authorization)
            service.access.check(command, *caller)
        except RaftKVError as error:
            return error
        return None

    return judge


async def caller_of(authenticator: Authenticator, authorization: str | None) -> Caller:
    """Raises RaftKVError for a login or a token that is refused."""
    scheme, _, rest = (authorization or "").strip().partition(" ")
    if scheme.lower() == "basic":
        try:
            name, _, password = b64decode(rest.strip(), validate=True).decode().partition(":")
        except ValueError:
            raise InvalidAuthToken("the Authorization header is not Basic with a name and a password") from None
        try:
            return await authenticator.log_in(name, password)
        except AuthNotEnabled:
            return ANYBODY
    token = rest.strip() if scheme.lower() == "bearer" else authorization
    found: asyncio.Future[Caller] = asyncio.get_running_loop().create_future()

    def done(result: Caller | RaftKVError) -> None:
        if found.done():
            return
        if isinstance(result, RaftKVError):
            found.set_exception(result)
        else:
            found.set_result(result)

    authenticator.look_up(token, done)
    return await found


__all__ = ["Judge", "caller_of", "make_judge"]

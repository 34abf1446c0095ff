"""What procedures ask of the member besides commands: a control of its own (raftkv/daemon/api/controls.py), a change of the membership, a barrier."""

import asyncio
from typing import Any, Final, Mapping

from raftkv.daemon.api.controls import receive_control
from raftkv.daemon.etcd.calls import Call
from raftkv.daemon.etcd.house import House
from raftkv.daemon.etcd.identity import Caller
from raftkv.errors import MembershipBusy, NotLeader, RaftKVError
from raftkv.wire.commands import FAILED, GET, Answer, Command, error_of
from raftkv.wire.identity import MEMBER_USER
from raftkv.wire.protocol import CHANGE_MEMBERS

AGAIN_SECONDS: Final = 0.1
_NO_KEY_IN_PARTICULAR: Final = b"\0"


async def control(house: House, command: Command, caller: Caller) -> Answer:
    """Have this member do something itself. Returns an answer that is no failure; raises RaftKVError."""
    answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def done(answer: Answer) -> None:
        if not answered.done():
            answered.set_result(answer)

    receive_control(house.member, house.service, command, house.request_timeout_ms, done, caller)
    house.member.schedule_pump()
    answer = await answered
    if answer[0] == FAILED:
        raise error_of(answer)
    return answer


def permit(house: House, command: Command, caller: Caller) -> None:
    """Who may ask for this may go on. Raises RaftKVError."""
    house.service.access.check(command, *caller)


async def barrier(house: House, timeout_ms: int = 0) -> None:
    """This member has applied everything that was acknowledged before. Raises RaftKVError."""
    await house.ask([GET, 0, _NO_KEY_IN_PARTICULAR], Caller(MEMBER_USER, 0), timeout_ms)


async def insist(house: House, command: Command, caller: Caller) -> Answer:
    """Have a command carried out that may be done twice without harm, and ask again when nobody knows whether it was.

    For as long as a request may take; raises RaftKVError then.
    """
    loop = asyncio.get_running_loop()
    ends = loop.time() + house.request_timeout_ms / 1000
    while True:
        left_ms = max(1, int((ends - loop.time()) * 1000))
        try:
            return await house.ask(command, caller, left_ms)
        except RaftKVError as error:
            if not house.parking.takes(error, harmless_twice=True) or loop.time() + AGAIN_SECONDS >= ends:
                raise
        await asyncio.sleep(AGAIN_SECONDS)


async def change_members(
    house: House, call: Call, mapping: Mapping[str, Any], done_if: type[RaftKVError]
) -> Mapping[str, Any] | None:
    """Carry the change to the leader, whoever that is: one that is to go hands over first, and the next one is asked.

    Asked again is what surely was not done, and what may have been: then the refusal `done_if` says that it was, and the answer is None.
    Raises RaftKVError.
    """
    loop = asyncio.get_running_loop()
    ends = loop.time() + house.timeout_ms(call.timeout_ms) / 1000
    unknown: RaftKVError | None = None
    while True:
        left_ms = max(1, int((ends - loop.time()) * 1000))
        try:
            answer = await house.ask([CHANGE_MEMBERS, mapping], call.caller, left_ms)
        except RaftKVError as error:
            if unknown is not None and isinstance(error, done_if):
                await barrier(house, left_ms)
                return None
            if error.may_have_happened:
                unknown = error
            elif unknown is None and not isinstance(error, NotLeader | MembershipBusy):
                raise
            if loop.time() + AGAIN_SECONDS >= ends:
                raise unknown or error from None
        else:
            changed: Mapping[str, Any] = answer[1]
            return changed
        await asyncio.sleep(AGAIN_SECONDS)

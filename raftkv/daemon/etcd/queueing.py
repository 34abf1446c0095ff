"""A place in the queue under a name: taken, waited in, and given up when its owner goes away. For locks and elections.

Whoever waits survives the loss of a leader: what may be done twice is asked again, watches begin anew where they were. Only when no
leader is found for as long as a request may take does the wait end. Then, and when the client is gone, the place is given up in the
background, so that nobody stands in the way who does not know of it; if that fails too, the lease ends it.
"""

import asyncio
import logging
from typing import Any, Awaitable, Callable, Final, TypeVar

from raftkv.daemon.etcd.asking import insist
from raftkv.daemon.etcd.calls import Call, Refused
from raftkv.daemon.etcd.house import House
from raftkv.daemon.etcd.identity import Caller
from raftkv.daemon.etcd.listening import Interrupted, Listener
from raftkv.errors import RaftKVError, ShuttingDown
from raftkv.etcd import recipes
from raftkv.etcd.recipes import Place
from raftkv.etcd.statuses import UNKNOWN, Status, status_of
from raftkv.units import Revision
from raftkv.wire.commands import DELETE_RANGE, Answer, Command
from raftkv.wire.watching import NO_PUT

logger = logging.getLogger(__name__)

AGAIN_SECONDS: Final = 0.1

_Response = TypeVar("_Response")


def in_plain_words(
    answer: Callable[[House, Call, Any], Awaitable[_Response]],
) -> Callable[[House, Call, Any], Awaitable[_Response]]:
    """Errors of these services have number 2 and their text, as etcd's have, which come through a client inside the server."""

    async def answered(house: House, call: Call, request: Any) -> _Response:
        try:
            return await answer(house, call, request)
        except RaftKVError as error:
            raise Refused(UNKNOWN, status_of(error).text) from error

    return answered


async def lease_or_own(house: House, caller: Caller, lease: int) -> int:
    """The lease that was brought, or one of its own for who brings none. Nobody keeps that one alive."""
    if lease:
        return lease
    granted: int = (await house.ask(recipes.grant_command(), caller))[2]
    return granted


async def enter(house: House, caller: Caller, name: bytes, lease: int, value: bytes) -> Place:
    """Take a place under the name, or find it. Raises RaftKVError; then there is no place, or soon none any more."""
    asked = asyncio.get_running_loop().create_task(insist(house, recipes.enter_command(name, lease, value), caller))
    try:
        return recipes.entered(name, lease, value, await asyncio.shield(asked))
    except asyncio.CancelledError:
        _in_background(house, _leave_when_entered(house, caller, name, lease, asked))
        raise
    except RaftKVError as error:
        if error.may_have_happened:
            _in_background(house, insist(house, _unguarded(name, lease), caller))
        raise


def give_up(house: House, caller: Caller, place: Place) -> None:
    """Its owner is gone, or does not know of it."""
    _in_background(house, insist(house, recipes.leave_command(place.key, place.revision), caller))


async def wait_turn(house: House, caller: Caller, name: bytes, place: Place, lost: Status) -> Revision:
    """Until nobody is in front; the store's revision then. Raises Refused with `lost` when the place is, RaftKVError.

    Whatever this raises, the place is given up.
    """
    if place.is_first:
        return place.store_revision
    try:
        while True:
            answer = await insist(house, recipes.ahead_command(name, place.revision), caller)
            ahead = recipes.first_of(answer)
            if ahead is None:
                return await _check_held(house, caller, place, lost)
            try:
                await _wait_for_end(house, caller, ahead[0], place, answer[1], lost)
            except Interrupted as interrupted:
                if isinstance(interrupted.error, ShuttingDown):
                    raise interrupted.error from None
                await asyncio.sleep(AGAIN_SECONDS)  # this member is cut off, or behind: `insist` finds out for how long
    except BaseException:
        give_up(house, caller, place)
        raise


async def _wait_for_end(
    house: House, caller: Caller, ahead: bytes, place: Place, revision: Revision, lost: Status
) -> None:
    """Until the one in front is gone, or the own place. What was deleted since the look at `revision` is heard, too."""
    async with Listener(house, caller) as listener:
        listener.listen(ahead, b"", revision + 1, NO_PUT)
        listener.listen(place.key, b"", revision + 1, NO_PUT)
        events = await listener.events()
    if any(key_value[0] == place.key for _, key_value, _ in events):
        raise Refused(*lost)


async def _check_held(house: House, caller: Caller, place: Place, lost: Status) -> Revision:
    """The lease may have ended while its owner waited. The store's revision."""
    answer = await insist(house, recipes.own_command(place.key), caller)
    own = recipes.first_of(answer)
    if own is None or own[1] != place.revision:
        raise Refused(*lost)
    revision: Revision = answer[1]
    return revision


async def _leave_when_entered(
    house: House, caller: Caller, name: bytes, lease: int, asked: "asyncio.Task[Answer]"
) -> None:
    try:
        place = recipes.entered(name, lease, b"", await asked)
        command = recipes.leave_command(place.key, place.revision)
    except RaftKVError as error:
        if not error.may_have_happened:
            return
        command = _unguarded(name, lease)
    await insist(house, command, caller)


def _unguarded(name: bytes, lease: int) -> Command:
    """Whoever has a place with this lease under this name: it cannot be somebody else's."""
    return [DELETE_RANGE, 0, recipes.key_of(name, lease), b"", 0]


def _in_background(house: House, work: Any) -> None:
    """Done for nobody who waits: what fails is told in the log, and mended by the end of the lease."""
    task = asyncio.get_running_loop().create_task(work)
    house.chores.add(task)
    task.add_done_callback(lambda done: _on_chore_done(house, done))


def _on_chore_done(house: House, task: "asyncio.Task[Any]") -> None:
    house.chores.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.warning("a place in a queue was not given up, its lease will end it: %s", error)

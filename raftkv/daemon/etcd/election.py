"""etcd's election service: the election recipe, run by the member for who cannot run it (queueing.py)."""

import asyncio
from contextlib import aclosing
from typing import Any, AsyncGenerator, Final

from raftkv.daemon.etcd.asking import insist
from raftkv.daemon.etcd.calls import Call, Procedure, Refused
from raftkv.daemon.etcd.house import House
from raftkv.daemon.etcd.listening import Interrupted, Listener
from raftkv.daemon.etcd.queueing import AGAIN_SECONDS, enter, give_up, in_plain_words, lease_or_own, wait_turn
from raftkv.daemon.etcd.tasks import answered_by, streamed_by
from raftkv.errors import PermissionDenied, RaftKVError, ShuttingDown
from raftkv.etcd import recipes
from raftkv.etcd.responses import header
from raftkv.etcd.statuses import UNKNOWN, status_of
from raftkv.etcdpb import election_pb2 as pb
from raftkv.store.records import PUT_EVENT
from raftkv.units import Revision
from raftkv.wire.commands import KeyValueItems, prefix_range_end


@in_plain_words
async def campaign(house: House, call: Call, request: pb.CampaignRequest) -> pb.CampaignResponse:
    """Answered once it is elected. Who campaigns again with another value proclaims it."""
    lease = await lease_or_own(house, call.caller, request.lease)
    place = await enter(house, call.caller, request.name, lease, request.value)
    if place.value != request.value:
        try:
            command = recipes.proclaim_command(place.key, place.revision, request.value, lease)
            answer = await insist(house, command, call.caller)
            if not answer[2]:
                raise Refused(*recipes.NOT_LEADER)
        except BaseException:
            give_up(house, call.caller, place)
            raise
    await wait_turn(house, call.caller, request.name, place, recipes.NOT_LEADER)
    response = pb.CampaignResponse(leader=recipes.leader_key(request.name, place, lease))
    response.header.CopyFrom(header(house.origin(), place.store_revision))  # as in etcd: of when it came
    return response


@in_plain_words
async def proclaim(house: House, call: Call, request: pb.ProclaimRequest) -> pb.ProclaimResponse:
    """Another value, by who is elected."""
    leader = _leader_of(request)
    lease = await lease_or_own(house, call.caller, leader.lease)
    command = recipes.proclaim_command(leader.key, leader.rev, request.value, lease)
    answer = await house.ask(command, call.caller)
    if not answer[2]:
        raise Refused(*recipes.NOT_LEADER)
    response = pb.ProclaimResponse()
    response.header.CopyFrom(header(house.origin(), answer[1]))
    return response


@in_plain_words
async def resign(house: House, call: Call, request: pb.ResignRequest) -> pb.ResignResponse:
    """Also by who is not elected any more."""
    leader = _leader_of(request)
    answer = await insist(house, recipes.leave_command(leader.key, leader.rev), call.caller)
    response = pb.ResignResponse()
    response.header.CopyFrom(header(house.origin(), answer[1]))
    return response


@in_plain_words
async def leader(house: House, call: Call, request: pb.LeaderRequest) -> pb.LeaderResponse:
    answer = await insist(house, recipes.oldest_command(request.name), call.caller)
    found = recipes.first_of(answer)
    if found is None:
        raise Refused(*recipes.NO_LEADER)
    return recipes.leader_response(found, house.origin(), answer[1])


async def observe(house: House, call: Call, request: pb.LeaderRequest) -> AsyncGenerator[pb.LeaderResponse, None]:
    """Who is elected, each value that it proclaims, and then the next one; it waits while there is none."""
    told = (0, 0)  # the reign and the revision of its last word
    while True:
        try:
            async with aclosing(_reign(house, call, request.name)) as words:
                async for items, revision in words:
                    if items[1] != told[0] or items[2] > told[1]:  # a reign may be looked at again after trouble
                        told = (items[1], items[2])
                        yield recipes.leader_response(items, house.origin(), revision)
        except RaftKVError as error:
            raise Refused(UNKNOWN, status_of(error).text) from error
        except Interrupted as interrupted:
            if isinstance(interrupted.error, ShuttingDown | PermissionDenied):
                raise Refused(UNKNOWN, status_of(interrupted.error).text) from None
            await asyncio.sleep(
                AGAIN_SECONDS
            )  # `insist` finds out for how long; what was compacted meanwhile is not told


async def _reign(house: House, call: Call, name: bytes) -> AsyncGenerator[tuple[KeyValueItems, Revision], None]:
    """The key-values of one elected, from now or from its election on, until it is gone; each with a revision for the header."""
    prefix = recipes.prefix_of(name)
    answer = await insist(house, recipes.oldest_command(name), call.caller)
    revision: Revision = answer[1]
    elected = recipes.first_of(answer)
    if elected is None:
        async with Listener(house, call.caller) as listener:
            listener.listen(prefix, prefix_range_end(prefix), revision + 1)
            while elected is None:
                events = await listener.events()
                elected = next((items for kind, items, _ in events if kind == PUT_EVENT), None)
        revision = elected[2]
    yield elected, revision
    async with Listener(house, call.caller) as listener:
        listener.listen(elected[0], b"", revision + 1)
        while True:
            for kind, items, _ in await listener.events():
                if kind != PUT_EVENT:
                    return
                yield items, items[2]


def _leader_of(request: Any) -> pb.LeaderKey:
    """Raises Refused when the request names none."""
    if not request.HasField("leader"):
        raise Refused(*recipes.LEADER_MISSING)
    key: pb.LeaderKey = request.leader
    return key


def _procedure(name: str, request: Any, response: Any, opened: Any, *, streams: bool = False) -> Procedure:
    path = f"/v3electionpb.Election/{name}"
    return Procedure(path, (f"/election/{name.lower()}",), request, response, opened, server_streaming=streams)


PROCEDURES: Final = (
    _procedure("Campaign", pb.CampaignRequest, pb.CampaignResponse, answered_by(campaign)),
    _procedure("Proclaim", pb.ProclaimRequest, pb.ProclaimResponse, answered_by(proclaim)),
    _procedure("Leader", pb.LeaderRequest, pb.LeaderResponse, answered_by(leader)),
    _procedure("Observe", pb.LeaderRequest, pb.LeaderResponse, streamed_by(observe), streams=True),
    _procedure("Resign", pb.ResignRequest, pb.ResignResponse, answered_by(resign)),
)

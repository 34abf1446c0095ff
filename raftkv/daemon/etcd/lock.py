"""etcd's lock service: the lock recipe, run by the member for who cannot run it (queueing.py)."""

from typing import Final

from raftkv.daemon.etcd.asking import insist
from raftkv.daemon.etcd.calls import Call, Procedure
from raftkv.daemon.etcd.house import House
from raftkv.daemon.etcd.queueing import enter, in_plain_words, lease_or_own, wait_turn
from raftkv.daemon.etcd.tasks import answered_by
from raftkv.etcd import recipes
from raftkv.etcd.responses import header
from raftkv.etcdpb import lock_pb2 as pb
from raftkv.wire.commands import DELETE_RANGE


@in_plain_words
async def lock(house: House, call: Call, request: pb.LockRequest) -> pb.LockResponse:
    """Answered once the lock is held. A caller that goes away meanwhile gives up its place."""
    lease = await lease_or_own(house, call.caller, request.lease)
    place = await enter(house, call.caller, request.name, lease, b"")
    revision = await wait_turn(house, call.caller, request.name, place, recipes.SESSION_EXPIRED)
    return recipes.lock_response(place.key, house.origin(), revision)


@in_plain_words
async def unlock(house: House, call: Call, request: pb.UnlockRequest) -> pb.UnlockResponse:
    """Also of a key that is not there."""
    answer = await insist(house, [DELETE_RANGE, 0, request.key, b"", 0], call.caller)
    response = pb.UnlockResponse()
    response.header.CopyFrom(header(house.origin(), answer[1]))
    return response


PROCEDURES: Final = (
    Procedure("/v3lockpb.Lock/Lock", ("/lock/lock",), pb.LockRequest, pb.LockResponse, answered_by(lock)),
    Procedure("/v3lockpb.Lock/Unlock", ("/lock/unlock",), pb.UnlockRequest, pb.UnlockResponse, answered_by(unlock)),
)

"""etcd's Cluster service. A change is carried out by the leader, through whichever member it is asked for (asking.py)."""

from typing import Any, Final

from raftkv.daemon.etcd.asking import barrier, change_members, permit
from raftkv.daemon.etcd.calls import Call, Procedure, Refused
from raftkv.daemon.etcd.house import House
from raftkv.daemon.etcd.tasks import answered_by
from raftkv.errors import Internal, MemberNotFound, NotALearner, PeerAddressTaken, RaftKVError
from raftkv.etcd import cluster
from raftkv.etcdpb import rpc_pb2 as rpc
from raftkv.wire.protocol import CHANGE_MEMBERS, MEMBERS


async def member_add(house: House, call: Call, request: rpc.MemberAddRequest) -> rpc.MemberAddResponse:
    """Somebody who is known by a peer URL, until a member starts there."""
    address = _address(request.peerURLs)
    permit(house, [CHANGE_MEMBERS, {}], call.caller)
    if request.isLearner:
        await barrier(house)
        learners = sum(member.is_learner for member in house.view.member_facts())
        if learners >= cluster.LEARNERS_MAX:
            raise Refused(*cluster.TOO_MANY_LEARNERS)
    members = await _change(house, call, cluster.add_mapping(address, is_learner=request.isLearner), PeerAddressTaken)
    added = next(member for member in members if cluster.peer_address(member.peerURLs) == address)
    return rpc.MemberAddResponse(header=_header(house), member=added, members=members)


async def member_remove(house: House, call: Call, request: rpc.MemberRemoveRequest) -> rpc.MemberRemoveResponse:
    members = await _change(house, call, {"remove": [str(request.ID)]}, MemberNotFound)
    return rpc.MemberRemoveResponse(header=_header(house), members=members)


async def member_update(house: House, call: Call, request: rpc.MemberUpdateRequest) -> rpc.MemberUpdateResponse:
    """Where a member is to be looked for; one that runs says itself where it is, and is believed."""
    mapping = {"move": [[str(request.ID), _address(request.peerURLs)]]}
    members = await _change(house, call, mapping, Internal)  # doing it again tells the same as having done it
    return rpc.MemberUpdateResponse(header=_header(house), members=members)


async def member_promote(house: House, call: Call, request: rpc.MemberPromoteRequest) -> rpc.MemberPromoteResponse:
    members = await _change(house, call, {"promote": [str(request.ID)]}, NotALearner)
    return rpc.MemberPromoteResponse(header=_header(house), members=members)


async def _change(house: House, call: Call, mapping: Any, done_if: type[RaftKVError]) -> list[rpc.Member]:
    """The members after it."""
    answer = await change_members(house, call, mapping, done_if)
    if answer is None:
        return cluster.members(house.view.member_facts(), house.view)
    return cluster.changed_members(answer, house.view)


async def member_list(house: House, call: Call, request: rpc.MemberListRequest) -> rpc.MemberListResponse:
    permit(house, [MEMBERS], call.caller)
    if request.linearizable:
        await barrier(house, call.timeout_ms)
    members = cluster.members(house.view.member_facts(), house.view)
    return rpc.MemberListResponse(header=_header(house), members=members)


def _address(urls: Any) -> str:
    """Raises Refused for what is not the URL of one peer."""
    address = cluster.peer_address(urls)
    if address is None:
        raise Refused(*cluster.INVALID_URLS)
    return address


def _header(house: House) -> rpc.ResponseHeader:
    return cluster.cluster_header(house.origin())


def _procedure(name: str, gateway: str, request: Any, response: Any, answer: Any) -> Procedure:
    path = f"/etcdserverpb.Cluster/{name}"
    return Procedure(path, (f"/cluster/member/{gateway}",), request, response, answered_by(answer))


PROCEDURES: Final = (
    _procedure("MemberAdd", "add", rpc.MemberAddRequest, rpc.MemberAddResponse, member_add),
    _procedure("MemberRemove", "remove", rpc.MemberRemoveRequest, rpc.MemberRemoveResponse, member_remove),
    _procedure("MemberUpdate", "update", rpc.MemberUpdateRequest, rpc.MemberUpdateResponse, member_update),
    _procedure("MemberList", "list", rpc.MemberListRequest, rpc.MemberListResponse, member_list),
    _procedure("MemberPromote", "promote", rpc.MemberPromoteRequest, rpc.MemberPromoteResponse, member_promote),
)

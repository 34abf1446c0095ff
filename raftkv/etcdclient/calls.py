"""Every other command as a program: reads, leases, members, users. What etcd has not is refused here, with the reason.

`program` is the one way in. docs/etcd-engine.md has the table of what is there, and how.
"""

from time import monotonic
from typing import Any, Callable, Final

from raftkv.errors import Compacted, LeaseExists, LeaseNotFound, MemberNotFound, TransferRefused, Unsupported
from raftkv.etcdclient import rpcs, users
from raftkv.etcdclient.course import Uncertain
from raftkv.etcdclient.marks import Sessions, draw_lease_id, is_session
from raftkv.etcdclient.messages import kv_items, range_items, range_request, read
from raftkv.etcdclient.rpcs import Program, Rpc, Steps
from raftkv.etcdclient.writes import is_write_of_keys, write
from raftkv.etcdpb import rpc_pb2 as rpc
from raftkv.wire.commands import (
    COMPACT,
    GET,
    LEASE_GRANT,
    LEASE_REVOKE,
    LEASE_TTL,
    LEASES,
    OK,
    RANGE,
    READ_TXN,
    SERIALIZABLE,
    TXN,
    WITH_KEYS,
    Command,
)
from raftkv.wire.pools import POOL_READS, POOL_WRITES
from raftkv.wire.protocol import (
    BACKUP_OPEN,
    CHANGE_MEMBERS,
    DEFRAGMENT,
    KEEP_ALIVE,
    MEMBERS,
    MOVE_LEADER,
    PING,
    STATUS,
)

NO_POOLS: Final = "pools are scheduled inside raftkv's own state machine, by its replicated clock: an etcd cluster has neither; use a raftkv cluster"


def program(sessions: Sessions | None, command: Command, address: str, draw: Callable[[], float]) -> Program:
    """How to do a command. `address`: of the member that is meant, for those that go to one. Raises Unsupported."""
    if is_write_of_keys(command):
        return write(sessions, command, draw)
    kind = command[0]
    if kind == READ_TXN:
        return write(None, [TXN, 0, *command[2:]], draw)
    if kind in POOL_WRITES or kind in POOL_READS:
        raise Unsupported(NO_POOLS)
    if kind in (STATUS, DEFRAGMENT):
        return (_status if kind == STATUS else _defragment)(address)
    made = _PROGRAMS.get(kind) or users.PROGRAMS.get(kind)
    if made is None:
        what = (
            "a backup is made with `etcdctl snapshot save`"
            if kind == BACKUP_OPEN
            else "it is a command of raftkv alone"
        )
        raise Unsupported(f"not on an etcd cluster: {what}")
    return made(command)


# Reads.


def _get(command: Command) -> Program:
    response = yield read(rpc.RangeRequest(key=command[2], serializable=bool(command[1] & SERIALIZABLE)))
    return [OK, response.header.revision, kv_items(response.kvs[0]) if response.kvs else None]


def _range(command: Command) -> Program:
    response = yield read(range_request(command))
    return [OK, *range_items(response, response.header.revision)]


def _ping(command: Command) -> Program:
    yield Rpc(rpcs.STATUS, rpc.StatusRequest(), safe=True, leaderless=True)
    return [OK]


def _compact(command: Command) -> Program:
    request = rpc.CompactionRequest(revision=command[2])
    again = False
    while True:
        try:
            response = yield Rpc(rpcs.COMPACT, request, safe=False)
            return [OK, response.header.revision]
        except Uncertain:
            again = True
        except Compacted:
            if not again:
                raise
            response = yield read(rpc.RangeRequest(key=b"\0", limit=1))
            return [OK, response.header.revision]


# Leases.


def _lease_grant(command: Command) -> Program:
    """The number is drawn here, so that a second attempt finds what the first one did. etcd counts in seconds."""
    _, _, wanted, ttl_ms = command
    lease_id = wanted or draw_lease_id()
    request = rpc.LeaseGrantRequest(ID=lease_id, TTL=max(1, -(-ttl_ms // 1000)))
    again = False
    while True:
        try:
            response = yield Rpc(rpcs.LEASE_GRANT, request, safe=False)
            return [OK, response.header.revision, response.ID, response.TTL * 1000]
        except Uncertain:
            again = True
        except LeaseExists as error:
            if not again or wanted:
                error.may_have_happened = again  # by us, or somebody else has granted the same
                raise
            found = yield Rpc(rpcs.LEASE_TTL, rpc.LeaseTimeToLiveRequest(ID=lease_id), safe=True)
            return [OK, found.header.revision, lease_id, found.grantedTTL * 1000]


def _lease_revoke(command: Command) -> Program:
    """etcd does not say how many keys went: those that hung on it just before are counted."""
    lease_id = command[2]
    found = yield Rpc(rpcs.LEASE_TTL, rpc.LeaseTimeToLiveRequest(ID=lease_id, keys=True), safe=True)
    again = False
    while True:
        try:
            response = yield Rpc(rpcs.LEASE_REVOKE, rpc.LeaseRevokeRequest(ID=lease_id), safe=False)
            return [OK, response.header.revision, len(found.keys)]
        except Uncertain:
            again = True
        except LeaseNotFound:
            if not again:
                raise
            return [OK, found.header.revision, len(found.keys)]


def _keep_alive(command: Command) -> Program:
    requests = [rpc.LeaseKeepAliveRequest(ID=lease_id) for lease_id in command[1]]
    responses = yield Rpc(rpcs.LEASE_KEEP_ALIVE, requests, safe=True, streams=True)
    ttls = {response.ID: max(0, response.TTL) * 1000 for response in responses}
    return [OK, responses[-1].header.revision, [ttls.get(lease_id, 0) for lease_id in command[1]]]


def _lease_ttl(command: Command) -> Program:
    request = rpc.LeaseTimeToLiveRequest(ID=command[2], keys=bool(command[1] & WITH_KEYS))
    response = yield Rpc(rpcs.LEASE_TTL, request, safe=True)
    remaining_ms = -1 if response.TTL < 0 else response.TTL * 1000
    return [OK, response.header.revision, remaining_ms, response.grantedTTL * 1000, sorted(response.keys)]


def _leases(command: Command) -> Program:
    response = yield Rpc(rpcs.LEASES, rpc.LeaseLeasesRequest(), safe=True)
    return [OK, response.header.revision, [lease.ID for lease in response.leases if not is_session(lease.ID)]]


# Members.


def _host_port(urls: Any) -> str:
    return str(urls[0]).partition("://")[2].rstrip("/") if urls else ""


def _member_list() -> Steps:
    response = yield Rpc(rpcs.MEMBER_LIST, rpc.MemberListRequest(linearizable=False), safe=True, leaderless=True)
    return list(response.members)


def _named(members: list[Any], name: str) -> Any:
    """Raises MemberNotFound."""
    for member in members:
        if member.name == name:
            return member
    raise MemberNotFound(f"no member is called {name!r}")


def _members(command: Command) -> Program:
    members = yield from _member_list()
    return [OK, [_member(member) for member in members]]


def _member(member: Any) -> dict[str, Any]:
    return {
        "id": member.ID,
        "name": member.name,
        "address": _host_port(member.clientURLs),
        "peer_address": _host_port(member.peerURLs),
        "voter": not member.isLearner,
        "learner": member.isLearner,
    }


def _change_members(command: Command) -> Program:
    wanted = command[1]
    if wanted["demote"] or wanted["force"]:
        raise Unsupported("etcd neither takes a vote away from a member that stays, nor is it forced")
    changes = [(kind, item) for kind in ("add", "promote", "remove") for item in wanted[kind]]
    if len(changes) != 1:
        raise Unsupported("etcd changes one member at a time")
    ((kind, item),) = changes
    if kind == "add":
        name, peer_address, learner, _ = item
        request = rpc.MemberAddRequest(peerURLs=[f"http://{peer_address}"], isLearner=learner)
        response = yield Rpc(rpcs.MEMBER_ADD, request, safe=False)
        return [OK, {"ids": {name: response.member.ID}}]
    member = _named((yield from _member_list()), item)
    if kind == "promote":
        yield Rpc(rpcs.MEMBER_PROMOTE, rpc.MemberPromoteRequest(ID=member.ID), safe=False)
    else:
        yield Rpc(rpcs.MEMBER_REMOVE, rpc.MemberRemoveRequest(ID=member.ID), safe=False)
    return [OK, {"ids": {}}]


def _move_leader(command: Command) -> Program:
    """The leader alone takes it, so it is looked for, and asked where it says that it listens."""
    members = yield from _member_list()
    status = yield Rpc(rpcs.STATUS, rpc.StatusRequest(), safe=True, leaderless=True)
    leader = next((member for member in members if status.leader == member.ID), None)
    if leader is None:
        raise TransferRefused("there is no leader")
    others = [member for member in members if member.ID != leader.ID and not member.isLearner and member.name]
    if not command[1] and not others:
        raise TransferRefused("there is no other member with a vote")
    target = _named(members, command[1]) if command[1] else others[0]
    if target.ID != leader.ID:
        request = rpc.MoveLeaderRequest(targetID=target.ID)
        yield Rpc(rpcs.MOVE_LEADER, request, safe=False, at=_host_port(leader.clientURLs))
    return [OK, {"leader": {"id": target.ID, "name": target.name, "address": _host_port(target.clientURLs)}}]


def _status(address: str) -> Program:
    status = yield Rpc(rpcs.STATUS, rpc.StatusRequest(), safe=True, at=address, leaderless=True)
    request = rpc.MemberListRequest(linearizable=False)
    listed = yield Rpc(rpcs.MEMBER_LIST, request, safe=True, at=address, leaderless=True)
    names = {member.ID: member.name for member in listed.members}
    own = status.header.member_id
    role = "leader" if own == status.leader else "learner" if status.isLearner else "follower"
    facts = {
        "name": names.get(own, ""),
        "id": own,
        "role": role,
        "term": status.raftTerm,
        "leader": names.get(status.leader, ""),
        "commit_index": status.raftIndex,
        "applied_index": status.raftAppliedIndex,
        "revision": status.header.revision,
        "db_size_bytes": status.dbSize,
        "version": f"etcd {status.version}",
        "errors": list(status.errors),
    }
    return [OK, facts]


def _defragment(address: str) -> Program:
    before = yield Rpc(rpcs.STATUS, rpc.StatusRequest(), safe=True, at=address, leaderless=True)
    began_at = monotonic()
    yield Rpc(rpcs.DEFRAGMENT, rpc.DefragmentRequest(), safe=False, at=address, leaderless=True)
    seconds = monotonic() - began_at
    after = yield Rpc(rpcs.STATUS, rpc.StatusRequest(), safe=True, at=address, leaderless=True)
    return [OK, {"before_bytes": before.dbSize, "after_bytes": after.dbSize, "seconds": seconds}]


_PROGRAMS: Final[dict[int, Callable[[Command], Program]]] = {
    GET: _get,
    RANGE: _range,
    PING: _ping,
    COMPACT: _compact,
    LEASE_GRANT: _lease_grant,
    LEASE_REVOKE: _lease_revoke,
    KEEP_ALIVE: _keep_alive,
    LEASE_TTL: _lease_ttl,
    LEASES: _leases,
    MEMBERS: _members,
    CHANGE_MEMBERS: _change_members,
    MOVE_LEADER: _move_leader,
}

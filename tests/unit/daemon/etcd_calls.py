"""A house of one member that a test turns by hand, and doors that remember what they were told."""

import asyncio
from collections.abc import Mapping
from typing import Any

from google.protobuf.message import Message

from raftkv.daemon.etcd.calls import Procedure, Receiver, Reply
from raftkv.daemon.etcd.house import House
from raftkv.daemon.etcd.identity import ANYBODY, Caller
from raftkv.daemon.etcd.procedures import PROCEDURES
from raftkv.daemon.facts import Facts, MemberFacts
from raftkv.etcd.long_ranges import LongRange, protobuf_whole
from raftkv.etcd.statuses import Status
from raftkv.etcdpb import rpc_pb2 as rpc
from raftkv.limits import Limits
from raftkv.store.hashing import ContentHash
from tests.unit.replica.minicluster import Member, MiniCluster

CLUSTER_ID = 77


class HandView:
    """What a member of a MiniCluster tells about itself."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self.closing = asyncio.Event()

    @property
    def header_ids(self) -> tuple[int, int, int]:
        return CLUSTER_ID, self._member.raft.node_id, self._member.raft.term

    @property
    def revision(self) -> int:
        return self._member.storage.revision

    @property
    def knows_leader(self) -> bool:
        return self._member.raft.leader != 0

    client_scheme = peer_scheme = "http"

    def facts(self) -> Facts:
        raft, store = self._member.raft, self._member.storage.store
        return Facts(
            cluster_id=CLUSTER_ID,
            node_id=raft.node_id,
            leader=raft.leader,
            term=raft.term,
            commit_index=raft.commit_index,
            applied_index=store.applied_index,
            revision=store.revision,
            compact_revision=store.compact_revision,
            is_leader=raft.is_leader,
            is_learner=False,
            is_closing=False,
            takes_writes=True,
            digest=store.digest,
            db_size_bytes=4096,
            db_size_in_use_bytes=2048,
            quota_bytes=1 << 30,
            alarms=store.cluster.all_alarms(),
            downgrade_target=store.cluster.downgrade,
            errors=[],
        )

    def member_facts(self) -> list[MemberFacts]:
        voters = self._member.raft.configuration.voters
        return [
            MemberFacts(
                node_id=member["id"],
                name=member["name"],
                peer_address=member["peer_address"],
                client_address=member["address"],
                is_learner=member["id"] not in voters and not member["wants_vote"],
                has_started=bool(member["version"]),
            )
            for member in self._member.storage.members()
        ]

    async def hash_content(self, revision: int) -> ContentHash:
        hashing = self._member.storage.store.content_hash(revision)
        while not hashing.step():
            pass
        return hashing


class HandControl:
    """A member whose pump is the test's `settle`."""

    cluster_name = "mini"

    def __init__(self, cluster: MiniCluster) -> None:
        self._cluster = cluster

    def status(self) -> dict[str, Any]:
        return {}

    def schedule_pump(self) -> None:
        try:
            asyncio.get_running_loop().call_soon(self._cluster.settle)
        except RuntimeError:
            pass  # no loop: the test settles


class HandHouse:
    """A house on the leader of a MiniCluster, or on the member that is asked for."""

    def __init__(self, limits: Limits | None = None, *, size: int = 1) -> None:
        self.limits = limits or Limits()
        self.cluster = MiniCluster(limits, size=size)
        self.leader = self.cluster.elect()
        self.house = self.of(self.leader)

    def of(self, member: Member) -> House:
        """The house of that member."""
        control: Any = HandControl(self.cluster)
        return House(member.service, control, HandView(member), self.limits, 7_000)


class HandCall:
    """A Call that keeps what the procedure answers."""

    def __init__(
        self, metadata: Mapping[str, str] | None = None, *, caller: Caller = ANYBODY, timeout_ms: int = 0
    ) -> None:
        self.metadata = metadata or {}
        self.caller = caller
        self.timeout_ms = timeout_ms
        self.takes_messages = True
        self.replies: list[Reply] = []
        self.ended: list[Status | None] = []

    def reply(self, message: Reply) -> None:
        self.replies.append(message)

    def end(self, status: Status | None = None) -> None:
        self.ended.append(status)


class HandDoor:
    """A connection that keeps the responses of its desk."""

    def __init__(self) -> None:
        self.takes_answers = True
        self.responses: dict[int, Any] = {}
        self.failures: dict[int, Status] = {}
        self.batches = 0

    def on_response(self, tag: int, response: Any) -> None:
        assert tag not in self.responses, "answered once"
        self.responses[tag] = response

    def on_long_range(self, tag: int, long_range: LongRange) -> None:
        self.on_response(tag, rpc.RangeResponse.FromString(protobuf_whole(long_range)))

    def on_failure(self, tag: int, status: Status) -> None:
        assert tag not in self.failures, "answered once"
        self.failures[tag] = status

    def on_batch_end(self) -> None:
        self.batches += 1


async def unary(house: House, path: str, request: Message, caller: Caller = ANYBODY) -> Any:
    """The response of a procedure with one, or the status that it was refused with."""
    call, _ = opened(house, path, request, caller)
    while not call.ended:
        await asyncio.sleep(0)
    (status,) = call.ended
    return call.replies[0] if status is None else status


def opened(house: House, path: str, request: Message, caller: Caller = ANYBODY) -> tuple[HandCall, Receiver]:
    """A procedure that has got its request."""
    procedure = PROCEDURES[path]
    assert isinstance(procedure, Procedure), "not a single command"
    call = HandCall(caller=caller)
    receiver = procedure.open(house, call)
    receiver.on_message(request)
    receiver.on_half_close()
    return call, receiver

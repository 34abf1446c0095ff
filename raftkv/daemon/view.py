"""What a member tells about itself: status, readiness, health, its greeting. One place, so that all front doors say the same."""

import asyncio
from typing import TYPE_CHECKING, Any, Callable

import raftkv
from raftkv.daemon.facts import Facts, MemberFacts
from raftkv.daemon.hashing import Hashing
from raftkv.daemon.probing import Looks, read
from raftkv.daemon.storage import Storage
from raftkv.limits import Limits
from raftkv.raft.node import Raft
from raftkv.replica.service import LEADER, Service
from raftkv.store.hashing import ContentHash
from raftkv.units import NOBODY, NodeId, Revision, Term
from raftkv.wire.alarms import CORRUPT
from raftkv.wire.protocol import PROTOCOL_VERSION

READY_LAG_ENTRIES_MAX = 1_000  # a follower further behind than that would send its clients into the past


if TYPE_CHECKING:
    from raftkv.daemon.etcd.counting import CallCounts


class View:
    """Read-only; every call is answered from memory, except for the hash of all data."""

    def __init__(
        self,
        *,
        name: str,
        cluster_name: str,
        incarnation: int,
        endpoint: str,
        priority: int,
        raft: Raft,
        service: Service,
        storage: Storage,
        limits: Limits,
    ) -> None:
        self._name = name
        self._cluster_name = cluster_name
        self._incarnation = incarnation
        self._endpoint = endpoint
        self._priority = priority
        self._raft = raft
        self._service = service
        self._storage = storage
        self._limits = limits
        self._hashing = Hashing(storage)
        self.looks = Looks()
        self.calls: CallCounts | None = None  # while there is a door for etcd's clients
        self.schedule_pump: Callable[[], None] = lambda: None
        self.client_scheme = self.peer_scheme = "http"
        self.closing = asyncio.Event()
        self.stalled_seconds: Callable[[], float] = lambda: 0.0
        self.agreed_index: Callable[[], int] = lambda: 0
        self.loop_errors: Callable[[], list[str]] = list
        self.metrics_text: Callable[[], bytes] = lambda: b""

    @property
    def is_closing(self) -> bool:
        """Whether this member has begun to leave."""
        return self.closing.is_set()

    @property
    def header_ids(self) -> tuple[int, NodeId, Term]:
        """Cluster id, member id and term: what a response of the etcd API says about who made it."""
        return self._storage.cluster_id, self._raft.node_id, self._raft.term

    @property
    def revision(self) -> Revision:
        """Of the store here, as applied."""
        return self._storage.revision

    @property
    def knows_leader(self) -> bool:
        """Whether this member follows a leader, or is one."""
        return self._raft.leader != NOBODY

    def status(self) -> dict[str, Any]:
        """This member's row of `raftkv status`. Indexes are of the log, `db_size_bytes` is what the store holds."""
        raft, store = self._raft, self._storage.store
        hint = self._service.leader_hint()
        return {
            "name": self._name,
            "id": raft.node_id,
            "endpoint": self._endpoint,
            "role": _public_role(raft.role),
            "term": raft.term,
            "leader": (hint["name"] or str(hint["id"])) if hint else "",
            "leader_id": raft.leader,
            "commit_index": raft.commit_index,
            "applied_index": store.applied_index,
            "last_index": raft.last_index,
            "revision": store.revision,
            "digest": store.digest,
            "digest_agreed_index": self.agreed_index(),
            "db_size_bytes": store.db_size_bytes,
            "version": raftkv.__version__,
            "priority": self._priority,
            "cluster_id": f"{store.cluster_id:x}",
            "cluster_name": self._cluster_name,
            "errors": self.errors(),
        }

    def facts(self) -> Facts:
        """How this member stands, for the etcd API."""
        raft, store = self._raft, self._storage.store
        return Facts(
            cluster_id=store.cluster_id,
            node_id=raft.node_id,
            leader=raft.leader,
            term=raft.term,
            commit_index=raft.commit_index,
            applied_index=store.applied_index,
            revision=store.revision,
            compact_revision=store.compact_revision,
            is_leader=raft.role == LEADER,
            is_learner=raft.role == "learner",
            is_closing=self.is_closing,
            takes_writes=self._service.write_block is None,
            digest=store.digest,
            db_size_bytes=store.db_size_bytes,
            db_size_in_use_bytes=store.db_size_in_use_bytes,
            quota_bytes=self._limits.quota_bytes,
            alarms=store.cluster.all_alarms(),
            downgrade_target=store.cluster.downgrade,
            errors=self._own_errors(),
        )

    def member_facts(self) -> list[MemberFacts]:
        """Every member as etcd shows it."""
        voters = self._raft.configuration.voters
        return [
            MemberFacts(
                node_id=member["id"],
                name=member["name"],
                peer_address=member["peer_address"],
                client_address=member["address"],
                is_learner=member["id"] not in voters and not member["wants_vote"],
                has_started=bool(member["version"]),
            )
            for member in self._storage.members()
        ]

    async def read(self, *, serializable: bool) -> None:
        """As a client would. Raises RaftKVError with what it would be told."""
        await read(self._service, self.schedule_pump, serializable=serializable)

    async def hash_content(self, revision: Revision) -> ContentHash:
        """The finished hash of the data as of a revision; 0: the current one. Raises RaftKVError."""
        return await self._hashing.hash_content(revision)

    def errors(self) -> list[str]:
        """What an operator should look at now; empty when all is well."""
        found = self._own_errors()
        cluster = self._storage.store.cluster
        if over := cluster.full_names():
            found.append(f"no_space: over the quota: {', '.join(over)}")
        if cluster.alarms:
            raised = [
                f"{'corrupt' if kind == CORRUPT else 'no_space'} of {number:x}" for number, kind in cluster.alarms
            ]
            found.append(f"alarm: raised by hand: {', '.join(sorted(raised))}")
        if self._raft.leader == NOBODY:
            found.append("no_leader" if self._raft.quorum_contact else "no_quorum")
        return found

    def _own_errors(self) -> list[str]:
        """Of this member itself: neither alarms nor the lack of a leader."""
        found = self.loop_errors()
        if self._service.write_block is not None:
            found.append(f"{self._service.write_block.code}: {self._service.write_block.message}")
        if self._storage.full is not None:
            found.append(f"{self._storage.full.code}: {self._storage.full.message}")
        stalled_seconds = self.stalled_seconds()
        if stalled_seconds:
            found.append(f"disk_stalled: an fsync of the log has not returned for {stalled_seconds:.1f} s")
        return found

    def readiness(self) -> tuple[bool, str]:
        """Whether clients should be sent here, and why not."""
        raft = self._raft
        if self.is_closing:
            return False, "shutting down"
        if raft.leader == NOBODY:
            return False, "no leader" if raft.quorum_contact else "no quorum"
        if raft.role == LEADER and not raft.last_committed_in_term:
            return False, "the new leader has not committed an entry yet"
        lag = raft.commit_index - self._storage.applied_index
        if lag > READY_LAG_ENTRIES_MAX:
            return False, f"{lag} entries behind"
        if not self._service.is_published:
            return False, "its address is not in the log yet"
        return True, "ok"

    def hello(self) -> dict[str, Any]:
        """The greeting of the native protocol."""
        limits = self._limits
        return {
            "protocol": PROTOCOL_VERSION,
            "version": raftkv.__version__,
            "cluster_id": self._storage.cluster_id,
            "cluster_name": self._cluster_name,
            "member_id": self._raft.node_id,
            "member_name": self._name,
            "incarnation": self._incarnation,
            "leader": self._service.leader_hint(),
            "members": self._service.member_hints(),
            "limits": {
                "key_bytes_max": limits.key_bytes_max,
                "value_bytes_max": limits.value_bytes_max,
                "request_bytes_max": limits.request_bytes_max,
                "txn_operations_max": limits.txn_operations_max,
                "session_window": limits.session_window,
                "session_ttl_ms": limits.session_ttl_ms,
            },
        }

    def members(self) -> list[dict[str, Any]]:
        """Every member with its addresses and whether it votes; neither voter nor learner: recorded, not taken in yet."""
        configuration = self._raft.configuration
        return [
            {
                "id": member["id"],
                "name": member["name"],
                "address": member["address"],
                "peer_address": member["peer_address"],
                "voter": member["id"] in configuration.voters,
                "learner": member["id"] in configuration.learners | configuration.learners_next,
                "version": member["version"],
                "priority": member["priority"],
            }
            for member in self._storage.members()
        ]


def _public_role(role: str) -> str:
    """The contract knows leader, follower, learner and candidate."""
    return "candidate" if role == "pre_candidate" else role

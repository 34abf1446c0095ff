"""What the etcd API, health checks and metrics want to know of a member at this moment, as plain values (daemon/view.py fills them)."""

from typing import NamedTuple, Sequence

from raftkv.units import Index, NodeId, Revision, Term


class Facts(NamedTuple):
    """How this member stands. `leader` 0: none is known. `errors`: what an operator should look at, beside leader and alarms."""

    cluster_id: int
    node_id: NodeId
    leader: NodeId
    term: Term
    commit_index: Index
    applied_index: Index
    revision: Revision
    compact_revision: Revision
    is_leader: bool
    is_learner: bool
    is_closing: bool
    takes_writes: bool
    digest: int
    db_size_bytes: int
    db_size_in_use_bytes: int
    quota_bytes: int
    alarms: Sequence[tuple[int, int]]  # number of a member, kind (wire/alarms.py)
    downgrade_target: str
    errors: Sequence[str]


class MemberFacts(NamedTuple):
    """One member as etcd shows it. Whoever is on the way to a vote is no learner: a learner stays one until it is promoted."""

    node_id: NodeId
    name: str
    peer_address: str
    client_address: str
    is_learner: bool
    has_started: bool

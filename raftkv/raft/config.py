"""Settings of the consensus core and what it is started from. Times are in ticks: the core owns no clock."""

from dataclasses import dataclass, field
from typing import Callable

from raftkv.limits import DEFAULT_LIMITS, Limits
from raftkv.raft.messages import Configuration, Entry, HardState
from raftkv.units import Index, Milliseconds, NodeId, Term


@dataclass(slots=True, kw_only=True)
class RaftConfig:
    """Settings of one member.

    A tick is 25 ms in production: heartbeat 100 ms, election timeout drawn from 1 to 2 s (9.3).
    """

    node_id: NodeId
    heartbeat_ticks: int = 4
    election_timeout_ticks: int = 40  # the drawn timeout lies in [this, 2 * this)
    tick_ms: Milliseconds = 25
    pre_vote: bool = True
    check_quorum: bool = True
    fast_failover: bool = True  # pre-vote when the connection from the leader was reset, in turns of a heartbeat
    lease_reads: bool = False
    clock_ms: Callable[[], Milliseconds] | None = None  # monotonic; only lease reads ask it, when serving
    clock_drift_percent_max: int = 10  # a lease is shortened by this much
    snapshot_bytes_per_tick: int = 0  # sent to all followers together; 0: no bound
    limits: Limits = field(default_factory=lambda: DEFAULT_LIMITS)

    def __post_init__(self) -> None:
        assert self.node_id > 0, "0 means nobody"
        assert 0 < self.heartbeat_ticks < self.election_timeout_ticks, (
            "followers must hear several heartbeats per timeout"
        )
        assert self.clock_ms is not None or not self.lease_reads, "lease reads need a clock"


@dataclass(slots=True, kw_only=True)
class SavedState:
    """What survived a restart: from the journal, and from the state machine's own durable applied index."""

    hard_state: HardState = field(default_factory=HardState)
    log_start_index: Index = 0  # entries up to here are gone (compacted, or in a snapshot); its term is known
    log_start_term: Term = 0
    entries: list[Entry] = field(default_factory=list)  # log_start_index + 1 ... without gaps
    configuration: Configuration  # as of log_start_index, or the initial one; newer ones are found in the entries
    applied_index: Index = 0  # durable in the state machine; at least log_start_index


__all__ = ["RaftConfig", "SavedState"]

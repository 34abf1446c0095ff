"""What a leader knows about one follower, and how much it may send to it (3.5, 10.2.1).

Three states, as in etcd-io/raft: *probe* (it is not known where the logs agree: one message at a time), *replicate* (it is
known: send ahead, within a window of messages and bytes), *snapshot* (what it needs is compacted: chunks instead of
entries). Progress only keeps the books; replication.py and snapshot.py decide and send.
"""

from collections import deque
from dataclasses import dataclass
from typing import Final

from raftkv.limits import Limits
from raftkv.raft.messages import SnapshotMeta
from raftkv.units import Index, Milliseconds, NodeId

PROBE: Final = "probe"
REPLICATE: Final = "replicate"
SNAPSHOT: Final = "snapshot"


class Inflight:
    """Messages with entries that were sent ahead and are not acknowledged: their last index and size."""

    __slots__ = ("_messages", "size_bytes")

    def __init__(self) -> None:
        self._messages: deque[tuple[Index, int]] = deque()
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._messages)

    def budget_bytes(self, limits: Limits) -> int:
        """How many bytes the next message may have; 0 when the window is full."""
        if len(self._messages) >= limits.append_messages_in_flight_max:
            return 0
        left_bytes = limits.append_bytes_in_flight_max - self.size_bytes
        if left_bytes >= limits.append_message_bytes_max:
            return limits.append_message_bytes_max
        return left_bytes if left_bytes > 0 else 0

    def add(self, last_index: Index, size_bytes: int) -> None:
        assert not self._messages or last_index > self._messages[-1][0], "entries are sent in order (3.5)"
        self._messages.append((last_index, size_bytes))
        self.size_bytes += size_bytes

    def free_to(self, index: Index) -> None:
        """An acknowledgement covers everything before it, too."""
        while self._messages and self._messages[0][0] <= index:
            self.size_bytes -= self._messages.popleft()[1]

    def clear(self) -> None:
        self._messages.clear()
        self.size_bytes = 0


@dataclass(slots=True)
class SnapshotTransfer:
    """Where the transfer of one snapshot to one follower stands; offsets in bytes."""

    snapshot: SnapshotMeta
    acked_offset: int = 0  # the follower has everything before it
    requested_offset: int = 0  # the driver was asked for everything before it
    rewinds: int = (
        0  # in this tick chunks were asked for again so often: bounded, or late answers would multiply the chunks
    )
    active_tick: int = 0  # last time that something was sent or acknowledged
    refusals: int = 0  # how often the follower had everything, found it damaged and started over


@dataclass(frozen=True, slots=True)
class ProgressView:
    """A follower as status pages show it. `in_flight` counts messages with entries."""

    match_index: Index
    next_index: Index
    state: str
    in_flight: int
    recently_active: bool


class Progress:
    """One follower. Invariant: match_index < next_index."""

    __slots__ = (
        "acked_round",
        "answered_tick",
        "catch_up_index",
        "commit_sent",
        "inflight",
        "lease_until_ms",
        "match_index",
        "moved_tick",
        "next_index",
        "node_id",
        "nudge",
        "paused_transfer",
        "probe_tick",
        "state",
        "transfer",
        "unfit",
    )

    def __init__(self, node_id: NodeId, next_index: Index, tick: int) -> None:
        self.node_id = node_id
        self.match_index: Index = 0
        self.next_index = next_index
        self.state: str = PROBE
        self.inflight = Inflight()
        self.commit_sent: Index = 0
        self.nudge = True  # send an append even without entries: a probe, or a commit index that is overdue
        self.probe_tick: int | None = None  # when the probe that is not answered yet was sent
        self.answered_tick = tick  # last answer in this term; a new follower has one election timeout of grace
        self.moved_tick = tick  # last time that match_index moved or the silence was looked into
        self.unfit = False  # it says that its disk is ill
        self.acked_round = 0
        self.lease_until_ms: Milliseconds = 0
        self.transfer: SnapshotTransfer | None = None
        self.paused_transfer: SnapshotTransfer | None = None  # of a follower that fell silent; it may go on
        self.catch_up_index: Index = 0  # it has a snapshot, and needs the log from there up to here; 0: no such need

    def become_probe(self, next_index: Index) -> None:
        """Look for the place where the logs agree, from `next_index` downwards."""
        assert next_index > self.match_index, "what is known to agree is not probed again (3.5)"
        self.state = PROBE
        self.next_index = next_index
        self.inflight.clear()
        self.transfer = None
        self.probe_tick = None
        self.nudge = True
        self.commit_sent = min(self.commit_sent, self.match_index)

    def become_replicate(self) -> None:
        """The logs agree up to match_index: send ahead from there."""
        self.state = REPLICATE
        self.next_index = self.match_index + 1
        self.inflight.clear()
        self.transfer = self.paused_transfer = None
        self.probe_tick = None

    def become_snapshot(self) -> None:
        """Its next entry is compacted; a transfer begins as soon as a snapshot is offered."""
        self.state = SNAPSHOT
        self.catch_up_index = 0
        self.inflight.clear()
        self.transfer = None
        self.probe_tick = None

    def acknowledge(self, index: Index) -> bool:
        """An append up to `index` was accepted. False when that was known already."""
        if index <= self.match_index:
            return False
        self.match_index = index
        if index >= self.catch_up_index:
            self.catch_up_index = 0
        self.next_index = max(self.next_index, index + 1)
        self.inflight.free_to(index)
        return True

    def is_unknown(self) -> bool:
        """Whether this office has not heard yet where the logs agree: it has only begun, or the follower never answered it."""
        return self.state == PROBE and self.match_index == 0

    def is_stale_rejection(self, previous_index: Index) -> bool:
        """Whether a rejection answers a message from before the last change of state: doubled or reordered on its way."""
        if self.state == REPLICATE:
            return previous_index <= self.match_index
        return self.state == SNAPSHOT or previous_index != self.next_index - 1

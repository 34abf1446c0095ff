"""The writes that members make by themselves: founding the cluster, publishing an address, ending sessions,
moving the time of pools, compacting history, and the alarm of a store that is over its quota.

At most one at a time. Each looks at the store first and says what is missing there, so that whatever came of the last one
(lost, refused, doubled by a new leader) the next look puts it right.
"""

from typing import Any, Callable, Mapping, Protocol, Sequence

from raftkv.errors import RaftKVError
from raftkv.replica.compaction import AutoCompaction
from raftkv.replica.groups import ReadGroup, WriteGroup
from raftkv.units import Milliseconds, NodeId, Revision
from raftkv.wire.commands import (
    COMPACT,
    CREATE_CLUSTER,
    EXPIRE_SESSIONS,
    OK,
    PUBLISH_MEMBER,
    SET_ALARM,
    Answer,
    Command,
)
from raftkv.wire.identity import MEMBER_USER
from raftkv.wire.pools import POOL_TICK
from raftkv.wire.settings import Settings

TIMEOUT_MS = 5_000
SIZE_BYTES = 256
REPEAT_MS = 10_000
QUOTA_CLEARED_PERCENT = 95


class Directory(Protocol):
    """What the replicated store knows of the cluster (store/members.py)."""

    @property
    def cluster_id(self) -> int: ...

    @property
    def earliest_deadline_ms(self) -> Milliseconds | None: ...

    @property
    def pool_deadline_ms(self) -> Milliseconds | None: ...

    @property
    def revision(self) -> Revision: ...

    @property
    def compact_revision(self) -> Revision: ...

    @property
    def db_size_in_use_bytes(self) -> int: ...

    @property
    def full_members(self) -> frozenset[NodeId]: ...

    def members(self) -> Sequence[Mapping[str, Any]]: ...


class Founding:
    """What the first leader writes into the first entry of a new cluster: its random id, its members, its settings."""

    __slots__ = ("cluster_id", "cluster_name", "members", "names", "settings")

    def __init__(
        self, cluster_id: int, cluster_name: str, members: Sequence[tuple[NodeId, str, str]], settings: Settings
    ) -> None:
        assert cluster_id > 0, "0 means not known yet"
        self.cluster_id = cluster_id
        self.cluster_name = cluster_name
        self.members = [list(member) for member in members]
        self.names: dict[NodeId, str] = {node_id: name for node_id, name, _ in members}
        self.settings = settings

    def command(self) -> Command:
        """As a CREATE_CLUSTER."""
        return [CREATE_CLUSTER, 0, self.cluster_id, self.cluster_name, self.members, self.settings.to_items()]


class Upkeep:
    """Decides what this member has to say now. Also the origin of what it said."""

    def __init__(
        self,
        directory: Directory,
        founding: Founding,
        own_record: Callable[[], list[Any]],
        submit: Callable[[WriteGroup], None],
        history: AutoCompaction,
        quota_bytes: int,
    ) -> None:
        self._quota_bytes = quota_bytes
        self._history = history
        self._directory = directory
        self._founding = founding
        self._own_record = own_record
        self._submit = submit
        self._is_waiting = False
        self._said: Command = []
        self._said_ms: Milliseconds = 0
        self._was_done = False  # what was said last is in the log, whether or not it is applied here
        self.takes_answers = True
        self.is_due = True  # look again at the next tick instead of after the usual interval

    def look(self, now_ms: Milliseconds, clock_ms: Milliseconds, *, leading: bool) -> None:
        """Say what is missing, if anything. `clock_ms` is replicated time."""
        self.is_due = False
        self._history.look(clock_ms, self._directory.revision)
        if self._is_waiting:
            return
        directory = self._directory
        if not directory.cluster_id:
            if leading:
                self._say(self._founding.command(), now_ms)
        elif not self.is_published:
            self._say_once([PUBLISH_MEMBER, 0, *self._own_record()], now_ms)
        elif self._is_over_quota() != ((node_id := self._own_record()[0]) in directory.full_members):
            self._say_once([SET_ALARM, 0, node_id, node_id not in directory.full_members], now_ms)
        elif leading:
            pool_deadline_ms = directory.pool_deadline_ms
            if pool_deadline_ms is not None and pool_deadline_ms <= clock_ms:
                self._say([POOL_TICK, 0], now_ms)
                return
            deadline_ms = directory.earliest_deadline_ms
            if deadline_ms is not None and deadline_ms <= clock_ms:
                self._say([EXPIRE_SESSIONS, 0], now_ms)
                return
            revision = self._history.wanted(clock_ms, directory.revision, directory.compact_revision)
            if revision:
                self._say([COMPACT, 0, revision], now_ms)

    @property
    def is_published(self) -> bool:
        """Whether the log says of this member what it says of itself."""
        node_id, *own = self._own_record()
        for member in self._directory.members():
            if member["id"] == node_id:
                keys = ("name", "incarnation", "address", "peer_address", "version", "priority")
                return [member[key] for key in keys] == own
        return False

    def _is_over_quota(self) -> bool:
        """It ends a little below the quota: else it would come and go with every page."""
        used_bytes = self._directory.db_size_in_use_bytes
        was_full = self._own_record()[0] in self._directory.full_members
        return used_bytes > (self._quota_bytes * QUOTA_CLEARED_PERCENT // 100 if was_full else self._quota_bytes)

    def on_leader_change(self) -> None:
        """What was under way has ended, or will; the new leader is told what the old one was not."""
        self._is_waiting = False
        self.is_due = True

    def _say_once(self, command: Command, now_ms: Milliseconds) -> None:
        """A member that does not apply what it was told is done would say it again and again, and fill everybody's log."""
        if not (self._was_done and command == self._said and now_ms < self._said_ms + REPEAT_MS):
            self._say(command, now_ms)

    def _say(self, command: Command, now_ms: Milliseconds) -> None:
        self._is_waiting = True
        self._said, self._said_ms, self._was_done = command, now_ms, False
        group = WriteGroup(
            self, [0], [command], size_bytes=SIZE_BYTES, deadline_ms=now_ms + TIMEOUT_MS, user=MEMBER_USER
        )
        self._submit(group)

    def on_answers(self, group: WriteGroup | ReadGroup, answers: Sequence[Answer]) -> None:
        """Done (or refused by apply, then it waits for the next interval)."""
        self._is_waiting = False
        self._was_done = answers[0][0] == OK
        self.is_due = self.is_due or self._was_done  # perhaps there is more to say

    def on_refused(self, group: WriteGroup | ReadGroup, error: RaftKVError) -> None:
        """Tried again after the usual interval."""
        self._is_waiting = False

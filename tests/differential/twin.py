"""raftkv's end of a comparison: a request of etcd through the translation, validation and one Store, as a door would take it."""

from typing import Any

from raftkv.errors import RaftKVError
from raftkv.etcd.methods import Method
from raftkv.etcd.responses import Origin, header
from raftkv.etcd.statuses import status_of
from raftkv.etcd.watching import event, refusal, watch_command
from raftkv.etcdpb import kv_pb2 as kv
from raftkv.etcdpb import rpc_pb2 as rpc
from raftkv.store.memory_keyspace import MemoryKeyspace
from raftkv.store.meta import StoredState
from raftkv.store.store import Store
from raftkv.store.watches import WatchHub
from raftkv.wire.commands import (
    FAILED,
    LEASE_TTL,
    OK,
    PUBLISH_MEMBER,
    READS,
    SET_ALARM,
    WITH_KEYS,
    Answer,
    Command,
    error_of,
)
from raftkv.wire.protocol import KEEP_ALIVE
from raftkv.wire.validate import validate
from raftkv.wire.watching import check_watch
from tests.unit.store.stores import LIMITS, Driver
from tests.unit.store.watching import RecordingSink

ORIGIN = Origin(cluster_id=1, member_id=2, raft_term=3)


class Twin:
    """A store that begins where etcd is: at its revision, with everything before compacted."""

    def __init__(self, revision: int, compact_revision: int) -> None:
        self._driver = Driver(MemoryKeyspace())
        state = StoredState(revision=revision, compact_revision=compact_revision)
        self._driver.store = Store(self._driver.store.keyspace, LIMITS, state)
        self._driver.apply([PUBLISH_MEMBER, 0, 1, "twin", 1, "", "", ""])
        self.hub = WatchHub(LIMITS)
        self.store.tell(self.hub)

    @property
    def store(self) -> Store:
        return self._driver.store

    def call(self, method: Method, request: Any) -> Any:
        """The response, or the status that it was refused with."""
        try:
            answer = self._answer(method.command(request))
            if answer[0] == FAILED:
                raise error_of(answer)
        except RaftKVError as error:
            return status_of(error)
        return method.response(request, answer, ORIGIN)

    def _answer(self, command: Command) -> Answer:
        if command[0] == KEEP_ALIVE:
            lease = self.store.leases.get(command[1][0])
            return [OK, self.store.revision, [0 if lease is None else lease.ttl_ms]]
        validate(command, LIMITS)
        if command[0] in READS:
            return self.store.read(command)
        if command[0] == LEASE_TTL:
            return self._time_to_live(command)
        answer = self._driver.apply(command)[0]
        self.tell_watchers()
        return answer

    def _time_to_live(self, command: Command) -> Answer:
        """As a leader tells it that has just taken office."""
        _, flags, lease_id = command
        lease = self.store.leases.get(lease_id)
        if lease is None:
            return [OK, self.store.revision, -1, 0, []]
        return [
            OK,
            self.store.revision,
            lease.remaining_ms,
            lease.ttl_ms,
            list(lease.keys) if flags & WITH_KEYS else [],
        ]

    def settle(self) -> None:
        """What happens between requests: a commit, some steps of removing what is compacted, every other time a restart."""
        if (job := self.store.freeze()) is not None:
            job.run()
            self.store.thaw(job)
            if self.store.applied_index % 2:
                keyspace = self.store.keyspace
                self.store.close()
                self._driver.store = Store.open(keyspace, LIMITS)
                self.store.tell(self.hub)
                self.tell_watchers()
        for _ in range(3):
            self.store.compaction.step()

    def alarm(self, request: rpc.AlarmRequest) -> None:
        """As its member says of itself."""
        self._driver.apply([SET_ALARM, 0, 1, request.action == rpc.AlarmRequest.ACTIVATE])

    def watch(self, request: rpc.WatchCreateRequest) -> "TwinWatch":
        """Begin a watch."""
        return TwinWatch(self, request)

    def tell_watchers(self) -> None:
        while self.hub.has_backlog:
            self.hub.step()


class TwinWatch:
    """One watch: the responses that it began with, and the events that it has told so far."""

    def __init__(self, twin: Twin, request: rpc.WatchCreateRequest) -> None:
        self._twin = twin
        self._sink = RecordingSink()
        command, revision = watch_command(request), twin.store.revision
        try:
            check_watch(command, LIMITS)
            twin.hub.create(command, self._sink, 0)
        except RaftKVError as error:
            self.began = refusal(request, 0, error, ORIGIN, revision)
        else:
            self.began = [rpc.WatchResponse(header=header(ORIGIN, revision), created=True)]

    @property
    def is_on(self) -> bool:
        return not self.began[-1].canceled

    def read_until(self, revision: int) -> list[kv.Event]:
        """All events so far: nothing is on its way here."""
        self._twin.tell_watchers()
        assert not self._sink.canceled, "its history is kept"
        return [event(items) for items in self._sink.events.get(0, [])]

    def close(self) -> None:
        """It ends with its twin."""

"""The blocking client: the verbs of client.py, on a Caller. `raftkv.Client` is this; docs/client.md is its page for users.

It imports neither asyncio nor anything else that the command line would have to wait for. A test holds its methods together with the asyncio
client's.
"""

from time import monotonic
from typing import TYPE_CHECKING, Any, Iterator, Mapping, Self, Sequence, TypeVar, cast, overload

from raftkv.client import requests
from raftkv.client.auth_verbs import AuthVerbs
from raftkv.client.blocking import Caller
from raftkv.client.cluster_verbs import ClusterVerbs
from raftkv.client.decisions import BARE_WRITE, CONTROL, PATIENT_READ, QUESTION, READ, STALE_READ, WRITE
from raftkv.client.endpoints import Directory, parse_endpoints
from raftkv.client.lease_verbs import LeaseVerbs
from raftkv.client.options import (
    DEFAULT_ENDPOINTS,
    DEFAULT_IDLE_S,
    DEFAULT_LIFETIME_S,
    DEFAULT_TIMEOUT_S,
    make_options,
)
from raftkv.client.pool import CONNECTIONS_MAX
from raftkv.client.requests import PAGE_KEYS, Bytes, Pager, SortBy
from raftkv.client.results import (
    DeleteResult,
    KeyValue,
    PutResult,
    RangeResult,
    TxnResult,
    delete_result,
    key_value_or_none,
    put_result,
    txn_result,
)
from raftkv.client.tls import Tls, connector
from raftkv.client.watch_verbs import WatchVerbs
from raftkv.errors import ClientClosed, ConfigError, RaftKVError
from raftkv.units import Revision
from raftkv.wire.commands import READ_TXN, Answer, Command, as_read
from raftkv.wire.protocol import PING, STATUS

if TYPE_CHECKING:
    from raftkv.client.keptlease import Keeper
    from raftkv.client.txn import Txn
    from raftkv.client.watch import Watch

Default = TypeVar("Default")

WAITS_MAX = 512  # threads of one client that wait at a member at a time


class Client(LeaseVerbs, WatchVerbs, ClusterVerbs, AuthVerbs):
    """A client for threads: `with raftkv.Client("a:2379,b:2379") as kv:`. It connects with its first call.

    `cluster_name` pins the cluster: another one is refused with ClusterMismatch. `timeout` (seconds) is the deadline of a call,
    `attempt_timeout` that of one member within it (default: a third of `timeout`, at most 1 s). With `session=False` an uncertain
    write raises OutcomeUnknown instead of being repeated. Each connection logs in as `user`, if there is one, and speaks TLS with `tls` or with
    endpoints that begin with https://. `connection_lifetime` and `idle_check_after` are seconds too;
    `connections_max` is per member: each call holds one for as long as it runs. Raises ConfigError.
    """

    def __init__(
        self,
        endpoints: str | Sequence[str] = DEFAULT_ENDPOINTS,
        *,
        cluster_name: str | None = None,
        timeout: float = DEFAULT_TIMEOUT_S,
        attempt_timeout: float | None = None,
        session: bool = True,
        connection_lifetime: float = DEFAULT_LIFETIME_S,
        idle_check_after: float = DEFAULT_IDLE_S,
        client_name: str = "raftkv-python",
        user: str | None = None,
        password: str = "",
        tls: Tls | None = None,
        connections_max: int = CONNECTIONS_MAX,
    ) -> None:
        options = make_options(
            cluster_name=cluster_name,
            timeout=timeout,
            attempt_timeout=attempt_timeout,
            session=session,
            connection_lifetime=connection_lifetime,
            idle_check_after=idle_check_after,
            client_name=client_name,
            user=user,
            password=password,
            tls=connector(tls, endpoints),
        )
        if connections_max < 1:
            raise ConfigError(f"connections_max is at least 1, not {connections_max!r}")
        self._directory = Directory(parse_endpoints(endpoints))
        self._write_kind = WRITE if session else BARE_WRITE
        self._options = options
        self._caller = Caller(self._directory, options, connections_max)
        self._keeper: Keeper | None = None
        self._waits: Caller | None = None
        self._watches: set[Watch] = set()

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The client's own list, as given."""
        return self._directory.endpoints

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up. Calls of other threads end with ClientClosed."""
        self._caller.close()  # first: from here on nothing begins
        if self._keeper is not None:
            self._keeper.close()
        for watch in list(self._watches):
            watch.abandon(ClientClosed())
        if self._waits is not None:
            self._waits.close()

    # Keys.

    def put(
        self, key: Bytes, value: Bytes, *, lease: int = 0, prev_kv: bool = False, timeout: float | None = None
    ) -> PutResult:
        """Write a key."""
        return put_result(self._write(requests.put(key, value, lease, prev_kv), timeout))

    @overload
    def get(
        self, key: Bytes, default: None = None, *, stale: bool = False, timeout: float | None = None
    ) -> bytes | None: ...

    @overload
    def get(
        self, key: Bytes, default: Default, *, stale: bool = False, timeout: float | None = None
    ) -> bytes | Default: ...

    def get(self, key: Bytes, default: Any = None, *, stale: bool = False, timeout: float | None = None) -> Any:
        """The value of a key, `default` when it does not exist. Linearizable unless `stale`."""
        items = self._read(requests.get(key, stale), stale, timeout)[2]
        return items[5] if items else default

    def get_kv(self, key: Bytes, *, stale: bool = False, timeout: float | None = None) -> KeyValue | None:
        """A key with its revisions, version and lease; None when it does not exist."""
        answer = self._read(requests.get(key, stale), stale, timeout)
        return key_value_or_none(answer[2])

    def range(
        self,
        key: Bytes | None = None,
        range_end: Bytes | None = None,
        *,
        prefix: Bytes | None = None,
        limit: int = 0,
        revision: Revision = 0,
        sort_by: SortBy | None = None,
        descending: bool = False,
        keys_only: bool = False,
        count_only: bool = False,
        stale: bool = False,
        timeout: float | None = None,
    ) -> RangeResult:
        """The keys of [key, range_end) or with `prefix`, at one revision (default: now), at most `limit` (0: all).

        Raises Compacted or FutureRevision for a `revision` that is not kept or not reached, InvalidRequest for bad arguments.
        """
        command = requests.range_(
            key,
            range_end,
            prefix=prefix,
            limit=limit,
            revision=revision,
            sort_by=sort_by,
            descending=descending,
            keys_only=keys_only,
            count_only=count_only,
            stale=stale,
        )
        return self._range(command, stale, timeout)

    def get_prefix(self, prefix: Bytes, *, stale: bool = False, timeout: float | None = None) -> list[KeyValue]:
        """All keys with a prefix, in order, at one revision."""
        return (self._range(requests.range_(prefix=prefix, stale=stale), stale, timeout)).kvs

    def scan(
        self, prefix: Bytes = b"", *, page_keys: int = PAGE_KEYS, stale: bool = False, timeout: float | None = None
    ) -> Iterator[KeyValue]:
        """Iterate over the keys with a prefix, page by page, all at the revision of the first page.

        `timeout` is per page. Raises Compacted when the revision is compacted during a long scan: begin again.
        """
        pager = Pager(requests.range_(prefix=prefix, stale=stale), page_keys)
        while pager.command is not None:
            yield from pager.feed(self._read(pager.command, stale, timeout))

    def count(self, prefix: Bytes = b"", *, stale: bool = False, timeout: float | None = None) -> int:
        """How many keys have a prefix."""
        command = requests.range_(prefix=prefix, count_only=True, stale=stale)
        return (self._range(command, stale, timeout)).count

    def delete(self, key: Bytes, *, timeout: float | None = None) -> int:
        """Delete a key. Returns how many were deleted: 1 or 0."""
        answer = self._write(requests.delete(key), timeout)
        return delete_result(answer).deleted

    def delete_prefix(self, prefix: Bytes, *, timeout: float | None = None) -> int:
        """Delete all keys with a prefix, at one revision. Returns how many were deleted."""
        answer = self._write(requests.delete_prefix(prefix), timeout)
        return delete_result(answer).deleted

    def delete_range(
        self, key: Bytes, range_end: Bytes, *, prev_kv: bool = False, timeout: float | None = None
    ) -> DeleteResult:
        """Delete [key, range_end) at one revision; with `prev_kv` the result holds what was there."""
        return delete_result(self._write(requests.delete(key, range_end, prev_kv), timeout))

    # Conditions.

    def txn(self) -> "Txn[TxnResult]":
        """A transaction: `kv.txn().if_(Value("k") == b"x").then(Put("k", "y")).else_(Get("k")).commit()`."""
        from raftkv.client.txn import Txn  # not before it is needed: the command line waits for every import

        return Txn(self._commit)

    def compare_and_set(
        self, key: Bytes, expected: Bytes | None, value: Bytes, *, timeout: float | None = None
    ) -> bool:
        """Write the key if it holds `expected` (None: if it does not exist). Returns whether it was written."""
        return bool((self._write(requests.compare_and_set(key, expected, value), timeout))[2])

    def put_if_absent(self, key: Bytes, value: Bytes, *, timeout: float | None = None) -> bool:
        """Write the key if it does not exist. Returns whether it was written."""
        return self.compare_and_set(key, None, value, timeout=timeout)

    def increment(self, key: Bytes, delta: int = 1, *, lease: int = 0, timeout: float | None = None) -> int:
        """Add to a decimal number; a missing key counts as 0. Returns the new number. Raises NotANumber.

        `lease`: of a key that is made; one that exists keeps its own.
        """
        return int((self._write(requests.increment(key, delta, lease), timeout))[2])

    def append(self, key: Bytes, value: Bytes, *, lease: int = 0, timeout: float | None = None) -> int:
        """Append to a value; a missing key counts as empty. Returns the new length in bytes. `lease` as of `increment`."""
        return int((self._write(requests.append(key, value, lease), timeout))[2])

    def compact(self, revision: Revision, *, timeout: float | None = None) -> Revision:
        """Let go of history before `revision`; reads and watches at it still work. Returns the store's revision.

        Raises Compacted when that was done before, FutureRevision when it is not reached. The cluster does so by itself, too.
        """
        return int((self._write(requests.compact(revision), timeout))[1])

    # The cluster.

    def status(self, *, timeout: float | None = None) -> list[dict[str, Any]]:
        """What every member says about itself, asked in person; `role` "unreachable" and `errors` for those that do not answer.

        Never raises for a member that is down. Keys: name, id, endpoint, role, term, leader, commit_index, applied_index, revision,
        db_size_bytes, version, errors.
        """
        from raftkv.client import roster

        census = roster.Census(self._directory)
        while addresses := census.next_addresses():
            for address in addresses:
                census.add(address, self._ask_status(address, timeout))
        return census.rows()

    def ping(self, *, timeout: float | None = None) -> float:
        """Ask a member for a sign of life. Returns the round trip in seconds, connecting included when there was no connection."""
        started_at = monotonic()
        self._read([PING], True, timeout)
        return monotonic() - started_at

    # How calls go out.

    @property
    def _timeout_s(self) -> float:
        """The deadline of a call that does not say."""
        return self._options.timeout_s

    def _write(self, command: Command, timeout: float | None) -> Answer:
        return self._caller.call(command, self._write_kind, timeout)

    def _read(self, command: Command, stale: bool, timeout: float | None) -> Answer:
        return self._caller.call(command, STALE_READ if stale else READ, timeout)

    def _control(self, command: Command, timeout: float | None) -> Answer:
        return self._caller.call(command, CONTROL, timeout)

    def _ask(self, address: str | None, command: Command, timeout: float | None) -> Answer:
        return self._caller.ask(address or self._directory.endpoints[0], command, timeout, PATIENT_READ)

    def _ask_leader(self, command: Command, timeout: float | None) -> Answer:
        return self._caller.call(command, QUESTION, timeout)

    def _wait(self, command: Command, timeout: float | None) -> Answer:
        """On connections of their own: each wait holds one, perhaps for hours, and whoever is to end the waiting needs one, too."""
        with self._caller.directory_lock:  # two threads may come at once
            self._caller.check_open()
            if self._waits is None:
                self._waits = Caller(Directory(self.endpoints), self._options._replace(session=False), WAITS_MAX)
        return self._waits.call(command, PATIENT_READ, timeout)

    def _open_watch(self, command: Command, progress: bool, timeout: float | None, patience: float | None) -> "Watch":
        from raftkv.client.watch import Watch
        from raftkv.client.watchstate import WatchState

        timeout = self._options.timeout_s if timeout is None else timeout
        state = WatchState(command, progress=progress)
        watch = Watch(self._caller, self._options, state, timeout, patience, self._watches.discard)
        with self._caller.directory_lock:
            self._caller.check_open()
            self._watches.add(watch)
        return watch

    def _lease_keeper(self) -> "Keeper":
        """What keeps the leases of this client alive, in a thread and on a connection of its own; made with the first lease."""
        from raftkv.client.keptlease import Keeper

        with self._caller.directory_lock:
            self._caller.check_open()
            if self._keeper is None or self._keeper.is_of_another_process:
                caller = Caller(Directory(self.endpoints), self._options._replace(session=False), 1)
                self._keeper = Keeper(caller, self._options.timeout_s)
            return self._keeper

    def _revoke_kept(self, timeout: float) -> None:
        """End the leases that are kept alive, for an owner who goes away in the middle of things. What fails expires by itself."""
        for lease_id in self._keeper.ours() if self._keeper is not None else ():
            try:
                self.lease_revoke(lease_id, timeout=timeout)
            except RaftKVError:
                pass

    def _range(self, command: Command, stale: bool, timeout: float | None) -> RangeResult:
        pager = Pager(command)
        kvs: list[KeyValue] = []
        while pager.command is not None:
            kvs += pager.feed(self._read(pager.command, stale, timeout))
        return pager.result(kvs)

    def _commit(self, command: Command, timeout: float | None) -> TxnResult:
        command = as_read(command)
        if command[0] == READ_TXN:
            return txn_result(self._read(command, False, timeout))
        return txn_result(self._write(command, timeout))

    def _ask_status(self, address: str, timeout: float | None) -> Mapping[str, Any] | RaftKVError:
        try:
            answer = self._caller.ask(address, [STATUS], timeout, STALE_READ)
        except RaftKVError as error:
            return error
        return cast(Mapping[str, Any], answer[1])

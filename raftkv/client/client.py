"""The asyncio client: every verb, on a Dispatcher. `raftkv.connect` makes one; docs/client.md is its page for users.

Each method builds a command (requests.py), awaits one answer (dispatch.py) and gives it a name (results.py). The blocking twin with
the same names and meanings is sync.py; a test holds the two together.
"""

import asyncio
from typing import TYPE_CHECKING, Any, AsyncIterator, Awaitable, Final, Mapping, Self, Sequence, TypeVar, cast, overload

from raftkv.client import requests, roster
from raftkv.client.auth_verbs import AsyncAuthVerbs
from raftkv.client.cluster_verbs import AsyncClusterVerbs
from raftkv.client.decisions import BARE_WRITE, CONTROL, PATIENT_READ, QUESTION, READ, STALE_READ, WRITE
from raftkv.client.dispatch import Dispatcher
from raftkv.client.endpoints import Directory, parse_endpoints
from raftkv.client.lease_verbs import AsyncLeaseVerbs
from raftkv.client.options import (
    DEFAULT_ENDPOINTS,
    DEFAULT_IDLE_S,
    DEFAULT_LIFETIME_S,
    DEFAULT_TIMEOUT_S,
    make_options,
)
from raftkv.client.requests import PAGE_KEYS, Bytes, Pager, SortBy, as_bytes
from raftkv.client.results import (
    DeleteResult,
    KeyValue,
    PutResult,
    RangeResult,
    TxnResult,
    delete_result,
    key_value_or_none,
    txn_result,
)
from raftkv.client.tls import Tls, connector
from raftkv.client.txn import Txn
from raftkv.client.watch_verbs import AsyncWatchVerbs
from raftkv.errors import ClientClosed, RaftKVError
from raftkv.units import Revision
from raftkv.wire.commands import GET, PREV_KV, PUT, READ_TXN, SERIALIZABLE, Answer, Command, as_read
from raftkv.wire.protocol import PING, STATUS

if TYPE_CHECKING:
    from raftkv.client.keptlease_async import AsyncKeeper
    from raftkv.client.watch_async import AsyncWatch, AsyncWatches

Default = TypeVar("Default")

PING_COMMAND: Final = [PING]


def connect(
    endpoints: str | Sequence[str] = DEFAULT_ENDPOINTS,
    *,
    cluster_name: str | None = None,
    timeout: float = DEFAULT_TIMEOUT_S,
    attempt_timeout: float | None = None,
    session: bool = True,
    connection_lifetime: float = DEFAULT_LIFETIME_S,
    idle_check_after: float = DEFAULT_IDLE_S,
    client_name: str = "raftkv-python-async",
    user: str | None = None,
    password: str = "",
    tls: Tls | None = None,
) -> "AsyncClient":
    """A client for asyncio: `async with raftkv.connect("a:2379,b:2379") as kv:`. It connects with its first call.

    `cluster_name` pins the cluster: another one is refused with ClusterMismatch. `timeout` (seconds) is the deadline of a call,
    `attempt_timeout` that of one member within it (default: a third of `timeout`, at most 1 s). With `session=False` an uncertain
    write raises OutcomeUnknown instead of being repeated. Each connection logs in as `user`, if there is one, and speaks TLS with `tls` or with
    endpoints that begin with https://. `connection_lifetime` and `idle_check_after` are seconds too. Raises ConfigError.
    """
    return AsyncClient(
        endpoints,
        cluster_name=cluster_name,
        timeout=timeout,
        attempt_timeout=attempt_timeout,
        session=session,
        connection_lifetime=connection_lifetime,
        idle_check_after=idle_check_after,
        client_name=client_name,
        user=user,
        password=password,
        tls=tls,
    )


class AsyncClient(AsyncLeaseVerbs, AsyncWatchVerbs, AsyncClusterVerbs, AsyncAuthVerbs):
    """A client for one event loop. All its calls share one connection per member; use it from as many tasks as you like."""

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
        client_name: str = "raftkv-python-async",
        user: str | None = None,
        password: str = "",
        tls: Tls | None = None,
    ) -> None:
        self._options = make_options(
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
        self._directory = Directory(parse_endpoints(endpoints))
        self._write_kind = WRITE if session else BARE_WRITE
        self._dispatcher: Dispatcher | None = None
        self._submit = self._first_submit
        self._closed = False
        self._keeper: AsyncKeeper | None = None
        self._watches: AsyncWatches | None = None

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The client's own list, as given."""
        return self._directory.endpoints

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Hang up. Calls under way end with ClientClosed; nothing stays pending in the loop."""
        self._closed = True
        if self._keeper is not None:
            await self._keeper.close()
        if self._watches is not None:
            await self._watches.close()
        if self._dispatcher is not None:
            await self._dispatcher.close()

    # Keys.

    async def put(
        self, key: Bytes, value: Bytes, *, lease: int = 0, prev_kv: bool = False, timeout: float | None = None
    ) -> PutResult:
        """Write a key."""
        command = [
            PUT,
            0,
            key if type(key) is bytes else as_bytes(key),
            value if type(value) is bytes else as_bytes(value),
            lease,
            PREV_KV if prev_kv else 0,
        ]
        answer = await self._submit(command, self._write_kind, timeout)
        return PutResult(answer[1], key_value_or_none(answer[2]) if answer[2] else None)

    @overload
    async def get(
        self, key: Bytes, default: None = None, *, stale: bool = False, timeout: float | None = None
    ) -> bytes | None: ...

    @overload
    async def get(
        self, key: Bytes, default: Default, *, stale: bool = False, timeout: float | None = None
    ) -> bytes | Default: ...

    async def get(self, key: Bytes, default: Any = None, *, stale: bool = False, timeout: float | None = None) -> Any:
        """The value of a key, `default` when it does not exist. Linearizable unless `stale`."""
        command = [GET, SERIALIZABLE if stale else 0, key if type(key) is bytes else as_bytes(key)]
        answer = await self._submit(command, STALE_READ if stale else READ, timeout)
        items = answer[2]
        return items[5] if items else default

    async def get_kv(self, key: Bytes, *, stale: bool = False, timeout: float | None = None) -> KeyValue | None:
        """A key with its revisions, version and lease; None when it does not exist."""
        answer = await self._read(requests.get(key, stale), stale, timeout)
        return key_value_or_none(answer[2])

    async def range(
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
        return await self._range(command, stale, timeout)

    async def get_prefix(self, prefix: Bytes, *, stale: bool = False, timeout: float | None = None) -> list[KeyValue]:
        """All keys with a prefix, in order, at one revision."""
        return (await self._range(requests.range_(prefix=prefix, stale=stale), stale, timeout)).kvs

    async def scan(
        self, prefix: Bytes = b"", *, page_keys: int = PAGE_KEYS, stale: bool = False, timeout: float | None = None
    ) -> AsyncIterator[KeyValue]:
        """Iterate over the keys with a prefix, page by page, all at the revision of the first page.

        `timeout` is per page. Raises Compacted when the revision is compacted during a long scan: begin again.
        """
        pager = Pager(requests.range_(prefix=prefix, stale=stale), page_keys)
        while pager.command is not None:
            for kv in pager.feed(await self._read(pager.command, stale, timeout)):
                yield kv

    async def count(self, prefix: Bytes = b"", *, stale: bool = False, timeout: float | None = None) -> int:
        """How many keys have a prefix."""
        command = requests.range_(prefix=prefix, count_only=True, stale=stale)
        return (await self._range(command, stale, timeout)).count

    async def delete(self, key: Bytes, *, timeout: float | None = None) -> int:
        """Delete a key. Returns how many were deleted: 1 or 0."""
        answer = await self._write(requests.delete(key), timeout)
        return delete_result(answer).deleted

    async def delete_prefix(self, prefix: Bytes, *, timeout: float | None = None) -> int:
        """Delete all keys with a prefix, at one revision. Returns how many were deleted."""
        answer = await self._write(requests.delete_prefix(prefix), timeout)
        return delete_result(answer).deleted

    async def delete_range(
        self, key: Bytes, range_end: Bytes, *, prev_kv: bool = False, timeout: float | None = None
    ) -> DeleteResult:
        """Delete [key, range_end) at one revision; with `prev_kv` the result holds what was there."""
        return delete_result(await self._write(requests.delete(key, range_end, prev_kv), timeout))

    # Conditions.

    def txn(self) -> Txn[Awaitable[TxnResult]]:
        """A transaction: `await kv.txn().if_(Value("k") == b"x").then(Put("k", "y")).else_(Get("k")).commit()`."""
        return Txn(self._commit)

    async def compare_and_set(
        self, key: Bytes, expected: Bytes | None, value: Bytes, *, timeout: float | None = None
    ) -> bool:
        """Write the key if it holds `expected` (None: if it does not exist). Returns whether it was written."""
        return bool((await self._write(requests.compare_and_set(key, expected, value), timeout))[2])

    async def put_if_absent(self, key: Bytes, value: Bytes, *, timeout: float | None = None) -> bool:
        """Write the key if it does not exist. Returns whether it was written."""
        return await self.compare_and_set(key, None, value, timeout=timeout)

    async def increment(self, key: Bytes, delta: int = 1, *, lease: int = 0, timeout: float | None = None) -> int:
        """Add to a decimal number; a missing key counts as 0. Returns the new number. Raises NotANumber.

        `lease`: of a key that is made; one that exists keeps its own.
        """
        return int((await self._write(requests.increment(key, delta, lease), timeout))[2])

    async def append(self, key: Bytes, value: Bytes, *, lease: int = 0, timeout: float | None = None) -> int:
        """Append to a value; a missing key counts as empty. Returns the new length in bytes. `lease` as of `increment`."""
        return int((await self._write(requests.append(key, value, lease), timeout))[2])

    async def compact(self, revision: Revision, *, timeout: float | None = None) -> Revision:
        """Let go of history before `revision`; reads and watches at it still work. Returns the store's revision.

        Raises Compacted when that was done before, FutureRevision when it is not reached. The cluster does so by itself, too.
        """
        return int((await self._write(requests.compact(revision), timeout))[1])

    # The cluster.

    async def status(self, *, timeout: float | None = None) -> list[dict[str, Any]]:
        """What every member says about itself, asked in person; `role` "unreachable" and `errors` for those that do not answer.

        Never raises for a member that is down. Keys: name, id, endpoint, role, term, leader, commit_index, applied_index, revision,
        db_size_bytes, version, errors.
        """
        census = roster.Census(self._directory)
        while addresses := census.next_addresses():
            replies = await asyncio.gather(*(self._ask_status(address, timeout) for address in addresses))
            for address, reply in zip(addresses, replies, strict=True):
                census.add(address, reply)
        return census.rows()

    async def ping(self, *, timeout: float | None = None) -> float:
        """Ask a member for a sign of life. Returns the round trip in seconds, connecting included when there was no connection."""
        loop = asyncio.get_running_loop()
        started_at = loop.time()
        await self._read(list(PING_COMMAND), True, timeout)
        return loop.time() - started_at

    # How calls go out.

    @property
    def _timeout_s(self) -> float:
        """The deadline of a call that does not say."""
        return self._options.timeout_s

    def _first_submit(self, command: Command, kind: int, timeout_s: float | None) -> asyncio.Future[Answer]:
        """The client belongs to the loop of its first call."""
        if self._closed:
            raise ClientClosed()
        self._submit = self._bind().submit
        return self._submit(command, kind, timeout_s)

    def _bind(self) -> Dispatcher:
        if self._dispatcher is None:
            self._dispatcher = Dispatcher(self._directory, self._options)
        return self._dispatcher

    def _write(self, command: Command, timeout: float | None) -> asyncio.Future[Answer]:
        return self._submit(command, self._write_kind, timeout)

    def _read(self, command: Command, stale: bool, timeout: float | None) -> asyncio.Future[Answer]:
        return self._submit(command, STALE_READ if stale else READ, timeout)

    def _control(self, command: Command, timeout: float | None) -> asyncio.Future[Answer]:
        return self._submit(command, CONTROL, timeout)

    async def _ask(self, address: str | None, command: Command, timeout: float | None) -> Answer:
        if self._closed:
            raise ClientClosed()
        return await self._bind().ask(address or self._directory.endpoints[0], command, timeout, PATIENT_READ)

    def _ask_leader(self, command: Command, timeout: float | None) -> asyncio.Future[Answer]:
        return self._submit(command, QUESTION, timeout)

    def _wait(self, command: Command, timeout: float | None) -> asyncio.Future[Answer]:
        return self._submit(command, PATIENT_READ, timeout)

    def _open_watch(
        self, command: Command, progress: bool, timeout: float | None, patience: float | None
    ) -> "AsyncWatch":
        from raftkv.client.watch_async import AsyncWatch, AsyncWatches
        from raftkv.client.watchstate import WatchState

        if self._closed:
            raise ClientClosed()
        if self._watches is None:
            self._watches = AsyncWatches(self._directory, self._options)
        timeout = self._options.timeout_s if timeout is None else timeout
        return AsyncWatch(self._watches, WatchState(command, progress=progress), timeout, patience)

    def _lease_keeper(self) -> "AsyncKeeper":
        """What keeps the leases of this client alive, on a connection of its own; made with the first lease."""
        if self._keeper is None:
            from raftkv.client.keptlease_async import AsyncKeeper

            self._keeper = AsyncKeeper(Dispatcher(self._directory, self._options._replace(session=False)))
        return self._keeper

    async def _range(self, command: Command, stale: bool, timeout: float | None) -> RangeResult:
        pager = Pager(command)
        kvs: list[KeyValue] = []
        while pager.command is not None:
            kvs += pager.feed(await self._read(pager.command, stale, timeout))
        return pager.result(kvs)

    async def _commit(self, command: Command, timeout: float | None) -> TxnResult:
        command = as_read(command)
        if command[0] == READ_TXN:
            return txn_result(await self._read(command, False, timeout))
        return txn_result(await self._write(command, timeout))

    async def _ask_status(self, address: str, timeout: float | None) -> Mapping[str, Any] | RaftKVError:
        if self._closed:
            raise ClientClosed()
        try:
            answer = await self._bind().ask(address, [STATUS], timeout, STALE_READ)
        except RaftKVError as error:
            return error
        return cast(Mapping[str, Any], answer[1])

"""What a recipe needs of a client, and how one recipe serves both kinds of client.

Recipes are `async def` over Verbs, which the asyncio client is by itself. For the blocking client `BlockingVerbs` puts its calls behind
the same face: they do their work before they return, so that such a coroutine never suspends, and `run` takes it to its end in one step,
without a loop. Nothing here imports asyncio.
"""

from types import TracebackType
from typing import (
    TYPE_CHECKING,
    Any,
    AsyncIterator,
    Awaitable,
    Coroutine,
    Iterator,
    Literal,
    Protocol,
    Sequence,
    TypeVar,
)

from raftkv.client.requests import Bytes, SortBy
from raftkv.client.results import GrantedLease, KeyValue, LeaseInfo, PutResult, RangeResult, TxnResult
from raftkv.client.txn import Txn
from raftkv.client.watch_verbs import Until, WaitResult
from raftkv.units import Revision
from raftkv.wire.commands import Answer, Command

if TYPE_CHECKING:
    from raftkv.client.sync import Client
    from raftkv.client.watchstate import Event

T = TypeVar("T")
Only = Literal["put", "delete"]


class Flag(Protocol):
    """An event, asyncio's or threading's: `wait` is the user's business."""

    def is_set(self) -> bool: ...


class Kept(Protocol):
    """A lease that is kept alive: AsyncKeptLease, or the blocking one behind its face."""

    @property
    def id(self) -> int: ...

    @property
    def ttl(self) -> float: ...

    @property
    def valid_for(self) -> float: ...

    @property
    def lost(self) -> Flag: ...

    @property
    def doubt(self) -> Flag: ...

    async def __aenter__(self) -> "Kept": ...

    async def revoke(self) -> None: ...


class Watching(Protocol):
    """A watch, to be entered and iterated over."""

    async def __aenter__(self) -> "Watching": ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def __aiter__(self) -> AsyncIterator["Event"]: ...


class GuardedVerbs(Protocol):
    """Guarded writes, as far as recipes make some themselves."""

    async def put(
        self, key: Bytes, value: Bytes, *, lease: int = 0, prev_kv: bool = False, timeout: float | None = None
    ) -> PutResult: ...

    async def delete(self, key: Bytes, *, timeout: float | None = None) -> int: ...

    async def increment(self, key: Bytes, delta: int = 1, *, lease: int = 0, timeout: float | None = None) -> int: ...

    async def append(self, key: Bytes, value: Bytes, *, lease: int = 0, timeout: float | None = None) -> int: ...

    def txn(self) -> Txn[Awaitable[TxnResult]]: ...


class Verbs(Protocol):
    """The verbs that recipes are written on. The asyncio client has them."""

    async def put(
        self, key: Bytes, value: Bytes, *, lease: int = 0, prev_kv: bool = False, timeout: float | None = None
    ) -> PutResult: ...

    async def get_kv(self, key: Bytes, *, stale: bool = False, timeout: float | None = None) -> KeyValue | None: ...

    async def get_prefix(
        self, prefix: Bytes, *, stale: bool = False, timeout: float | None = None
    ) -> list[KeyValue]: ...

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
    ) -> RangeResult: ...

    async def delete(self, key: Bytes, *, timeout: float | None = None) -> int: ...

    async def delete_prefix(self, prefix: Bytes, *, timeout: float | None = None) -> int: ...

    def txn(self) -> Txn[Awaitable[TxnResult]]: ...

    async def compare_and_set(
        self, key: Bytes, expected: Bytes | None, value: Bytes, *, timeout: float | None = None
    ) -> bool: ...

    async def put_if_absent(self, key: Bytes, value: Bytes, *, timeout: float | None = None) -> bool: ...

    async def increment(self, key: Bytes, delta: int = 1, *, lease: int = 0, timeout: float | None = None) -> int: ...

    async def append(self, key: Bytes, value: Bytes, *, lease: int = 0, timeout: float | None = None) -> int: ...

    def guarded(self, key: Bytes, create_revision: Revision) -> "GuardedVerbs": ...

    def lease(self, ttl: float, *, timeout: float | None = None, shared_id: int = 0) -> Kept: ...

    async def lease_grant(self, ttl: float, *, lease_id: int = 0, timeout: float | None = None) -> GrantedLease: ...

    async def lease_revoke(self, lease_id: int, *, timeout: float | None = None) -> int: ...

    async def lease_keep_alive_once(self, lease_id: int, *, timeout: float | None = None) -> float: ...

    async def lease_ttl(self, lease_id: int, *, keys: bool = False, timeout: float | None = None) -> LeaseInfo: ...

    async def wait_for(
        self,
        keys: Sequence[Bytes],
        *,
        until: Until = "exists",
        any: bool = False,
        after: Revision = 0,
        timeout: float | None = None,
    ) -> WaitResult: ...

    def watch(
        self,
        key: Bytes | None = None,
        range_end: Bytes | None = None,
        *,
        prefix: Bytes | None = None,
        start_revision: Revision = 0,
        prev_kv: bool = False,
        only: Only | None = None,
        progress: bool = False,
        timeout: float | None = None,
        patience: float | None = None,
    ) -> Watching: ...

    @property
    def _timeout_s(self) -> float: ...

    def _write(self, command: Command, timeout: float | None) -> Awaitable[Answer]: ...

    def _read(self, command: Command, stale: bool, timeout: float | None) -> Awaitable[Answer]: ...


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Take a recipe on BlockingVerbs to its end."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    coroutine.close()
    raise AssertionError("a recipe on blocking verbs never suspends")


def iterate(items: AsyncIterator[T]) -> Iterator[T]:
    """The items of a recipe on BlockingVerbs, each waited for where it is asked for."""
    stream: Any = items
    try:
        while True:
            try:
                yield run(stream.__anext__())
            except StopAsyncIteration:
                return
    finally:
        run(stream.aclose())


class _BlockingKept:
    """A KeptLease of the blocking client, as Kept."""

    def __init__(self, lease: Any) -> None:
        self._lease = lease
        self.id: int
        self.lost: Flag = lease.lost
        self.doubt: Flag = lease.doubt

    @property
    def ttl(self) -> float:
        return float(self._lease.ttl)

    @property
    def valid_for(self) -> float:
        return float(self._lease.valid_for)

    async def __aenter__(self) -> "_BlockingKept":
        self._lease.__enter__()
        self.id = self._lease.id
        return self

    async def revoke(self) -> None:
        self._lease.revoke()


class _BlockingWatching:
    """A Watch of the blocking client, as Watching. Iterating over it goes on where the last one stopped."""

    def __init__(self, watch: Any) -> None:
        self._watch = watch

    async def __aenter__(self) -> "_BlockingWatching":
        self._watch.__enter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watch.__exit__(kind, error, trace)

    def __aiter__(self) -> "_BlockingWatching":
        return self

    async def __anext__(self) -> "Event":
        for event in self._watch:
            heard: Event = event
            return heard
        raise StopAsyncIteration


def kept(lease: Any) -> Kept:
    """A lease that a user has entered, of either client, for a recipe."""
    if hasattr(lease, "__aenter__"):
        asynchronous: Kept = lease
        return asynchronous
    blocking = _BlockingKept(lease)
    blocking.id = lease.id
    return blocking


class BlockingVerbs:
    """Verbs of a blocking client, or of its guarded writes. Each call is done when it returns; `run` is what may wait for it."""

    def __init__(self, kv: Any) -> None:
        self.kv = kv

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.kv, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            return method(*args, **kwargs)

        setattr(self, name, call)
        return call

    @property
    def _timeout_s(self) -> float:
        """The deadline of a call that does not say."""
        return float(self.kv._timeout_s)

    def txn(self) -> Txn[Awaitable[TxnResult]]:
        """As the client's; `commit` is to be awaited."""

        async def commit(command: Command, timeout: float | None) -> TxnResult:
            result: TxnResult = self.kv._commit(command, timeout)
            return result

        return Txn(commit)

    def guarded(self, key: Bytes, create_revision: Revision) -> "BlockingVerbs":
        """As the client's."""
        return BlockingVerbs(self.kv.guarded(key, create_revision))

    def lease(self, ttl: float, *, timeout: float | None = None, shared_id: int = 0) -> Kept:
        """As the client's."""
        return _BlockingKept(self.kv.lease(ttl, timeout=timeout, shared_id=shared_id))

    def watch(self, *args: Any, **kwargs: Any) -> Watching:
        """As the client's."""
        return _BlockingWatching(self.kv.watch(*args, **kwargs))


def blocking(kv: "Client") -> Verbs:
    """The verbs of a blocking client, for recipes."""
    verbs: Any = BlockingVerbs(kv)
    face: Verbs = verbs
    return face

"""What a workload asks of a client, whatever carries it: raftkv's own library, or etcd's gRPC to raftkv and to etcd.

Keys and values are text here, as in the history. Each call is one attempt of the engine and ends with an answer or a ClientError.
An engine says what it can do (`features`); a workload that needs more is skipped with that reason.
"""

from typing import Any, AsyncIterator, Callable, Final, Mapping, NamedTuple, Protocol, Sequence

SESSIONS: Final = "exactly-once sessions"
NUMBERS: Final = "increment and append"
GUARDS: Final = "guarded writes"
LOCKS: Final = "locks"


class ClientError(Exception):
    """No answer, or a refusal; `may_have_happened` is what it says about a write."""

    def __init__(self, message: str, *, may_have_happened: bool) -> None:
        super().__init__(message)
        self.may_have_happened = may_have_happened


class Held(NamedTuple):
    """A key as it is."""

    value: str
    create_revision: int
    mod_revision: int


class Change(NamedTuple):
    """One event of a watch."""

    kind: str
    """"put" or "delete"."""
    key: str
    value: str
    previous: str | None


class Batch(NamedTuple):
    """All changes of one revision; none: everything up to `revision` was heard (a bookmark)."""

    revision: int
    changes: list[Change]


class Transacted(NamedTuple):
    """What a transaction answered: its reads are of the moment before its writes."""

    succeeded: bool
    read: dict[str, str | None]
    revision: int


class Lock(Protocol):
    """A lock of one owner (raftkv.recipes.lock, or what does the same)."""

    async def acquire(self, timeout_s: float) -> int:
        """The fencing token. Raises ClientError when the lock was not to be had."""
        ...

    async def release(self) -> None: ...

    @property
    def surely_held(self) -> bool:
        """The owner may rely on it at this moment, without asking anybody."""
        ...

    @property
    def lease(self) -> int: ...

    async def guarded_put(self, key: str, value: str) -> int:
        """The revision. Raises ClientError: refused when the lock is lost."""
        ...


class Client(Protocol):
    """One client process. `session`: it may repeat an uncertain write, and must not do it twice."""

    session: bool
    features: frozenset[str]

    async def get(self, key: str, *, node: str = "") -> Held | None:
        """Linearizable; `node` is the member to ask, any otherwise."""
        ...

    async def keys(self, prefix: str) -> list[str]: ...

    async def put(self, key: str, value: str, *, lease: int = 0) -> int:
        """The revision."""
        ...

    async def compare_and_set(self, key: str, expected: str | None, value: str) -> bool: ...

    async def transact(
        self, expected: Mapping[str, str | None], writes: Mapping[str, str], reads: Sequence[str]
    ) -> Transacted: ...

    async def increment(self, key: str, delta: int) -> int: ...

    async def append(self, key: str, text: str) -> int:
        """The new length."""
        ...

    async def grant(self, ttl_s: float) -> tuple[int, float]:
        """Id and time to live in seconds."""
        ...

    async def keep_alive(self, lease: int) -> float:
        """The time to live in seconds, counted from before the call."""
        ...

    async def revoke(self, lease: int) -> None: ...

    def watch(self, prefix: str, start_revision: int) -> AsyncIterator[Batch]: ...

    def lock(self, name: str, ttl_s: float) -> Lock: ...

    async def close(self) -> None: ...


ClientFactory = Callable[..., Any]
"""(number, session) -> Client; called in the clients' event loop."""

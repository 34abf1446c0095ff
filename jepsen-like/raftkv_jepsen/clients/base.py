"""What a workload asks of a client, whatever carries it: raftkv's own library, or etcd's gRPC to raftkv and to etcd.

Keys and values are text here, as in the history. Each call is one attempt of the engine and ends with an answer or a ClientError.
An engine says what it can do (`features`); a workload that needs more is skipped with that reason.
"""

from typing import TYPE_CHECKING, Any, AsyncIterator, Callable, Final, Mapping, NamedTuple, Protocol, Sequence

if TYPE_CHECKING:
    from raftkv_jepsen.clients.elections import Election
    from raftkv_jepsen.clients.users import Users

SESSIONS: Final = "exactly-once sessions"
NUMBERS: Final = "increment and append"
GUARDS: Final = "guarded writes"
LOCKS: Final = "locks"
RECIPES: Final = "recipes of raftkv"


class ClientError(Exception):
    """No answer, or a refusal; `may_have_happened` is what it says about a write, `history_begins` of a watch that came too late: at which revision."""

    def __init__(self, message: str, *, may_have_happened: bool, history_begins: int = 0) -> None:
        super().__init__(message)
        self.may_have_happened = may_have_happened
        self.history_begins = history_begins


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


class Share(Protocol):
    """A part of something that is counted: of a semaphore, or of a pool."""

    async def acquire(self, timeout_s: float) -> int:
        """The fencing token. Raises ClientError."""
        ...

    async def release(self) -> None: ...

    @property
    def surely_held(self) -> bool: ...


class Claim(Protocol):
    """An item of a queue in somebody's hands."""

    value: str
    token: int

    async def acknowledge(self) -> None:
        """Raises ClientError: refused when the claim was lost."""
        ...

    async def give_back(self) -> None: ...


class Queue(Protocol):
    """raftkv.recipes.queue, for one worker."""

    async def put(self, value: str) -> None: ...

    async def claim(self, timeout_s: float) -> Claim:
        """Raises ClientError when there is nothing to do."""
        ...

    async def close(self) -> None: ...


class Meeting(Protocol):
    """raftkv.recipes.barrier's meeting point, for one participant."""

    async def enter(self, timeout_s: float) -> None: ...

    async def leave(self, timeout_s: float) -> None: ...


class Door(Protocol):
    """Reads and writes as one user, at one kind of door. A read is linearizable, wherever it is asked."""

    async def get(self, key: str, *, node: str) -> Held | None: ...

    async def put(self, key: str, value: str, *, node: str) -> int: ...

    async def close(self) -> None: ...


class Gate(Protocol):
    """raftkv.recipes.barrier's gate."""

    async def close(self) -> bool:
        """Whether it was open."""
        ...

    async def open(self) -> bool:
        """Whether it was closed."""
        ...

    async def is_closed(self) -> bool: ...

    async def wait(self, timeout_s: float) -> None:
        """Until it is open. Raises ClientError."""
        ...


class Store(Protocol):
    """raftkv.recipes.rendezvous, for one participant of one round."""

    async def enter(self) -> int:
        """The token of the life of the round that we are in from here on. Raises ClientError."""
        ...

    async def add(self, key: str, amount: int) -> int: ...

    async def set(self, key: str, value: str) -> None: ...

    async def multi_get(self, keys: Sequence[str], timeout_s: float) -> list[str]:
        """Once all exist. Raises ClientError."""
        ...

    async def barrier(self, key: str, count: int, timeout_s: float) -> None: ...

    async def close(self) -> None: ...


class Recipes(Protocol):
    """What raftkv's recipes offer on top of a client."""

    def semaphore(self, name: str, capacity: int, weight: int, ttl_s: float) -> Share: ...

    async def make_pool(self, name: str, capacity: int) -> None:
        """It may exist already. Raises ClientError."""
        ...

    def pool(self, name: str, weight: int, ttl_s: float) -> Share: ...

    def queue(self, name: str, ttl_s: float) -> Queue: ...

    def jobs(self, name: str, ttl_s: float) -> Queue:
        """raftkv.recipes.jobs in the words of a queue: to acknowledge is to complete."""
        ...

    def meeting(self, name: str, count: int, ttl_s: float) -> Meeting: ...

    def gate(self, name: str) -> Gate: ...

    def store(self, run_id: str, round_: int, ttl_s: float) -> Store: ...


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

    def election(self, name: str, ttl_s: float) -> "Election":
        """An office that one of many holds; for one candidate, or for one who looks on."""
        ...

    @property
    def users(self) -> "Users":
        """Changes of users and roles."""
        ...

    @property
    def recipes(self) -> Recipes: ...

    async def close(self) -> None: ...


ClientFactory = Callable[..., Any]
"""(number, session) -> Client; called in the clients' event loop."""

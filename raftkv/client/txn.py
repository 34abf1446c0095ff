"""Transactions as they read: comparisons, operations, and the builder that both clients hand out.

    await kv.txn().if_(Value("job") == b"queued", Version("lock") == 0).then(Put("job", "running")).else_(Get("job")).commit()

Comparisons and operations are values without a connection, so they can be built anywhere and reused. The builder knows only the
function that sends a command; what it returns (a result, or something to await) is that function's.
"""

from typing import Any, Callable, Final, Generic, TypeAlias, TypeVar

from raftkv.client import requests
from raftkv.client.requests import Bytes, SortBy, as_bytes
from raftkv.units import Revision
from raftkv.wire.commands import (
    COMPARE_CREATE,
    COMPARE_LEASE,
    COMPARE_MOD,
    COMPARE_VALUE,
    COMPARE_VERSION,
    EQUAL,
    GREATER,
    LESS,
    NOT_EQUAL,
    TXN,
    Command,
    prefix_range_end,
)

Result_co = TypeVar("Result_co", covariant=True)

_SYMBOLS: Final = {EQUAL: "==", GREATER: ">", LESS: "<", NOT_EQUAL: "!="}


class Compare:
    """One comparison of a transaction; made by comparing a Value, Version, CreateRevision, ModRevision or Lease."""

    __slots__ = ("items",)

    def __init__(self, items: list[Any]) -> None:
        assert len(items) == 5, "result, target, key, operand, range_end"
        self.items = items

    def __bool__(self) -> bool:
        # `if_(Value("a") == b"1" and Version("b") == 0)` would silently drop the first comparison.
        raise TypeError("the cluster makes the comparison: pass it to if_(), several as several arguments")

    def __repr__(self) -> str:
        return f"<compare {self.items[2]!r} {_SYMBOLS[self.items[0]]} {self.items[3]!r}>"


class _Operand:
    """The left side of a comparison. With `prefix=True` it holds iff it holds for every key with that prefix."""

    __slots__ = ("_key", "_range_end")
    __hash__ = None  # type: ignore[assignment]  # equality makes a Compare, so it cannot find things in a dict

    _target: int

    def __init__(self, key: Bytes, *, prefix: bool = False) -> None:
        self._key = as_bytes(key)
        self._range_end = prefix_range_end(self._key) if prefix else b""

    def _compare(self, result: int, operand: bytes | int) -> Compare:
        return Compare([result, self._target, self._key, operand, self._range_end])


class Value(_Operand):
    """The value of a key. A missing key has none: no comparison of its value holds."""

    __slots__ = ()
    _target = COMPARE_VALUE

    def __eq__(self, operand: Bytes) -> Compare:  # type: ignore[override]
        return self._compare(EQUAL, as_bytes(operand))

    def __ne__(self, operand: Bytes) -> Compare:  # type: ignore[override]
        return self._compare(NOT_EQUAL, as_bytes(operand))

    def __gt__(self, operand: Bytes) -> Compare:
        return self._compare(GREATER, as_bytes(operand))

    def __lt__(self, operand: Bytes) -> Compare:
        return self._compare(LESS, as_bytes(operand))


class _NumberOperand(_Operand):
    __slots__ = ()

    def __eq__(self, operand: int) -> Compare:  # type: ignore[override]
        return self._compare(EQUAL, operand)

    def __ne__(self, operand: int) -> Compare:  # type: ignore[override]
        return self._compare(NOT_EQUAL, operand)

    def __gt__(self, operand: int) -> Compare:
        return self._compare(GREATER, operand)

    def __lt__(self, operand: int) -> Compare:
        return self._compare(LESS, operand)


class Version(_NumberOperand):
    """How often a key was written since it was created; 0 when it does not exist."""

    __slots__ = ()
    _target = COMPARE_VERSION


class CreateRevision(_NumberOperand):
    """The revision that created a key; 0 when it does not exist."""

    __slots__ = ()
    _target = COMPARE_CREATE


class ModRevision(_NumberOperand):
    """The revision that last wrote a key; 0 when it does not exist."""

    __slots__ = ()
    _target = COMPARE_MOD


class Lease(_NumberOperand):
    """The lease that a key is attached to; 0 when none."""

    __slots__ = ()
    _target = COMPARE_LEASE


class Operation:
    """One operation of a transaction's branch."""

    __slots__ = ("command",)

    def __init__(self, command: Command) -> None:
        self.command = command

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.command[2]!r}>"


class Put(Operation):
    """Write a key; answered by a PutResult."""

    __slots__ = ()

    def __init__(self, key: Bytes, value: Bytes, *, lease: int = 0, prev_kv: bool = False) -> None:
        super().__init__(requests.put(key, value, lease, prev_kv))


class Delete(Operation):
    """Delete a key, or [key, range_end); answered by a DeleteResult."""

    __slots__ = ()

    def __init__(self, key: Bytes, range_end: Bytes = b"", *, prev_kv: bool = False) -> None:
        super().__init__(requests.delete(key, range_end, prev_kv))


class Get(Operation):
    """Read a key; answered by a RangeResult with one key-value or none."""

    __slots__ = ()

    def __init__(self, key: Bytes) -> None:
        super().__init__(requests.range_(key))


class Range(Operation):
    """Read a range; answered by a RangeResult. The arguments are those of the client's `range`."""

    __slots__ = ()

    def __init__(
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
    ) -> None:
        super().__init__(
            requests.range_(
                key,
                range_end,
                prefix=prefix,
                limit=limit,
                revision=revision,
                sort_by=sort_by,
                descending=descending,
                keys_only=keys_only,
                count_only=count_only,
            )
        )


class Txn(Generic[Result_co]):
    """A transaction under construction. `commit` sends it; a transaction may itself be an operation of another one."""

    def __init__(self, submit: Callable[[Command, float | None], Result_co]) -> None:
        self._submit = submit
        self._compares: list[Compare] = []
        self._success: list[BranchItem] = []
        self._failure: list[BranchItem] = []

    def if_(self, *compares: Compare) -> "Txn[Result_co]":
        """All of these have to hold. Without any, the `then` branch is done."""
        self._compares += compares
        return self

    def then(self, *operations: "BranchItem") -> "Txn[Result_co]":
        """What to do, in order and at one revision, when the comparisons hold."""
        self._success += operations
        return self

    def else_(self, *operations: "BranchItem") -> "Txn[Result_co]":
        """What to do when they do not."""
        self._failure += operations
        return self

    @property
    def command(self) -> Command:
        """The transaction as a command of wire/commands.py."""
        return [
            TXN,
            0,
            [compare.items for compare in self._compares],
            [list(operation.command) for operation in self._success],
            [list(operation.command) for operation in self._failure],
        ]

    def commit(self, *, timeout: float | None = None) -> Result_co:
        """Send it. Returns a TxnResult (of the async client: to be awaited). Raises what every write may raise.

        One that only reads is a linearizable read: it costs no entry of the log, and any member answers it.
        """
        return self._submit(self.command, timeout)


BranchItem: TypeAlias = Operation | Txn[Any]


def exists(key: Bytes) -> Compare:
    """The key exists."""
    return Version(key) > 0


def missing(key: Bytes) -> Compare:
    """The key does not exist."""
    return Version(key) == 0

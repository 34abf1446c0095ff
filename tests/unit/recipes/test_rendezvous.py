"""The rendezvous' store when what comes behind a write fails: the error says that something has happened.

Found by the fault harness on containers: a rank was told that its `add` surely had not happened, because the attempt to put the new key on the
round's lease had not been sent, and the number had been taken. It is one write now; what is two still says so.
"""

from types import SimpleNamespace
from typing import Any, Awaitable, Callable

import pytest

from raftkv.errors import DeadlineExceeded, LeaseNotFound, LockLost, RaftKVError
from raftkv.recipes.rendezvous import OPERATIONS_PER_TXN, AsyncStore
from raftkv.recipes.rounds import Life


class HalfDone:
    """The verbs of a client: counters and the first `good` transactions and puts work, later ones were never sent."""

    def __init__(self, error: RaftKVError, good: int = 0) -> None:
        self._error = error
        self._good = good

    async def increment(self, name: bytes, amount: int = 1, *, lease: int = 0) -> int:
        await self.commit()
        return amount

    async def append(self, name: bytes, tail: bytes, *, lease: int = 0) -> int:
        await self.commit()
        return len(tail)

    async def put(self, *arguments: Any, **options: Any) -> None:
        await self.commit()

    def txn(self) -> "HalfDone":
        return self

    def if_(self, *conditions: Any) -> "HalfDone":
        return self

    def then(self, *operations: Any) -> "HalfDone":
        return self

    async def commit(self) -> None:
        if not self._good:
            raise self._error
        self._good -= 1


def store(error: RaftKVError, good: int = 0) -> AsyncStore:
    verbs: Any = HalfDone(error, good)
    lease: Any = SimpleNamespace(id=7)

    async def life() -> Life:
        return Life(lease, 5, verbs)

    scope: Any = SimpleNamespace(kv=verbs, prefix=b"rdzv/r/1/", life=life)
    return AsyncStore(scope)


KEYS = [b"%d" % number for number in range(OPERATIONS_PER_TXN + 1)]


@pytest.mark.parametrize(
    ("call", "good"),
    [
        (lambda store: store.barrier(b"all", 1), 1),
        (lambda store: store.multi_set(KEYS, KEYS), 1),
    ],
)
@pytest.mark.parametrize("error", [DeadlineExceeded, LeaseNotFound])
async def test_what_fails_behind_a_write_may_have_happened(
    call: Callable[[AsyncStore], Awaitable[Any]], good: int, error: type[RaftKVError]
) -> None:
    with pytest.raises((DeadlineExceeded, LockLost)) as raised:
        await call(store(error("never sent", may_have_happened=False), good))
    assert raised.value.may_have_happened


@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.set(b"key", b"value"),
        lambda store: store.multi_set(KEYS[:2], KEYS[:2]),
        lambda store: store.add(b"ranks", 1),
        lambda store: store.append(b"text", b"ab"),
        lambda store: store.barrier(b"all", 1),
    ],
)
async def test_what_was_not_sent_at_all_has_not(call: Callable[[AsyncStore], Awaitable[Any]]) -> None:
    with pytest.raises(DeadlineExceeded) as raised:
        await call(store(DeadlineExceeded("never sent", may_have_happened=False)))
    assert not raised.value.may_have_happened

"""Rivals: hundreds of tasks on a few clients that all want the same thing, while something happens to the cluster.

They count in a way that only mutual exclusion keeps right: read, think, write. The writes are guarded by the holder's fencing token, so a holder
that lost its lock without knowing it is refused instead of counting twice. Every writer leaves its token behind, in the same transaction.
"""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any, Awaitable, Callable

import raftkv
from raftkv.client.txn import Put, Value, missing
from raftkv.errors import FencingTokenStale, LockLost, NotAcquired, RaftKVError


@dataclass
class Tally:
    """What the rivals saw."""

    done: int = 0
    uncertain: int = 0
    lost: int = 0
    errors: list[str] = field(default_factory=list)


async def count_under(holder: Any, kv: raftkv.AsyncClient, tally: Any, key: str = "count") -> None:
    """One step of the counter, guarded; the value is the history of tokens."""
    before = await kv.get(key, b"")
    mine = holder.guard()
    condition = Value(key) == before if before else missing(key)
    try:
        written = await mine.txn().if_(condition).then(Put(key, before + b" %d" % holder.token)).commit(timeout=10)
    except FencingTokenStale:
        tally.lost += 1
        return
    except RaftKVError as error:
        tally.uncertain += error.may_have_happened
        return
    assert written.succeeded, "somebody else wrote between our read and our write, under our lock"
    tally.done += 1


async def rivalry(
    endpoints: str,
    hold: Callable[[raftkv.AsyncClient], Any],
    *,
    rivals: int,
    seconds: float,
    meanwhile: Callable[[], Awaitable[None]],
    clients: int = 4,
) -> Tally:
    """`rivals` tasks count under what `hold` makes, again and again for `seconds`, while `meanwhile` runs."""
    tally = Tally()
    ends_at = time.monotonic() + seconds
    opened = [raftkv.connect(endpoints, timeout=10) for _ in range(clients)]

    async def rival(kv: raftkv.AsyncClient) -> None:
        while time.monotonic() < ends_at:
            holder = hold(kv)
            try:
                await holder.acquire(max(0.1, ends_at - time.monotonic()))
            except NotAcquired:
                return
            except RaftKVError as error:
                tally.errors.append(f"{error.code}: {error.message}")
                continue
            try:
                await count_under(holder, kv, tally)
            finally:
                try:
                    await holder.release()
                except LockLost:
                    pass

    async with asyncio.TaskGroup() as group:
        for number in range(rivals):
            group.create_task(rival(opened[number % clients]))
        await meanwhile()
    for kv in opened:
        await kv.close()
    return tally


def check_count(endpoints: str, tally: Tally) -> int:
    """What was counted is what was acknowledged (what is uncertain counts once or never), by tokens that only grew."""
    with raftkv.Client(endpoints, timeout=20) as kv:
        tokens = [int(token) for token in kv.get("count", b"").split()]
    assert tokens == sorted(set(tokens)), "a token was used twice, or after a larger one"
    assert tally.done <= len(tokens) <= tally.done + tally.uncertain, tally
    return len(tokens)

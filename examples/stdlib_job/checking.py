"""The checks of the main job: is every acknowledged write there, once, unchanged, on every member?

A member is asked for what it has itself (stale reads are answered where they land), after all members reported the same
applied index, so that none can hide behind another.
"""

import asyncio
import time
from hashlib import sha256
from typing import Any, NamedTuple, Sequence

import raftkv
from raftkv.client.results import KeyValue
from stdlib_job.dataset import PREFIX
from stdlib_job.loading import COUNTER_PREFIX, Counter, Ledger

CATCH_UP_SECONDS_MAX = 60.0
POLL_SECONDS = 0.05
MUST_AGREE = ("applied_index", "revision", "digest", "term")


class Verdict(NamedTuple):
    """What one member holds of the ledger."""

    verified: int
    missing: list[str]
    damaged: list[str]
    twice: list[str]

    @property
    def ok(self) -> bool:
        return not (self.missing or self.damaged or self.twice)


async def wait_equal(client: raftkv.AsyncClient, names: Sequence[str]) -> tuple[list[dict[str, Any]], float]:
    """Wait until all members report the same state; their status and how long it took. Raises TimeoutError with what they said."""
    began = time.monotonic()
    while True:
        members = [dict(member) for member in await client.status()]
        seconds = time.monotonic() - began
        if {member.get("name") for member in members} >= set(names) and agree(members):
            return members, seconds
        if seconds > CATCH_UP_SECONDS_MAX:
            raise TimeoutError(f"the members do not agree after {seconds:.0f} s: {members}")
        await asyncio.sleep(POLL_SECONDS)


def agree(members: Sequence[dict[str, Any]]) -> bool:
    if any(member.get("applied_index") is None for member in members):
        return False
    return all(len({member.get(field) for member in members}) == 1 for field in MUST_AGREE)


async def check_member(client: raftkv.AsyncClient, ledger: Ledger, *, stale: bool) -> Verdict:
    """Compare everything that is stored with the ledger. `stale`: as the member that is asked has it, else linearizable."""
    stored = {kv.key: kv for kv in (await client.range(prefix=PREFIX, stale=stale)).kvs}
    counters = {kv.key: kv for kv in (await client.range(prefix=COUNTER_PREFIX, stale=stale)).kvs}
    verdict = Verdict(0, [], [], [])
    verified = sum(check_key(stored.get(key), key, digest, verdict) for key, digest in ledger.digests.items())
    never_written = set(stored).difference(ledger.digests, ledger.unknown_keys)
    verdict.damaged.extend(f"{text(key)}: was never written" for key in never_written)
    for counter in ledger.counters:
        check_counter(counters.get(counter.key.encode()), counter, verdict)
    return verdict._replace(verified=verified)


def check_key(kv: KeyValue | None, key: bytes, digest: bytes, verdict: Verdict) -> bool:
    if kv is None:
        verdict.missing.append(text(key))
        return False
    if sha256(kv.value).digest() != digest:
        verdict.damaged.append(text(key))
        return False
    # A key that was put once has version 1: a retry that was applied as well would have made it 2.
    if kv.version != 1:
        verdict.twice.append(f"{text(key)}: version {kv.version}")
        return False
    return True


def check_counter(kv: KeyValue | None, counter: Counter, verdict: Verdict) -> None:
    """Its value is the number of acknowledged increments, and at most those whose outcome nobody knew on top."""
    value = 0 if kv is None else int(kv.value)
    if value < counter.acknowledged:
        verdict.missing.append(f"{counter.key}: {value}, but {counter.acknowledged} were acknowledged")
    if value > counter.acknowledged + counter.unknown:
        verdict.twice.append(f"{counter.key}: {value}, but only {counter.acknowledged} were acknowledged")
    verdict.twice.extend(counter.surprises)


def text(key: bytes) -> str:
    return key.decode("utf-8", "replace")

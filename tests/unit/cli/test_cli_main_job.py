"""The main job's judgement: planted losses, damage and double applications must be found, or its OK would mean nothing."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from raftkv.client.results import KeyValue, RangeResult
from raftkv.errors import NoQuorum, OutcomeUnknown, RaftKVError
from stdlib_job.checking import agree, check_member
from stdlib_job.dataset import PART_BYTES, Part, source_files, split
from stdlib_job.loading import Ledger, load

PARTS = [Part(b"stdlib/a.py", b"a"), Part(b"stdlib/b.py", b"b"), Part(b"stdlib/c.py", b"c")]


class FakeCluster:
    """As much of the client as the job uses; errors to raise are popped one per call."""

    def __init__(self) -> None:
        self.store: dict[bytes, KeyValue] = {}
        self.errors: list[RaftKVError] = []

    def write(self, key: bytes, value: bytes) -> None:
        version = self.store[key].version + 1 if key in self.store else 1
        self.store[key] = KeyValue(key, 1, 1, version, 0, value)

    async def put(self, key: bytes, value: bytes) -> None:
        if self.errors:
            raise self.errors.pop()
        self.write(key, value)

    async def increment(self, key: str) -> int:
        await asyncio.sleep(0)  # the others have their turn, as with a real client
        value = int(self.store[key.encode()].value) + 1 if key.encode() in self.store else 1
        self.write(key.encode(), b"%d" % value)
        return value

    async def range(self, *, prefix: str, stale: bool) -> RangeResult:
        kvs = [kv for key, kv in sorted(self.store.items()) if key.startswith(prefix.encode())]
        return RangeResult(kvs, False, len(kvs), 1)


async def loaded(cluster: Any) -> Ledger:
    ledger = Ledger()
    await load(cluster, PARTS, ledger, lanes=2, counters=1, on_progress=lambda acknowledged: None)
    return ledger


async def test_a_healthy_cluster_is_ok() -> None:
    cluster: Any = FakeCluster()
    ledger = await loaded(cluster)
    verdict = await check_member(cluster, ledger, stale=True)
    assert verdict.ok
    assert verdict.verified == len(PARTS)
    assert ledger.increments >= 1


async def test_a_loss_is_found() -> None:
    cluster: Any = FakeCluster()
    ledger = await loaded(cluster)
    del cluster.store[b"stdlib/b.py"]
    verdict = await check_member(cluster, ledger, stale=True)
    assert verdict.missing == ["stdlib/b.py"]
    assert not verdict.ok


async def test_damage_is_found() -> None:
    cluster: Any = FakeCluster()
    ledger = await loaded(cluster)
    cluster.store[b"stdlib/b.py"] = cluster.store[b"stdlib/b.py"]._replace(value=b"B")
    cluster.write(b"stdlib/never.py", b"x")
    verdict = await check_member(cluster, ledger, stale=True)
    assert verdict.damaged == ["stdlib/b.py", "stdlib/never.py: was never written"]


async def test_a_double_application_is_found() -> None:
    cluster: Any = FakeCluster()
    ledger = await loaded(cluster)
    cluster.write(b"stdlib/b.py", b"b")
    await cluster.increment("counter/0")
    verdict = await check_member(cluster, ledger, stale=True)
    assert [fault.partition(":")[0] for fault in verdict.twice] == ["stdlib/b.py", "counter/0"]


async def test_a_lost_increment_is_found() -> None:
    cluster: Any = FakeCluster()
    ledger = await loaded(cluster)
    ledger.counters[0].acknowledged += 1
    verdict = await check_member(cluster, ledger, stale=True)
    assert verdict.missing[0].startswith("counter/0")


async def test_an_increment_whose_answer_jumps_is_found() -> None:
    cluster: Any = FakeCluster()
    cluster.write(b"counter/0", b"7")
    verdict = await check_member(cluster, await loaded(cluster), stale=True)
    assert any("the answer 8 is not within 1 and 1" in fault for fault in verdict.twice)


async def test_unknown_outcomes_are_not_counted_as_acknowledged_and_refusals_are_repeated() -> None:
    cluster: Any = FakeCluster()
    cluster.errors = [OutcomeUnknown(), NoQuorum()]
    ledger = await loaded(cluster)
    assert len(ledger.unknown_keys) == 1
    assert len(ledger.digests) == len(PARTS) - 1
    assert (await check_member(cluster, ledger, stale=True)).ok


def test_the_gap_is_the_longest_silence_after_the_kill() -> None:
    ledger = Ledger(acknowledged_at=[1.0, 5.0, 5.5, 9.0, 9.1])
    assert ledger.longest_gap_seconds(5.2) == pytest.approx(3.5)
    assert ledger.longest_gap_seconds(100.0) == 0.0


def test_members_agree_only_when_all_of_them_say_the_same() -> None:
    same = {"applied_index": 7, "revision": 3, "digest": 1, "term": 2}
    assert agree([same, dict(same)])
    assert not agree([same, {**same, "digest": 2}])
    assert not agree([same, {**same, "applied_index": None}])


def test_large_files_are_split_and_come_together_again() -> None:
    data = bytes(range(256)) * (PART_BYTES // 100)
    parts = list(split("stdlib/large.py", data))
    assert len(parts) > 1
    assert b"".join(part.value for part in sorted(parts)) == data
    assert all(len(part.value) <= PART_BYTES for part in parts)
    assert [part.key for part in split("stdlib/small.py", b"x")] == [b"stdlib/small.py"]


def test_source_files_are_found_without_what_was_installed(tmp_path: Path) -> None:
    for name in ("b.py", "a.py", "json/decoder.py", "site-packages/pip.py", "json/__pycache__/x.py", "README"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [str(path.relative_to(tmp_path)) for path in source_files(tmp_path)] == ["a.py", "b.py", "json/decoder.py"]

"""Every method of both clients, against a cluster in order."""

import threading
from typing import Any

import pytest

import raftkv
from raftkv.client.results import DeleteResult, KeyValue, Member, PutResult, RangeResult, TxnResult
from raftkv.errors import InvalidRequest, NoSpace, NotANumber, Unreachable
from raftkv.wire.commands import READ_TXN

from .fakeserver import FakeCluster


async def test_put_and_get_take_text_and_bytes(kv: Any) -> None:
    assert await kv.put("job/1", "größe") == PutResult(2, None)
    assert await kv.get(b"job/1") == "größe".encode()
    assert await kv.get("nothing") is None
    assert await kv.get("nothing", b"else") == b"else"
    assert await kv.put("job/1", b"\xff", prev_kv=True) == PutResult(
        3, KeyValue(b"job/1", 2, 2, 1, 0, "größe".encode())
    )
    assert await kv.get_kv("job/1") == KeyValue(b"job/1", 2, 3, 2, 0, b"\xff")
    assert await kv.get_kv("nothing") is None


async def test_an_empty_value_is_not_a_missing_one(kv: Any) -> None:
    await kv.put("empty", b"")
    assert await kv.get("empty", b"else") == b""


async def test_neither_text_nor_bytes_is_a_type_error(kv: Any) -> None:
    with pytest.raises(TypeError, match="str or bytes, not int"):
        await kv.put("k", 5)


async def test_range_prefix_count_and_order(kv: Any) -> None:
    for name in ("a", "b/1", "b/2", "b/3", "c"):
        await kv.put(name, name.upper())
    result = await kv.range("b/1", "b/3")
    assert isinstance(result, RangeResult)
    assert [item.key for item in result.kvs] == [b"b/1", b"b/2"]
    assert (result.more, result.count, result.revision) == (False, 2, 6)
    assert [item.value for item in await kv.get_prefix("b/")] == [b"B/1", b"B/2", b"B/3"]
    limited = await kv.range(prefix="", limit=2)
    assert ([item.key for item in limited.kvs], limited.more, limited.count) == ([b"a", b"b/1"], True, 5)
    backwards = await kv.range(prefix="b/", descending=True, keys_only=True)
    assert [(item.key, item.value) for item in backwards.kvs] == [(b"b/3", b""), (b"b/2", b""), (b"b/1", b"")]
    assert (await kv.range(prefix="b/", count_only=True)).count == 3
    assert await kv.count("b/") == 3
    assert await kv.count() == 5
    assert [item.key for item in (await kv.range("a")).kvs] == [b"a"]


async def test_a_range_that_members_cut_is_read_on_at_one_revision(kv: Any, cluster: FakeCluster) -> None:
    names = [f"k{number:02}".encode() for number in range(10)]
    for name in names:
        await kv.put(name, b"")
    cluster.store.page_keys = 3
    assert [item.key for item in await kv.get_prefix("k")] == names
    result = await kv.range(prefix="k", limit=7)
    assert [item.key for item in result.kvs] == names[:7]
    assert (result.more, result.count) == (True, 10)
    assert {command[5] for command in cluster.members[0].requests[-3:]} == {0, 11}, "later pages name the revision"


async def test_a_scan_does_not_see_what_happens_during_it(cluster: FakeCluster) -> None:
    async with raftkv.connect(cluster.endpoints) as kv:
        for number in range(7):
            await kv.put(f"k{number}", b"old")
        seen = []
        async for item in kv.scan("k", page_keys=2):
            seen.append((item.key, item.value))
            await kv.put("k6", b"new")
    assert seen == [(f"k{number}".encode(), b"old") for number in range(7)]


async def test_scan_reads_everything_in_pages(kv: Any, cluster: FakeCluster) -> None:
    for number in range(5):
        await kv.put(f"k{number}", b"")
    assert [item.key async for item in kv.scan("k", page_keys=2)] == [f"k{n}".encode() for n in range(5)]
    assert [item.key async for item in kv.scan()] == [f"k{n}".encode() for n in range(5)]


async def test_deleting(kv: Any) -> None:
    for name in ("a", "b/1", "b/2", "b/3"):
        await kv.put(name, name)
    assert await kv.delete("a") == 1
    assert await kv.delete("a") == 0
    result = await kv.delete_range("b/1", "b/2", prev_kv=True)
    assert isinstance(result, DeleteResult)
    assert (result.deleted, [item.key for item in result.prev_kvs]) == (1, [b"b/1"])
    assert await kv.delete_prefix("b/") == 2
    assert await kv.count() == 0


async def test_conditions(kv: Any) -> None:
    assert await kv.put_if_absent("k", "1") is True
    assert await kv.put_if_absent("k", "2") is False
    assert await kv.compare_and_set("k", "1", "3") is True
    assert await kv.compare_and_set("k", "1", "4") is False
    assert await kv.compare_and_set("k", None, "4") is False
    assert await kv.get("k") == b"3"


async def test_transactions(kv: Any) -> None:
    await kv.put("job", "queued")
    claim = (
        kv.txn()
        .if_(raftkv.Value("job") == b"queued", raftkv.missing("lock"))
        .then(raftkv.Put("job", "running", prev_kv=True), raftkv.Put("lock", "me"), raftkv.Get("job"))
        .else_(raftkv.Get("job"), raftkv.Range(prefix="lo"), raftkv.Delete("nothing"))
    )
    first = await claim.commit()
    assert isinstance(first, TxnResult)
    assert first.succeeded
    put, _, read = first.responses
    assert put.prev_kv.value == b"queued"
    assert [item.value for item in read.kvs] == [b"running"]
    second = await claim.commit()
    assert not second.succeeded
    assert [type(response) for response in second.responses] == [RangeResult, RangeResult, DeleteResult]
    assert second.responses[0].kvs[0].value == b"running"


async def test_a_transaction_within_a_transaction(kv: Any) -> None:
    inner = kv.txn().if_(raftkv.exists("a")).then(raftkv.Put("b", "2"))
    result = await kv.txn().then(raftkv.Put("a", "1"), inner).commit()
    assert isinstance(result.responses[1], TxnResult)
    assert await kv.get("b") == b"2"


async def test_a_transaction_that_only_reads_is_a_read(kv: Any, cluster: FakeCluster) -> None:
    await kv.put("a", "1")
    result = await kv.txn().if_(raftkv.exists("a")).then(raftkv.Get("a"), raftkv.Range(prefix="x")).commit()
    assert result.succeeded and result.responses[0].kvs[0].value == b"1"
    (asked,) = [
        member.requests[-1] for member in cluster.members if member.requests and member.requests[-1][0] == READ_TXN
    ]
    assert asked[1] == 0, "linearizable, and without a session"


async def test_numbers_and_appends(kv: Any) -> None:
    assert await kv.increment("n") == 1
    assert await kv.increment("n", 41) == 42
    assert await kv.increment("n", delta=-2) == 40
    assert await kv.append("log", "abc") == 3
    assert await kv.append("log", b"de") == 5
    assert await kv.increment("hung", lease=7) == 1
    assert await kv.append("hung too", "x", lease=7) == 1
    assert await kv.increment("n", lease=7) == 41
    assert [(await kv.get_kv(key)).lease for key in ("hung", "hung too", "n")] == [7, 7, 0], "an old one keeps its own"
    await kv.put("text", "x")
    with pytest.raises(NotANumber) as raised:
        await kv.increment("text")
    assert raised.value.may_have_happened is False


async def test_the_cluster_s_own_verbs(kv: Any, cluster: FakeCluster) -> None:
    assert [type(member) for member in await kv.members()] == [Member] * 3
    assert [member.name for member in await kv.members()] == ["n1", "n2", "n3"]
    assert (await kv.move_leader("n3"))["name"] == "n3"
    await kv.put("k", "v")
    assert cluster.members[2].requests[-1][2] == b"k", "the write found the new leader"
    assert 0 < await kv.ping() < 3
    assert await kv.move_leader("n1") == cluster.members[0].hint, "asked where the leader is now"


async def test_a_defragmentation_takes_its_time_at_one_member(kv: Any, cluster: FakeCluster) -> None:
    """Long after the time of an attempt, while the member shows that it lives; asked of the one that was named, which does not lead."""
    member = cluster.members[1]
    member.script.append("slow")
    threading.Timer(2.5, member.release).start()
    assert (await kv.defragment(member.address, timeout=20))["after_bytes"] == 4096
    assert member.pings > 1
    assert [command[0] for command in cluster.members[0].requests] == []
    member.script.append(NoSpace("no room", details={"free_bytes": 5}))
    with pytest.raises(NoSpace, match="no room") as refused:
        await kv.defragment(member.address)
    assert refused.value.details == {"free_bytes": 5}
    with pytest.raises(Unreachable):
        await kv.defragment("127.0.0.1:1", timeout=2)


async def test_status_asks_everyone_in_person(kv: Any, cluster: FakeCluster) -> None:
    rows = await kv.status()
    assert [(row["name"], row["endpoint"], row["role"]) for row in rows] == [
        (member.name, member.address, "leader") for member in cluster.members
    ]
    cluster.members[1].stop()
    rows = await kv.status()
    assert [row["role"] for row in rows] == ["leader", "unreachable", "leader"]
    assert "refused" in rows[1]["errors"][0]
    assert set(rows[0]) == set(rows[1])


async def test_status_finds_members_that_the_endpoints_do_not_name(cluster: FakeCluster, open_client: Any) -> None:
    kv = open_client(cluster.members[1].address)
    assert [row["name"] for row in await kv.status()] == ["n1", "n2", "n3"]


async def test_status_of_nobody_is_one_row_per_endpoint(cluster: FakeCluster, open_client: Any) -> None:
    for member in cluster.members:
        member.stop()
    kv = open_client(cluster.endpoints, timeout=0.5)
    assert [(row["endpoint"], row["role"]) for row in await kv.status()] == [
        (member.address, "unreachable") for member in cluster.members
    ]


@pytest.mark.parametrize(
    "arguments",
    [{}, {"key": "a", "prefix": "b"}, {"key": "a", "limit": -1}, {"key": "a", "sort_by": "weight"}],
)
async def test_bad_range_arguments_say_what_is_wrong(kv: Any, arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="range"):
        await kv.range(**arguments)

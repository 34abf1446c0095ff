"""The client's verbs on a real etcd, and on raftkv's own etcd door: both clients, the same words as on raftkv."""

import asyncio
import re
import threading
import time
from pathlib import Path
from typing import Any, Iterator

import pytest

import raftkv
from raftkv.client.txn import Delete, Get, Put, Value
from raftkv.errors import (
    AuthFailed,
    ClientClosed,
    DeadlineExceeded,
    FencingTokenStale,
    LeaseExists,
    LeaseNotFound,
    NotANumber,
    PermissionDenied,
    PoolNotFound,
    RaftKVError,
    RequestTooLarge,
    Unreachable,
    Unsupported,
    UserNotFound,
    WatchCompacted,
)
from tests.differential.real import binary
from tests.etcd_clients.servers import EtcdCluster, EtcdOptions

from .harness.cluster import Cluster
from .harness.overetcd import OverEtcd
from .harness.process import run_raftkv

pytestmark = [pytest.mark.integration, pytest.mark.skipif(binary() is None, reason="etcd is not installed")]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "etcd-engine.md"


@pytest.fixture(scope="module")
def one_etcd() -> Iterator[OverEtcd]:
    with OverEtcd(1) as cluster:
        cluster.start()
        yield cluster


@pytest.fixture(params=["etcd", "raftkv's door"])
def endpoints(request: pytest.FixtureRequest) -> str:
    """Of a cluster in which each test uses keys of its own."""
    if request.param == "etcd":
        return str(request.getfixturevalue("one_etcd").endpoints)
    healthy: Cluster = request.getfixturevalue("healthy")
    return "etcd://" + healthy.endpoints


@pytest.fixture
def kv(endpoints: str) -> Iterator[raftkv.Client]:
    with raftkv.Client(endpoints) as client:
        yield client


def test_keys(kv: raftkv.Client) -> None:
    first = kv.put("keys/a", "1")
    assert kv.put("keys/a", "2", prev_kv=True).prev_kv == (b"keys/a", first.revision, first.revision, 1, 0, b"1")
    assert (kv.get("keys/a"), kv.get("keys/a", stale=True), kv.get("keys/none", "x")) == (b"2", b"2", "x")
    kv.put("keys/b", "3")
    assert [pair.key for pair in kv.range(prefix="keys/", sort_by="value", descending=True).kvs] == [
        b"keys/b",
        b"keys/a",
    ]
    assert kv.range(prefix="keys/", limit=1).more
    assert (kv.count("keys/"), len(list(kv.scan("keys/", page_keys=1)))) == (2, 2)
    assert kv.range("keys/a", revision=first.revision).kvs[0].value == b"1"
    assert (kv.increment("keys/n", 5), kv.increment("keys/n", -7)) == (5, -2)
    assert (kv.append("keys/s", "ab"), kv.append("keys/s", "c"), kv.get("keys/s")) == (2, 3, b"abc")
    with pytest.raises(NotANumber):
        kv.increment("keys/s")
    with pytest.raises(RequestTooLarge):
        kv.put("keys/large", b"x" * (3 << 20))
    assert (kv.compare_and_set("keys/a", "2", "4"), kv.compare_and_set("keys/a", "2", "5")) == (True, False)
    assert (kv.put_if_absent("keys/c", ""), kv.put_if_absent("keys/c", "")) == (True, False)
    done = kv.txn().if_(Value("keys/a") == b"4").then(Put("keys/a", "6"), Get("keys/a"), Delete("keys/b")).commit()
    assert done.succeeded and done.responses[1].kvs[0].value == b"6" and done.responses[2].deleted == 1  # type: ignore[union-attr]
    other = kv.txn().if_(Value("keys/a") == b"4").then(Put("keys/a", "7")).else_(Get("keys/a")).commit()
    assert not other.succeeded and other.responses[0].kvs[0].value == b"6"  # type: ignore[union-attr]
    assert (kv.delete("keys/c"), kv.delete("keys/c"), kv.delete_prefix("keys/")) == (1, 0, 3)


def test_guards_and_leases(kv: raftkv.Client) -> None:
    with kv.lease(5) as lease:
        token = kv.put("guards/lock", "", lease=lease.id).revision
        mine = kv.guarded("guards/lock", token)
        assert (mine.increment("guards/n"), mine.put_if_absent("guards/k", "v")) == (1, True)
        assert kv.lease_ttl(lease.id, keys=True).keys == [b"guards/lock"]
        assert kv.leases() == [lease.id], "what the client has for itself is nobody's lease"
        assert 0 < lease.valid_for <= lease.ttl
        with pytest.raises(LeaseExists):
            kv.lease_grant(5, lease_id=lease.id)
        with kv.lease(5, shared_id=77) as shared, kv.lease(5, shared_id=77) as too:
            assert shared.id == too.id == 77
        kv.lease_revoke(77)
    for write in (
        lambda: mine.put("guards/k", "w"),
        lambda: mine.increment("guards/n"),
        lambda: mine.delete("guards/k"),
    ):
        with pytest.raises(FencingTokenStale):
            write()
    for gone in (kv.lease_keep_alive_once, kv.lease_ttl, kv.lease_revoke):
        with pytest.raises(LeaseNotFound):
            gone(lease.id)


def test_watches_and_waits(kv: raftkv.Client) -> None:
    began = kv.put("seen/a", "0").revision
    with (
        kv.watch(prefix="seen/", start_revision=began, prev_kv=True) as watch,
        kv.watch(prefix="seen/", only="delete") as deletions,
    ):
        kv.put("seen/a", "1")
        kv.txn().then(Put("seen/b", "2"), Delete("seen/a")).commit()
        batches = watch.batches()
        assert [event.value for event in next(batches).events] == [b"0"]
        event = next(batches).events[0]
        assert (event.type, event.value, event.prev_kv and event.prev_kv.value) == ("put", b"1", b"0")
        assert sorted((event.type, event.key) for event in next(batches).events) == [
            ("delete", b"seen/a"),
            ("put", b"seen/b"),
        ]
        assert next(deletions).key == b"seen/a"
    waiting = threading.Thread(target=lambda: kv.wait_for(["seen/x", "seen/y"], timeout=30))
    waiting.start()
    kv.put("seen/x", "")
    kv.put("seen/y", "")
    waiting.join()
    assert [pair is not None for pair in kv.wait_for(["seen/no", "seen/b"], any=True, timeout=5).kvs] == [False, True]
    assert kv.wait("seen/gone", until="deleted") is None
    # Long enough for the first look to be answered: without any answer it would be Unreachable.
    with pytest.raises(DeadlineExceeded):
        kv.wait("seen/no", timeout=3)


async def test_asyncio(endpoints: str) -> None:
    async with raftkv.connect(endpoints, timeout=60) as kv:  # fifty increments take turns in the time of one call
        numbers = await asyncio.gather(*(kv.increment("many/n") for _ in range(50)))
        assert sorted(numbers) == list(range(1, 51))
        async with kv.watch(prefix="many/") as watch:
            await kv.put("many/k", "v")
            assert (await anext(watch)).key == b"many/k"
        waiting = [asyncio.ensure_future(kv.wait(f"many/{n}", timeout=30)) for n in range(100)]
        await asyncio.gather(*(kv.put(f"many/{n}", "") for n in range(100)))
        assert all(await asyncio.gather(*waiting))
        cancelled = asyncio.ensure_future(kv.wait("many/never", timeout=30))
        await kv.get("many/k")
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        async with kv.lease(5) as lease:
            assert lease.valid_for > 0
        under_way = asyncio.ensure_future(kv.wait("many/never", timeout=30))
        await kv.get("many/k")
    with pytest.raises(ClientClosed):
        await under_way
    with pytest.raises(ClientClosed):
        await kv.get("many/k")
    async with asyncio.timeout(30):  # gRPC ends its own in a turn or two
        while len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0)


def test_what_etcd_has_not_is_refused(kv: raftkv.Client) -> None:
    kv.put("safe", "")
    refused: list[Any] = [
        lambda: kv.pool("gpu").create({"machines": 3}),
        lambda: kv.pool("gpu").info(),
        lambda: kv.backup(lambda data: None),
        lambda: kv.member_change(demote=["n1"]),
        lambda: kv.member_change(remove=["n1", "n2"]),
    ]
    for call in refused:
        with pytest.raises(Unsupported):
            call()
    assert PoolNotFound.code != Unsupported.code


def test_the_cluster(one_etcd: OverEtcd) -> None:
    with raftkv.Client(one_etcd.endpoints) as kv:
        (row,) = kv.status()
        assert (row["role"], row["leader"], row["errors"]) == ("leader", "n1", [])
        (member,) = kv.members()
        assert (member.id, member.name, "etcd://" + member.address) == (row["id"], "n1", one_etcd.endpoints)
        assert kv.ping() > 0
        assert kv.defragment(member.address)["after_bytes"] > 0
        kv.put("old", "1")
        revision = kv.put("old", "2").revision
        assert kv.compact(revision) >= revision
        with pytest.raises(WatchCompacted), kv.watch("old", start_revision=1) as watch:
            next(watch)


def test_nobody_is_there() -> None:
    for address in ("127.0.0.1:1", "no.such.host.invalid:2379"):
        with raftkv.Client(f"etcd://{address}", timeout=0.5) as kv:
            for call in (lambda: kv.get("k"), lambda: kv.put("k", "v"), lambda: kv.watch("k").started()):
                with pytest.raises(Unreachable) as error:
                    call()
                assert not error.value.may_have_happened
            assert kv.status()[0]["role"] == "unreachable"


def test_silence_is_doubt() -> None:
    """A member that stands still: reads end in time, and a write says that it may have happened."""
    with OverEtcd(1) as etcd:
        etcd.start()
        with raftkv.Client(etcd.endpoints, timeout=1) as kv:
            kv.put("k", "v", timeout=30)
            etcd.nodes[0].pause()
            began_at = time.monotonic()
            with pytest.raises(RaftKVError) as read:
                kv.get("k")
            assert not read.value.may_have_happened
            with pytest.raises(DeadlineExceeded) as write:
                kv.put("k", "w")
            assert write.value.may_have_happened
            assert time.monotonic() - began_at < 60
            etcd.nodes[0].resume()
            kv.put("k", "x", timeout=30)
            assert kv.get("k", timeout=30) == b"x"


def test_users() -> None:
    with OverEtcd(1) as etcd:
        etcd.start()
        with raftkv.Client(etcd.endpoints) as kv:
            kv.user_add("root", "r")
            kv.role_add("root")
            kv.user_grant_role("root", "root")
            kv.user_add("ann", "a")
            kv.role_add("own")
            kv.role_grant_permission("own", "readwrite", prefix="own/")
            kv.user_grant_role("ann", "own")
            assert kv.role_get("own")[0].kind == "readwrite"
            with pytest.raises(UserNotFound):
                kv.user_get("nobody")
            kv.auth_enable()
        with raftkv.Client(etcd.endpoints, user="ann", password="wrong") as kv, pytest.raises(AuthFailed):
            kv.get("own/k")
        ann = raftkv.Client(etcd.endpoints, user="ann", password="a")
        with ann, pytest.raises(PermissionDenied, match="session=False"):
            ann.put("own/k", "v")
        with raftkv.Client(etcd.endpoints, user="ann", password="a", session=False) as kv:
            kv.put("own/k", "v")
            with pytest.raises(PermissionDenied):
                kv.get("theirs")
        with (
            raftkv.Client(etcd.endpoints, user="root", password="r") as root,
            raftkv.Client(etcd.endpoints, user="ann", password="a") as kv,
        ):
            assert root.auth_status().enabled
            root.role_grant_permission("own", "readwrite", prefix="raftkv-sessions/")
            with kv.watch("own/k") as watch:
                assert kv.put("own/k", "w").revision == next(watch).revision
            with pytest.raises(PermissionDenied), kv.watch("theirs") as watch:
                next(watch)
            with pytest.raises(PermissionDenied):
                kv.wait("theirs", timeout=20)
            root.user_change_password("ann", "b")  # ends her logins
            with pytest.raises(AuthFailed):
                kv.get("own/k")
            root.user_change_password("ann", "a")
            assert kv.get("own/k") == b"w", "logged in anew"


async def test_tls(tmp_path: Path) -> None:
    """With a certificate of ours, without one, and by those who do not speak TLS."""
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()

    def write(name: str, blob: Any) -> str:
        blob.write_to_path(str(tmp_path / name))
        return str(tmp_path / name)

    own, ann = authority.issue_cert("127.0.0.1"), authority.issue_cert("ann@example.com")
    ca = write("ca.pem", authority.cert_pem)
    flags = {
        "cert-file": write("own.pem", own.cert_chain_pems[0]),
        "key-file": write("own-key.pem", own.private_key_pem),
        "trusted-ca-file": ca,
        "client-cert-auth": "true",
    }
    tls = raftkv.Tls(ca, write("ann.pem", ann.cert_chain_pems[0]), write("ann-key.pem", ann.private_key_pem))
    with EtcdCluster(EtcdOptions(size=1, flags=flags)) as etcd:
        etcd.nodes[0].start()
        with raftkv.Client(f"etcds://{etcd.endpoints}", tls=tls) as kv:
            kv.put("k", "v", timeout=60)
            assert kv.get("k") == b"v"
        async with raftkv.connect(f"etcds://{etcd.endpoints}", tls=tls) as too:
            assert await too.increment("n") == 1
        for strange in (
            raftkv.Client(f"etcds://{etcd.endpoints}", tls=raftkv.Tls(ca), timeout=1),
            raftkv.Client(f"etcds://{etcd.endpoints}", timeout=1),
            raftkv.Client(f"etcd://{etcd.endpoints}", timeout=1),
        ):
            with strange, pytest.raises(Unreachable):
                strange.get("k")


def test_the_command_line(one_etcd: OverEtcd) -> None:
    def run(*words: str) -> tuple[int, str]:
        ran = run_raftkv(*words, environment={"RAFTKV_ENDPOINTS": one_etcd.endpoints})
        return ran.returncode, ran.stdout.decode() + ran.stderr.decode()

    assert run("put", "line", "1") == (0, "OK\n")
    assert run("get", "line") == (0, "1\n")
    assert run("lock", "line", "--", "sh", "-c", "echo under $RAFTKV_LOCK_NAME") == (0, "under line\n")
    code, said = run("pool", "list")
    assert code != 0 and "state machine" in said
    code, said = run("health")
    assert code != 0 and "etcd" in said


def test_the_page_does_what_it_says(one_etcd: OverEtcd) -> None:
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert code is not None
    exec(compile(code[1].replace("etcd://127.0.0.1:2379", one_etcd.endpoints), str(PAGE), "exec"), {})
    with raftkv.Client(one_etcd.endpoints) as kv:
        assert kv.counter("merges").value() == 1

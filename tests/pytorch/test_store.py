"""The store and the proxy beside torch's own TCPStore: the same calls, the same answers, the same kinds of errors."""

import random
import sys
from datetime import timedelta
from typing import Any, Callable

import pytest

from raftkv_jepsen.machines.cluster import Cluster
from raftkv_jepsen.machines.ports import PortReservations
from raftkv_jepsen.machines.waiting import wait_until

from .conftest import Start, finish, output_of, script, start_proxy

MASTER = """
import sys, time, torch.distributed as dist
store = dist.TCPStore("127.0.0.1", int(sys.argv[1]), None, True, wait_for_workers=False)
print("ready", flush=True)
time.sleep(600)
"""
SHORT = timedelta(milliseconds=300)  # of calls that are in vain
LONG = timedelta(seconds=60)  # of all others: a busy machine is no reason to end them


def tcp_store(port: int) -> Any:
    import torch.distributed as dist

    store = dist.TCPStore("127.0.0.1", port, None, False, wait_for_workers=False)
    store.set_timeout(LONG)
    return store


def in_vain(call: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A call that takes no timeout of its own, where nothing will come."""

    def hurried(store: Any) -> Any:
        store.set_timeout(SHORT)
        try:
            return call(store)
        finally:
            store.set_timeout(LONG)

    return hurried


class Stores:
    """TCPStore itself, and both of ours."""

    def __init__(self, cluster: Cluster, ports: PortReservations, start: Start) -> None:
        from raftkv.torch import RaftKVStore

        master, listener = ports.take(), ports.take()
        process = start(sys.executable, "-c", MASTER, str(master))
        wait_until(lambda: "ready" in output_of(process), "the TCPStore", deadline_s=60)
        start_proxy(start, cluster.endpoints, "differential", listener, round_=1)
        self.own = RaftKVStore(cluster.endpoints, "differential", 0)
        self.own.set_timeout(LONG)
        self.all = {"TCPStore": tcp_store(master), "RaftKVStore": self.own, "proxy": tcp_store(listener)}

    def ask(self, call: Callable[[Any], Any]) -> dict[str, Any]:
        """What each says; an error by its kind."""
        answers: dict[str, Any] = {}
        for name, store in self.all.items():
            try:
                answers[name] = call(store)
            except Exception as error:
                answers[name] = type(error).__name__
        return answers

    def same(self, what: str, call: Callable[[Any], Any]) -> Any:
        answers = self.ask(call)
        assert answers["RaftKVStore"] == answers["proxy"] == answers["TCPStore"], f"{what}: {answers}"
        return answers["TCPStore"]


@pytest.fixture
def stores(cluster: Cluster, ports: PortReservations, start: Start) -> Stores:
    return Stores(cluster, ports, start)


def test_every_method_and_its_errors(stores: Stores) -> None:
    same = stores.same
    assert same("get a missing key", in_vain(lambda s: s.get("never"))) == "DistStoreError"
    assert same("wait in vain", lambda s: s.wait(["never"], SHORT)) == "DistStoreError"
    assert same("wait in vain by the store's timeout", in_vain(lambda s: s.wait(["never"]))) == "DistStoreError"
    same("wait for nothing", lambda s: s.wait([]))
    assert same("check nothing", lambda s: s.check([])) is True
    same("set", lambda s: s.set("k", "v"))
    assert same("get", lambda s: s.get("k")) == b"v"
    same("set bytes", lambda s: s.set("k", bytes(range(256)).decode("latin-1")))
    same("get again", lambda s: s.get("k"))
    assert [same("add", lambda s: s.add("n", 5)), same("add less", lambda s: s.add("n", -7))] == [5, -2]
    assert same("a number is text", lambda s: s.get("n")) == b"-2"
    same("a number set", lambda s: s.set("m", "40"))
    assert same("and added to", lambda s: s.add("m", 2)) == 42
    assert same("compare with nothing", lambda s: s.compare_set("c", "", "first")) == b"first"
    assert same("compare badly", lambda s: s.compare_set("c", "other", "x")) == b"first"
    assert same("compare well", lambda s: s.compare_set("c", "first", "second")) == b"second"
    assert same("compare where nothing is", lambda s: s.compare_set("d", "other", "x")) == b"other"
    assert same("nothing was made", lambda s: s.check(["d"])) is False
    same("append", lambda s: s.append("a", "x"))
    same("append more", lambda s: s.append("a", "yz"))
    assert same("appended", lambda s: s.get("a")) == b"xyz"
    same("set many", lambda s: s.multi_set(["m1", "m2"], ["1", "2"]))
    assert same("get many", lambda s: s.multi_get(["m1", "m2", "a"])) == [b"1", b"2", b"xyz"]
    assert same("get many in vain", in_vain(lambda s: s.multi_get(["m1", "never"]))) == "DistStoreError"
    assert same("delete", lambda s: s.delete_key("m1")) is True
    assert same("delete again", lambda s: s.delete_key("m1")) is False
    same("list", lambda s: sorted(key for key in s.list_keys() if not key.startswith("init")))


def test_queues(stores: Stores) -> None:
    same = stores.same
    assert same("length of none", lambda s: s.queue_len("q")) == 0
    assert same("pop of none", lambda s: s.queue_pop("q", False)) == "QueueEmptyError"
    assert same("pop in vain", in_vain(lambda s: s.queue_pop("q"))) == "DistStoreError"
    for value in ("1", "2", "3"):
        same("push", lambda s, value=value: s.queue_push("q", value))
    assert same("length", lambda s: s.queue_len("q")) == 3
    assert same("a queue exists", lambda s: s.wait(["q"], LONG)) is None
    assert [same("pop", lambda s: s.queue_pop("q")) for _ in range(3)] == [b"1", b"2", b"3"]
    assert same("none is left", lambda s: s.queue_pop("q", False)) == "QueueEmptyError"
    assert same("it is gone", lambda s: s.wait(["q"], SHORT)) == "DistStoreError"


def test_a_program_that_just_ends(cluster: Cluster, start: Start) -> None:
    """Nothing is closed, and a thread waits in the store: it ends well, and at once."""
    said = finish(start(*script("leaving.py", cluster.endpoints, "leaving")), 60)
    assert said == "ends\n"


def test_prefixes_and_clones(stores: Stores) -> None:
    import torch.distributed as dist

    same = stores.same
    same("set below", lambda s: dist.PrefixStore("A", dist.PrefixStore("B", s)).set("k", "v"))
    assert same("prefixes join", lambda s: s.get("B/A/k")) == b"v"
    assert same("get below", lambda s: dist.PrefixStore("B", s).get("A/k")) == b"v"
    assert same("add below", lambda s: dist.PrefixStore("B", s).add("n", 1)) == 1
    same("compare below", lambda s: dist.PrefixStore("B", s).compare_set("c", "", "x"))
    assert same("a clone sees it", lambda s: s.clone().get("B/c")) == b"x"
    copy = stores.own.clone()
    assert copy.timeout == LONG


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in (1, 2))])
def test_random_calls(stores: Stores, seed: int) -> None:
    draw = random.Random(seed)
    keys = ["a", "b", "c"]
    values = ["", "1", "7", "x"]

    def one() -> tuple[str, Callable[[Any], Any]]:
        key, value, other = draw.choice(keys), draw.choice(values), draw.choice(values)
        number = draw.randint(-3, 3)
        return draw.choice(
            [
                (f"set {key}", lambda s: s.set(key, value)),
                (f"compare_set {key} {other!r} {value!r}", lambda s: s.compare_set(key, other, value)),
                (f"append {key}", lambda s: s.append(key, value)),
                (f"delete {key}", lambda s: s.delete_key(key)),
                (f"check {key}", lambda s: s.check([key])),
                (f"add {key}n", lambda s: s.add(key + "n", number)),
                (f"push {key}q", lambda s: s.queue_push(key + "q", value)),
                (f"pop {key}q", lambda s: s.queue_pop(key + "q", False)),
                (f"len {key}q", lambda s: s.queue_len(key + "q")),
                (f"get {key}", lambda s: s.get(key) if s.check([key]) else None),
            ]
        )

    for step in range(120):
        what, call = one()
        stores.same(f"seed {seed}, step {step}: {what}", call)

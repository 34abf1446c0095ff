"""Pools in the state machine: grants, ends, what happens to them when leases and keys go, and what is refused without a change."""

import json
from pathlib import Path
from typing import Any

import pytest

from raftkv.errors import RaftKVError
from raftkv.limits import Limits
from raftkv.store.memory_keyspace import MemoryKeyspace
from raftkv.store.snapshot import SnapshotBytesReceiver, dump_memory
from raftkv.store.store import Store
from raftkv.wire.commands import GUARDED, LEASE_GRANT, LEASE_REVOKE, LEASE_TTL, PUT
from raftkv.wire.pools import (
    CREATE,
    POOL_DELETE,
    POOL_QUEUE,
    POOL_RELEASE,
    POOL_REQUEST,
    POOL_SET,
    POOL_TICK,
    POOL_WHY,
    POOLS,
    grant_key,
    request_key,
)

from .stores import LIMITS, TWINS, Driver, delete, get, keyspace_of, meta_of, put

DEMAND = {"gpus": {"gpu": 1}}


class Bench(Driver):
    """A store with leases 1 to 9 and a pool of two GPUs."""

    def __init__(self, keyspace: Any = None, *, limits: Limits = LIMITS, **settings: Any) -> None:
        super().__init__(keyspace or MemoryKeyspace(), limits)
        self.now_ms = 0
        for lease in range(1, 10):
            self.do([LEASE_GRANT, 0, lease, 10_000])
        self.done([POOL_SET, 0, "gpus", CREATE, {"capacity": {"gpu": 2}, **settings}])

    def do(self, command: list[Any], *, after_ms: int = 0) -> list[Any]:
        self.now_ms += after_ms
        return self.apply(command, at_ms=self.now_ms)[0]

    def done(self, command: list[Any], *, after_ms: int = 0) -> list[Any]:
        answer = self.do(command, after_ms=after_ms)
        assert answer[0] == 0, answer
        return answer[2:]

    def ask(self, name: str, lease: int = 1, demand: Any = None, **options: Any) -> int:
        (token,) = self.done([POOL_REQUEST, 0, name, lease, DEMAND if demand is None else demand, options])
        return int(token)

    def release(self, name: str, token: int) -> list[Any]:
        return self.do([POOL_RELEASE, 0, name, token])

    def key(self, key: bytes) -> Any:
        return self.store.read(get(key))[2]

    def token(self, name: str) -> int:
        kv = self.key(grant_key(name))
        return kv[1] if kv else 0

    def queue(self) -> list[tuple[str, str]]:
        return [(row["id"], row["state"]) for row in self.store.read([POOL_QUEUE, 0, ""])[2]]

    def why(self, name: str) -> tuple[str, dict[str, Any]]:
        row = self.store.read([POOL_WHY, 0, name])[2]
        return row["reason"], row["details"]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_grant_is_a_key_on_its_lease_and_its_token(bench: Bench) -> None:
    token = bench.ask("a", lease=3)
    kv = bench.key(grant_key("a"))
    assert (kv[1], kv[4]) == (token, 3)
    assert json.loads(kv[5])["state"] == "granted"
    assert bench.key(request_key("a")) is None
    guarded = [GUARDED, 0, [[grant_key("a"), token]], [PUT, 0, b"model", b"x", 0, 0]]
    assert bench.do(guarded)[0] == 0
    assert bench.release("a", token)[0] == 0
    assert bench.do(guarded)[1] == "fencing_token_stale"


def test_who_waits_is_granted_in_the_command_that_makes_room(bench: Bench) -> None:
    first, second = bench.ask("a"), bench.ask("b")
    assert first < second
    assert [bench.ask("c", 2), bench.ask("d", 3, {"gpus": {"gpu": 2}}), bench.ask("e", 4)] == [0, 0, 0]
    assert json.loads(bench.key(request_key("c"))[5])["state"] == "waiting"
    revision = bench.store.revision
    bench.release("a", first)
    assert bench.store.revision == revision + 1, "one decision is one revision"
    assert bench.token("c") == revision + 1
    assert bench.queue() == [("b", "granted"), ("c", "granted"), ("d", "waiting"), ("e", "waiting")]
    bench.release("b", second)
    assert bench.token("d") == 0, "the wide one stays first"
    assert bench.why("e")[1]["head"] == "d"
    bench.release("c", bench.token("c"))
    assert bench.token("d")
    assert not bench.token("e")


def test_the_same_request_twice_is_one(bench: Bench) -> None:
    token = bench.ask("a")
    assert bench.ask("a") == token
    bench.ask("b")
    assert bench.ask("w") == bench.ask("w") == 0
    revision = bench.store.revision
    for lease, demand in ((2, DEMAND), (1, {"gpus": {"gpu": 2}})):
        assert bench.do([POOL_REQUEST, 0, "a", lease, demand, {}])[1] == "pool_request_exists"
    assert bench.do([POOL_REQUEST, 0, "a", 1, DEMAND, {"tenant": "x"}])[1] == "pool_request_exists"
    assert bench.store.revision == revision


@pytest.mark.parametrize("how", ["revoke", "expire", "delete"])
def test_what_dies_frees_its_place_in_the_same_entry(bench: Bench, how: str) -> None:
    bench.ask("a", 1)
    bench.ask("b", 2)
    bench.ask("gone", 1)
    bench.ask("c", 3)
    if how == "delete":
        bench.apply(delete(grant_key("a")), delete(request_key("gone")))
    elif how == "revoke":
        bench.do([LEASE_REVOKE, 0, 1])
    else:
        bench.do([35, 0, 1, [1]])
    assert bench.token("c")
    assert bench.queue() == [("b", "granted"), ("c", "granted")]
    assert bench.release("a", 5)[1] == "pool_request_not_found"


def test_releases_that_are_refused_change_nothing(bench: Bench) -> None:
    token = bench.ask("a")
    other = bench.ask("b")
    bench.ask("c", 2)
    revision, digest = bench.store.revision, bench.queue()
    assert bench.release("a", other)[1] == "fencing_token_stale"
    assert bench.release("a", 0)[1] == "fencing_token_stale"
    assert bench.release("c", token)[1] == "fencing_token_stale"
    assert bench.release("nobody", token)[1] == "pool_request_not_found"
    assert (bench.store.revision, bench.queue()) == (revision, digest)
    assert bench.release("c", 0)[0] == 0, "what waits can be taken back"
    assert bench.release("a", token)[0] == 0
    assert bench.release("a", token)[1] == "pool_request_not_found", "released twice"


REFUSED = [
    ([POOL_SET, 0, "gpus", CREATE, {"capacity": {"gpu": 1}}], "pool_exists"),
    ([POOL_SET, 0, "other", 0, {"threshold": 1}], "pool_not_found"),
    ([POOL_SET, 0, "other", CREATE, {}], "invalid_request"),
    ([POOL_SET, 0, "gpus", 0, {"capacity": {"gpu": -1}}], "invalid_request"),
    ([POOL_SET, 0, "gpus", 0, {"capacity": {}}], "invalid_request"),
    ([POOL_SET, 0, "gpus", 0, {"threshold": -1}], "invalid_request"),
    ([POOL_SET, 0, "gpus", 0, {"threshold": True}], "invalid_request"),
    ([POOL_SET, 0, "gpus", 0, {"age_weight": 0.5}], "invalid_request"),
    ([POOL_SET, 0, "gpus", 0, {"colour": 1}], "invalid_request"),
    ([POOL_SET, 0, "gpus", 0, {"quotas": {"a": {"gpu": -1}}}], "invalid_request"),
    ([POOL_SET, 0, "gpus", 0, {"classes": {"a": -1}}], "invalid_request"),
    ([POOL_SET, 0, "gpus", 0, {"backfill": 1}], "invalid_request"),
    ([POOL_SET, 0, "", 0, {}], "invalid_request"),
    ([POOL_SET, 0, "a b", CREATE, {"capacity": {"gpu": 1}}], "invalid_request"),
    ([POOL_SET, 0, "gpus", 2, {}], "invalid_request"),
    ([POOL_DELETE, 0, "other"], "pool_not_found"),
    ([POOL_REQUEST, 0, "x", 1, {"other": {"gpu": 1}}, {}], "pool_not_found"),
    ([POOL_REQUEST, 0, "x", 1, {"gpus": {"gpu": 3}}, {}], "demand_too_large"),
    ([POOL_REQUEST, 0, "x", 1, {"gpus": {"disk": 1}}, {}], "demand_too_large"),
    ([POOL_REQUEST, 0, "x", 1, {"gpus": {"gpu": 0}}, {}], "invalid_request"),
    ([POOL_REQUEST, 0, "x", 1, {"gpus": {"gpu": -1}}, {}], "invalid_request"),
    ([POOL_REQUEST, 0, "x", 1, {}, {}], "invalid_request"),
    ([POOL_REQUEST, 0, "x", 1, DEMAND, {"weight": -1}], "invalid_request"),
    ([POOL_REQUEST, 0, "x", 1, DEMAND, {"class": "unknown"}], "invalid_request"),
    ([POOL_REQUEST, 0, "x", 1, DEMAND, {"colour": 1}], "invalid_request"),
    ([POOL_REQUEST, 0, "x", 0, DEMAND, {}], "invalid_request"),
    ([POOL_REQUEST, 0, "x", 99, DEMAND, {}], "lease_not_found"),
    ([POOL_REQUEST, 0, "", 1, DEMAND, {}], "invalid_request"),
    ([POOL_REQUEST, 0, "x\n", 1, DEMAND, {}], "invalid_request"),
    ([POOL_RELEASE, 0, "x", -1], "invalid_request"),
    ([POOL_RELEASE, 0, "x"], "invalid_request"),
]


@pytest.mark.parametrize(("command", "code"), REFUSED, ids=str)
def test_bad_input_is_one_clear_error_and_no_change(bench: Bench, command: list[Any], code: str) -> None:
    before = (bench.store.revision, bench.store.read([POOLS, 0])[2])
    assert bench.do(command)[:2] == [1, code]
    assert (bench.store.revision, bench.store.read([POOLS, 0])[2]) == before


def test_pools_are_changed_while_they_are_used(bench: Bench) -> None:
    first, _ = bench.ask("a"), bench.ask("b")
    bench.ask("c", 2)
    bench.ask("d", 3)
    assert bench.do([POOL_DELETE, 0, "gpus"])[1] == "pool_busy"
    bench.done([POOL_SET, 0, "gpus", 0, {"capacity": {"gpu": 3}}])
    assert bench.token("c")
    bench.done([POOL_SET, 0, "gpus", 0, {"capacity": {"gpu": 1}}])
    (pool,) = bench.store.read([POOLS, 0])[2]
    assert (pool["used"], pool["capacity"], pool["granted"], pool["waiting"]) == ({"gpu": 3}, {"gpu": 1}, 3, 1)
    bench.release("a", first)
    bench.release("b", bench.token("b"))
    assert not bench.token("d"), "one is held and one there is"
    bench.release("c", bench.token("c"))
    assert bench.token("d")
    bench.release("d", bench.token("d"))
    bench.done([POOL_DELETE, 0, "gpus"])
    assert bench.store.read([POOLS, 0])[2] == []


def test_a_wait_that_is_too_long_ends(bench: Bench) -> None:
    bench.ask("a", demand={"gpus": {"gpu": 2}})
    bench.ask("w", 2, max_wait_ms=500)
    assert bench.store.pool_deadline_ms == 500
    bench.done([POOL_TICK, 0], after_ms=499)
    assert bench.key(request_key("w"))
    bench.done([POOL_TICK, 0], after_ms=1)
    assert bench.key(request_key("w")) is None
    assert bench.queue() == [("a", "granted")]
    assert bench.store.pool_deadline_ms is None, "no ticks while no time matters"


def test_a_run_that_is_too_long_is_given_notice_and_then_over() -> None:
    bench = Bench(max_run_ms=1_000, grace_ms=200)
    token = bench.ask("a", demand={"gpus": {"gpu": 2}}, max_run_ms=5_000)
    bench.ask("b", 2)
    assert bench.store.pool_deadline_ms == 1_000, "the pool's limit is the shorter one"
    bench.do(put(b"any", b"write brings the time"), after_ms=1_000)
    kv = bench.key(grant_key("a"))
    assert kv[1] == token, "the token still is good"
    assert json.loads(kv[5]) == {**json.loads(kv[5]), "state": "ending", "ends_in_ms": 200}
    assert bench.queue() == [("a", "ending"), ("b", "waiting")]
    bench.done([POOL_TICK, 0], after_ms=199)
    assert bench.token("a") == token
    bench.done([POOL_TICK, 0], after_ms=1)
    assert bench.token("a") == 0
    assert bench.token("b") > token
    assert bench.release("a", token)[1] == "pool_request_not_found"


def test_without_a_grace_it_is_over_at_once() -> None:
    bench = Bench(max_run_ms=1_000)
    bench.ask("a")
    bench.done([POOL_TICK, 0], after_ms=1_000)
    assert bench.queue() == []


def test_the_threshold_is_reached_by_time_alone() -> None:
    bench = Bench(threshold=10, age_weight=3_600)  # a point a second
    assert bench.ask("a") == 0
    kind, details = bench.why("a")
    assert (kind, details["eligible_in_ms"]) == ("below the threshold", 10_000)
    bench.done([POOL_TICK, 0], after_ms=9_999)
    assert not bench.token("a")
    bench.done([POOL_TICK, 0], after_ms=1)
    assert bench.token("a")


def test_a_lease_says_what_hangs_on_it(bench: Bench) -> None:
    bench.ask("a", 5)
    bench.ask("b", 5, {"gpus": {"gpu": 2}})
    lease = bench.store.leases.get(5)
    assert lease is not None
    assert lease.keys == {grant_key("a"), request_key("b")}
    assert LEASE_TTL


@pytest.mark.parametrize("twin", TWINS)
def test_a_restart_goes_on_where_it_was(tmp_path: Path, twin: str) -> None:
    keyspace = keyspace_of(twin, tmp_path)
    bench = Bench(keyspace, max_run_ms=1_000, grace_ms=5)
    bench.ask("a", demand={"gpus": {"gpu": 2}})
    bench.ask("b", 2)
    bench.ask("c", 3, max_wait_ms=700)
    bench.do([LEASE_REVOKE, 0, 2])
    bench.commit()
    before = (bench.queue(), bench.store.pool_deadline_ms, bench.store.digest, bench.store.read([POOLS, 0]))
    bench.store = Store.open(keyspace, LIMITS)
    assert (bench.queue(), bench.store.pool_deadline_ms, bench.store.digest, bench.store.read([POOLS, 0])) == before
    bench.do([LEASE_REVOKE, 0, 1])
    assert bench.token("c")
    bench.commit()
    bench.store.close()


def test_a_snapshot_brings_them_along(bench: Bench) -> None:
    bench.ask("a", demand={"gpus": {"gpu": 2}})
    bench.ask("b", 2, max_wait_ms=900)
    bench.commit()
    data, made = dump_memory(bench.store.keyspace)  # type: ignore[arg-type]
    receiver = SnapshotBytesReceiver(meta_of(made))
    receiver.write(0, data)
    other = Store.open(receiver.finish(), LIMITS)
    assert other.read([POOL_QUEUE, 0, ""]) == bench.store.read([POOL_QUEUE, 0, ""])
    assert (other.digest, other.pool_deadline_ms) == (bench.store.digest, 900)


def test_keys_that_somebody_made_by_hand_are_nobodys_request(bench: Bench) -> None:
    bench.do(put(grant_key("x"), b"mine"))
    bench.do(put(request_key("y"), b"mine"))
    bench.do(delete(request_key("y")))
    assert bench.queue() == []
    token = bench.ask("x")
    assert token == bench.token("x") > 0, "the token is that of the key, whoever made it"
    assert bench.release("x", token)[0] == 0


def test_who_takes_a_grant_off_its_lease_ends_it(bench: Bench) -> None:
    """Else it would outlive its holder, and its token with it."""
    token = bench.ask("a", demand={"gpus": {"gpu": 2}})
    bench.ask("b", 2)
    bench.do(put(grant_key("a"), b"?"))
    assert bench.key(grant_key("a")) is None
    assert bench.do([GUARDED, 0, [[grant_key("a"), token]], [PUT, 0, b"model", b"x", 0, 0]])[1] == "fencing_token_stale"
    assert bench.token("b")
    bench.do(put(grant_key("b"), b"?", lease=2))
    assert bench.token("b"), "on its lease, it still is a grant"


def test_there_are_not_without_end() -> None:
    limits = Limits(map_bytes=LIMITS.map_bytes, pools_max=1, pool_requests_max=2)
    bench = Bench(limits=limits)
    assert bench.do([POOL_SET, 0, "second", CREATE, {"capacity": {"gpu": 1}}])[1] == "invalid_request"
    bench.ask("a")
    bench.ask("b")
    assert bench.do([POOL_REQUEST, 0, "c", 1, DEMAND, {}])[1] == "too_many_pool_requests"
    assert bench.ask("a"), "the same again is no new one"


def test_reads_of_what_is_not_there(bench: Bench) -> None:
    for command, code in (
        ([POOL_WHY, 0, "x"], "pool_request_not_found"),
        ([POOL_QUEUE, 0, "x"], "pool_not_found"),
        ([POOL_QUEUE, 0, 5], "invalid_request"),
        ([POOLS, 8], "invalid_request"),
    ):
        with pytest.raises(RaftKVError) as refused:
            bench.store.read(command)
        assert refused.value.code == code

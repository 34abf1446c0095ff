"""Leases in the state machine: grant, attach, detach, revoke, expiry by the leader's word, checkpoints, and what survives."""

from pathlib import Path
from typing import Any

import pytest

from raftkv.limits import MIB, Limits
from raftkv.store.lmdb_keyspace import LmdbKeyspace
from raftkv.store.memory_keyspace import MemoryKeyspace
from raftkv.store.snapshot import SnapshotBytesReceiver, dump_memory
from raftkv.store.store import Store
from raftkv.wire.commands import (
    CHECKPOINT_LEASES,
    EXPIRE_LEASES,
    IGNORE_LEASE,
    LEASE_GRANT,
    LEASE_REVOKE,
    LEASES,
    Answer,
)
from tests.unit.store.stores import (
    SESSION,
    TWINS,
    Driver,
    append,
    delete,
    get,
    increment,
    keyspace_of,
    meta_of,
    put,
    txn,
)

LIMITS = Limits(map_bytes=64 * MIB, leases_max=3, lease_expiry_keys_max=3, lease_keys_max=4)
TERM = 1  # of the driver's entries


def driver() -> Driver:
    return Driver(MemoryKeyspace(), LIMITS)


def grant(lease: int = 0, ttl_ms: int = 5000, *, seq: int = 0) -> list[Any]:
    return [LEASE_GRANT, seq, lease, ttl_ms]


def revoke(lease: int, *, seq: int = 0) -> list[Any]:
    return [LEASE_REVOKE, seq, lease]


def code(answer: Answer) -> str:
    return str(answer[1]) if answer[0] else "ok"


def keys_of(store: Driver, lease: int) -> set[bytes]:
    found = store.store.leases.get(lease)
    assert found is not None
    return found.keys


def test_a_grant_makes_no_revision_and_raises_a_short_ttl() -> None:
    store = driver()
    answers = store.apply(grant(7, 5000), grant(8, 1), grant(-9, -1))
    assert answers == [[0, 1, 7, 5000], [0, 1, 8, 2000], [0, 1, -9, 2000]]
    assert store.store.read([LEASES, 0]) == [0, 1, [7, 8, -9]]


def test_what_is_refused() -> None:
    store = driver()
    store.apply(grant(7))
    too_large = 9_000_000_000 * 1000 + 1
    answers = store.apply(grant(7), grant(7, too_large), revoke(8), put(b"k", lease=8), [LEASE_GRANT, 0, 2**63, 1])
    assert [code(answer) for answer in answers] == [
        "lease_exists",
        "lease_ttl_too_large",
        "lease_not_found",
        "lease_not_found",
        "invalid_request",
    ]
    assert [code(answer) for answer in store.apply(grant(1), grant(2), grant(3))] == ["ok", "ok", "too_many_leases"]
    assert store.store.revision == 1


def test_an_id_is_drawn_alike_on_every_member_and_once() -> None:
    drawn = [[answer[2] for answer in store.apply(grant(), grant())] for store in (driver(), driver())]
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) == 2
    assert min(drawn[0]) > 0


def test_a_retried_grant_is_the_same_lease() -> None:
    store = driver()
    first = store.apply(grant(seq=1), session=SESSION)
    assert store.apply(grant(seq=1), session=SESSION) == first
    assert len(store.store.leases) == 1


def test_a_key_hangs_on_the_lease_of_its_newest_version_alone() -> None:
    store = driver()
    store.apply(grant(7), grant(8), put(b"a", lease=7), put(b"b", lease=7), put(b"c", lease=7), put(b"d", lease=7))
    store.apply(put(b"a"), put(b"b", lease=8), delete(b"c"), put(b"d", flags=IGNORE_LEASE))
    assert (keys_of(store, 7), keys_of(store, 8)) == ({b"d"}, {b"b"})
    store.apply(put(b"n", b"1", lease=7), increment(b"n"), append(b"n", b"0"))
    assert keys_of(store, 7) == {b"d", b"n"}
    store.apply(txn([], [put(b"t", lease=8), put(b"n", b"2")], []))
    assert (keys_of(store, 7), keys_of(store, 8)) == ({b"d"}, {b"b", b"t"})


def test_a_lease_takes_so_many_keys() -> None:
    store = driver()
    store.apply(grant(7), *(put(b"%d" % number, lease=7) for number in range(4)))
    answers = store.apply(put(b"x", lease=7), txn([], [put(b"x", lease=7)], []), put(b"1", lease=7), delete(b"2"))
    assert [code(answer) for answer in answers] == ["too_many_keys", "too_many_keys", "ok", "ok"]
    assert code(store.apply(put(b"x", lease=7))[0]) == "ok"
    assert keys_of(store, 7) == {b"0", b"1", b"3", b"x"}


def test_a_transaction_with_an_unknown_lease_does_nothing() -> None:
    store = driver()
    (answer,) = store.apply(txn([], [put(b"a"), txn([], [put(b"b", lease=7)], [])], []))
    assert code(answer) == "lease_not_found"
    assert store.keys() == []


def test_a_revoke_deletes_its_keys_in_one_revision() -> None:
    store = driver()
    store.apply(grant(7), put(b"b", lease=7), put(b"a", lease=7), put(b"other"))
    assert store.apply(revoke(7)) == [[0, 5, 2]]
    assert store.keys() == [b"other"]
    assert store.apply(grant(7), revoke(7)) == [[0, 5, 7, 5000], [0, 5, 0]]


def test_expiry_is_the_word_of_the_leader_of_the_entrys_term() -> None:
    store = driver()
    store.apply(grant(7), grant(8), put(b"a", lease=7), put(b"b", lease=8))
    for stale in (0, TERM + 1):
        assert store.apply([EXPIRE_LEASES, 0, stale, [7]]) == [[0, 3, 0]]
        assert store.apply([CHECKPOINT_LEASES, 0, stale, [[7, 10]]]) == [[0, 3, 0]]
    assert store.keys() == [b"a", b"b"]
    assert store.apply([EXPIRE_LEASES, 0, TERM, [7, 99, 8]]) == [[0, 5, 2]]
    assert store.keys() == []


def test_an_expiry_stops_after_so_many_keys_but_never_within_a_lease() -> None:
    store = driver()
    store.apply(grant(1), grant(2), grant(3))
    store.apply(*(put(b"%d-%d" % (lease, number), lease=lease) for lease in (1, 2, 3) for number in range(3)))
    assert store.apply([EXPIRE_LEASES, 0, TERM, [1, 2, 3]])[0][2] == 1
    assert store.apply([EXPIRE_LEASES, 0, TERM, [2, 3]])[0][2] == 1
    assert (store.keys(), store.store.leases.ids()) == ([b"3-0", b"3-1", b"3-2"], [3])


def test_a_checkpoint_stays_within_what_was_granted() -> None:
    store = driver()
    store.apply(grant(7), grant(8))
    assert store.apply([CHECKPOINT_LEASES, 0, TERM, [[7, 1200], [8, 10**9], [9, 5]]]) == [[0, 1, 2]]
    lease, other = store.store.leases.get(7), store.store.leases.get(8)
    assert lease is not None and other is not None
    assert (lease.remaining_ms, other.remaining_ms) == (1200, 5000)


def test_malformed_words_of_a_leader_change_nothing() -> None:
    store = driver()
    store.apply(grant(7))
    for rows in ([[7]], [["x", 5]], [7]):
        assert code(store.apply([CHECKPOINT_LEASES, 0, TERM, rows])[0]) == "invalid_request"
    for command in ([EXPIRE_LEASES, 0, TERM], [EXPIRE_LEASES, 0, TERM, ["7"]], [EXPIRE_LEASES, 0, None, []]):
        assert code(store.apply(command)[0]) == "invalid_request"
    assert store.store.leases.ids() == [7]


def test_the_news_say_what_was_granted_and_what_ended() -> None:
    store = driver()
    store.apply(grant(7), revoke(7), grant(7), [EXPIRE_LEASES, 0, TERM, [7]])
    assert list(store.store.leases.take_news()) == [(7, True), (7, False), (7, True), (7, False)]
    assert list(store.store.leases.take_news()) == []


@pytest.mark.parametrize("twin", TWINS)
def test_a_restart_finds_leases_and_attachments(twin: str, tmp_path: Path) -> None:
    keyspace = keyspace_of(twin, tmp_path, LIMITS)
    store = Driver(keyspace, LIMITS)
    long_key = b"k" * 3000
    store.apply(grant(-7), grant(8), put(b"a", lease=-7), put(long_key, lease=-7), put(b"b", lease=8))
    store.commit()
    store.apply([CHECKPOINT_LEASES, 0, TERM, [[-7, 900]]], put(b"a"), put(b"c", lease=-7), revoke(8))
    store.commit()
    store.store.close()
    again = keyspace_of(twin, tmp_path, LIMITS) if isinstance(keyspace, LmdbKeyspace) else keyspace
    opened = Store.open(again, LIMITS)
    assert opened.leases.ids() == [-7]
    lease = opened.leases.get(-7)
    assert lease is not None
    assert (lease.ttl_ms, lease.remaining_ms, lease.keys) == (5000, 900, {long_key, b"c"})
    assert opened.digest == store.store.digest
    opened.close()


def test_a_snapshot_carries_them() -> None:
    keyspace = MemoryKeyspace()
    store = Driver(keyspace, LIMITS)
    store.apply(grant(7), put(b"a", lease=7))
    store.commit()
    data, made = dump_memory(keyspace)
    receiver = SnapshotBytesReceiver(meta_of(made))
    receiver.write(0, data)
    opened = Store.open(receiver.finish(), LIMITS)
    lease = opened.leases.get(7)
    assert lease is not None
    assert lease.keys == {b"a"}
    assert opened.read(get(b"a"))[2][4] == 7


def test_every_change_of_a_lease_is_in_the_digest() -> None:
    digests = set()
    for rest in ([], [grant(8)], [grant(8, 6000)], [[CHECKPOINT_LEASES, 0, TERM, [[7, 5]]]], [revoke(7)]):
        store = driver()
        store.apply(grant(7), *rest)
        digests.add(store.store.digest)
    assert len(digests) == 5

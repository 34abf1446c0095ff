"""What a member's stores have done, for its figures."""

from raftkv.limits import Limits
from raftkv.store.memory_keyspace import MemoryKeyspace
from raftkv.store.watches import WatchHub
from raftkv.wire.commands import EXPIRE_LEASES, LEASE_GRANT, LEASE_REVOKE
from tests.unit.store.stores import Driver, delete, get, put, ranged, txn


def test_it_counts_what_was_done_and_not_what_was_refused() -> None:
    driver, hub = Driver(MemoryKeyspace()), WatchHub(Limits())
    driver.store.tell(hub)
    tally = hub.tally
    driver.apply(put(b"a"), put(b"b"), put(b""), put(b"c", lease=9), delete(b"missing"))
    assert (tally.puts, tally.deletes) == (2, 0)
    driver.apply(txn([], [put(b"d"), delete(b"a", b"c")], []), txn([], [put(b"e", lease=9)], []))
    assert (tally.puts, tally.deletes, tally.txns) == (3, 2, 1)
    driver.store.read(get(b"d"))
    driver.store.range_cursor(ranged())
    driver.store.read(ranged())
    assert tally.ranges == 3


def test_leases_that_end_by_themselves_are_counted_twice() -> None:
    driver, hub = Driver(MemoryKeyspace()), WatchHub(Limits())
    driver.store.tell(hub)
    tally = hub.tally
    driver.apply(*([LEASE_GRANT, 0, lease, 60_000] for lease in (1, 2, 3, 3)))
    driver.apply(put(b"a", lease=1), put(b"b", lease=2))
    driver.apply([LEASE_REVOKE, 0, 1], [LEASE_REVOKE, 0, 9])
    driver.apply([EXPIRE_LEASES, 0, 1, [2, 3]], [EXPIRE_LEASES, 0, 7, [3]])
    assert (tally.leases_granted, tally.leases_revoked, tally.leases_expired) == (3, 3, 2)
    assert tally.deletes == 2


def test_it_outlives_a_store() -> None:
    one, other, hub = Driver(MemoryKeyspace()), Driver(MemoryKeyspace()), WatchHub(Limits())
    one.store.tell(hub)
    one.apply(put(b"a"))
    other.apply(put(b"a"))
    assert hub.tally.puts == 1, "the other one is nobody's yet"
    other.store.take_place_of(one.store)
    other.apply(put(b"b"))
    assert hub.tally.puts == 2

"""The hash of all that can be read: the same for the same data, however far compaction has come, and another one for other data."""

from pathlib import Path

import pytest

from raftkv.errors import Compacted, FutureRevision
from raftkv.store.hashing import ContentHash
from raftkv.store.memory_keyspace import MemoryKeyspace
from raftkv.wire.commands import COMPACT, LEASE_GRANT
from tests.unit.store.stores import TWINS, Driver, delete, keyspace_of, put


def fill(driver: Driver, *, last: bytes = b"v") -> None:
    driver.apply([LEASE_GRANT, 0, 9, 60_000])
    for number in range(600):
        driver.apply(put(b"k%03d" % (number % 200), b"value %d" % number))
    driver.apply(delete(b"k050", b"k060"))
    driver.apply(put(b"k055", last, lease=9))


def hash_of(driver: Driver, revision: int = 0) -> tuple[int, int, int]:
    hashing = driver.store.content_hash(revision)
    while not hashing.step():
        pass
    return hashing.checksum, hashing.compact_revision, hashing.revision


def compact_whole(driver: Driver) -> None:
    while driver.store.compaction.has_work:
        driver.store.compaction.step()
        if driver.store.compaction.wants_commit:
            driver.commit()


@pytest.mark.parametrize("twin", TWINS)
def test_members_with_equal_data_agree_however_it_lies_there(twin: str, tmp_path: Path) -> None:
    one, other = Driver(keyspace_of(twin, tmp_path)), Driver(MemoryKeyspace())
    for driver in (one, other):
        fill(driver)
    one.commit()
    assert hash_of(one) == hash_of(other)
    assert hash_of(one)[1:] == (-1, 603)
    for driver in (one, other):
        driver.apply([COMPACT, 0, 500])
    one.commit()
    assert hash_of(one) == hash_of(other), "one has made no room yet"
    compact_whole(one)
    assert hash_of(one) == hash_of(other)
    assert hash_of(one)[1] == 500
    assert hash_of(one, 550) == hash_of(other, 550)
    assert hash_of(one, 550)[0] != hash_of(one)[0]


def test_other_data_has_another_hash() -> None:
    one, other, third = (Driver(MemoryKeyspace()) for _ in range(3))
    fill(one)
    fill(other, last=b"w")
    fill(third)
    third.apply([COMPACT, 0, 400])
    assert hash_of(one)[0] != hash_of(other)[0]
    assert hash_of(one, 602) == hash_of(other, 602), "they differ in the last write only"
    assert hash_of(one)[0] != hash_of(third)[0], "what was compacted is not part of it"


def test_a_revision_that_cannot_be_read_has_no_hash() -> None:
    driver = Driver(MemoryKeyspace())
    fill(driver)
    driver.apply([COMPACT, 0, 300])
    assert hash_of(driver, 300)[2] == 300
    with pytest.raises(Compacted):
        driver.store.content_hash(299)
    with pytest.raises(FutureRevision):
        driver.store.content_hash(604)


def test_it_is_made_in_steps_and_begins_anew_when_history_is_compacted_meanwhile() -> None:
    driver, same = Driver(MemoryKeyspace()), Driver(MemoryKeyspace())
    fill(driver)
    fill(same)
    hashing = driver.store.content_hash(0)
    assert not hashing.step(), "600 events are more than one step"
    driver.apply([COMPACT, 0, 300], put(b"later"))
    same.apply([COMPACT, 0, 300])
    while not hashing.step():
        pass
    assert (hashing.checksum, hashing.compact_revision, hashing.revision) == hash_of(same)
    late: ContentHash = driver.store.content_hash(400)
    late.step()
    driver.apply([COMPACT, 0, 500])
    with pytest.raises(Compacted):
        late.step()

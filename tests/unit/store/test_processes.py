"""The store in processes of its own: killed in the middle of commits, and under another hash seed."""

import os
import subprocess
import sys
from pathlib import Path

from raftkv.store.lmdb_keyspace import LmdbKeyspace
from raftkv.store.store import Store
from tests.unit.store.stores import LIMITS, get

COMMITTING = """
import sys
from raftkv.store.lmdb_keyspace import LmdbKeyspace
from tests.unit.store.stores import LIMITS, SESSION, Driver, increment, put

driver = Driver(LmdbKeyspace.open(sys.argv[1], LIMITS))
while True:
    index = driver.store.applied_index + 1
    driver.apply(put(b"%d" % index), increment(b"n", seq=index), session=SESSION, ack_below=index)
    driver.commit()
    print(index, flush=True)
"""

DIGESTING = """
import zlib
from raftkv.store.memory_keyspace import MemoryKeyspace
from tests.unit.store.stores import Driver, delete, put, txn

keyspace = MemoryKeyspace()
driver = Driver(keyspace)
for number in range(40):
    session = b"session-%08d" % (number % 17)
    nested = txn([], [put(b"%d" % number), put(b"k")], [put(b"j")], seq=number)
    driver.apply(nested, delete(b"1", b"3"), session=session, at_ms=number * 40_000)
    driver.apply([33, 0])
    driver.commit()
print(driver.store.digest, zlib.crc32(keyspace.dump()), driver.store.sessions_count)
"""


def environment(project: Path, **changes: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(project), **changes}


def test_a_store_killed_while_it_commits_is_whole_at_some_index(project: Path, tmp_path: Path) -> None:
    path = str(tmp_path / "store.mdb")
    last = 0
    for _ in range(3):
        child = subprocess.Popen(
            [sys.executable, "-c", COMMITTING, path], stdout=subprocess.PIPE, env=environment(project), text=True
        )
        assert child.stdout is not None
        with child, child.stdout:
            for _ in range(20):
                last = int(child.stdout.readline())
            child.kill()
            for line in child.stdout:
                last = int(line) if line.endswith("\n") else last
        store = Store.open(LmdbKeyspace.open(path, LIMITS), LIMITS)
        index = store.applied_index
        assert index in (last, last + 1), "what was reported is durable"
        assert store.revision == 1 + 2 * index
        assert store.read(get(b"n"))[2][5] == b"%d" % index
        assert store.read(get(b"%d" % index))[2] is not None
        assert store.read(get(b"%d" % (index + 1)))[2] is None
        store.close()


def test_neither_digest_nor_bytes_depend_on_the_hash_seed(project: Path) -> None:
    outputs = {
        subprocess.run(
            [sys.executable, "-c", DIGESTING],
            env=environment(project, PYTHONHASHSEED=seed),
            stdout=subprocess.PIPE,
            check=True,
            timeout=60,
        ).stdout
        for seed in ("1", "2", "77")
    }
    assert len(outputs) == 1
    assert b" 0\n" not in outputs.pop(), "some sessions are left"

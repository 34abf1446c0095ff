"""The longest time that one turn of a leader's loop takes, by what it is asked: CPU time of the thread, in one process.

    python bench/holds.py [--keys 100000] [--output bench/results/holds.json]

The daemon's own figure (`raftkv_loop_stall_seconds`) is wall time, and on a machine that others use it says mostly how long the loop did not get
a processor. Here frames go into the native door of a one-member cluster on LMDB, without sockets and journal, and every call that
the loop would make is timed by itself. The collector is set as in the daemon. What shares the interpreter with the loop (the
threads of commit and journal) is not in these figures: bench/store_apply.py has them.
"""

import argparse
import asyncio
import gc
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Iterator

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from machine import machine

from raftkv.daemon.main import GC_THRESHOLDS
from raftkv.limits import GIB, Limits
from raftkv.store.lmdb_keyspace import LmdbKeyspace
from raftkv.store.store import Store
from raftkv.wire import commands as c
from raftkv.wire.protocol import ACK, new_packer
from tests.unit.daemon.test_native import SESSION, Line

LIMITS = Limits(map_bytes=8 * GIB)
READ_BYTES = 256 * 1024  # what asyncio takes from a socket at once
PREFIX, END = b"key/", b"key0"
Row = dict[str, Any]


class Bench:
    """A member whose every call is timed."""

    def __init__(self, path: str, keys: int) -> None:
        self.line = Line(LIMITS)
        self.member = self.line.member
        self._pack = new_packer().pack
        self._sequence = 0
        self._request_id = 10
        self.rows: list[Row] = []
        store = Store.open(LmdbKeyspace.open(path, LIMITS), LIMITS)
        for _, entries, _ in self.member.journal.saves:
            for entry in entries:
                if entry.index <= self.member.storage.applied_index:
                    store.apply(entry)
        self.member.storage.store = store
        self.line.greet(session=SESSION)
        self.names = [PREFIX + b"%08d" % number for number in range(keys)]
        random.Random(1).shuffle(self.names)

    def write(self, *commands: list[Any]) -> bytes:
        """The frames of writes, sequences filled in."""
        parts = [self._pack([0, 0, [ACK, self._sequence + 1, self._sequence == 0]])]
        for command in commands:
            self._sequence += 1
            self._request_id += 1
            parts.append(self._pack([self._request_id, 60_000, [command[0], self._sequence, *command[2:]]]))
        return b"".join(parts)

    def read(self, command: list[Any]) -> bytes:
        self._request_id += 1
        packed: bytes = self._pack([self._request_id, 60_000, command])
        return packed

    def turns(self, data: bytes) -> Iterator[float]:
        """CPU seconds of each call of the loop until everything is answered."""
        clock, member = time.thread_time, self.member
        for start in range(0, len(data), READ_BYTES):
            began = clock()
            self.line.door.data_received(data[start : start + READ_BYTES])
            yield clock() - began
        while True:
            began = clock()
            member.turn()
            yield clock() - began
            self.line.transport.written.clear()
            if not (member.replica.has_backlog or member.service.has_backlog or member.raft.has_effects) and (
                len(member.journal.saves) == member.journal.reported
            ):
                return

    def measure(self, name: str, make: Callable[[], bytes], repeat: int = 5) -> None:
        """The median over repetitions of the longest turn, and of all of it."""
        found = []
        for _ in range(repeat):
            times = list(self.turns(make()))
            found.append((max(times), sum(times), len(times)))
        found.sort()
        longest, whole, turns = found[len(found) // 2]
        self.report(name, longest, whole, turns)

    def report(self, name: str, longest: float, whole: float, turns: int) -> None:
        row = {"what": name, "longest_ms": longest * 1e3, "whole_ms": whole * 1e3, "turns": turns}
        self.rows.append(row)
        print(f"{name:<52} longest {row['longest_ms']:7.2f} ms, of {row['whole_ms']:8.2f} in {turns} turns", flush=True)

    def put_all(self, value: bytes) -> None:
        for start in range(0, len(self.names), 1024):
            chosen = self.names[start : start + 1024]
            for _ in self.turns(self.write(*([c.PUT, 0, key, value, 0, 0] for key in chosen))):
                pass
            if not self.member.storage.has_room:
                self.commit()

    def commit(self) -> None:
        """As the daemon does it, but at once; what of it the loop does itself is timed."""
        store, clock = self.member.storage.store, time.thread_time
        began = clock()
        job = store.freeze()
        self.freezing = clock() - began
        assert job is not None, "there is something to commit"
        job.run()
        began = clock()
        store.thaw(job)
        self.thawing = clock() - began


def ranged(flags: int = 0, limit: int = 0, revision: int = 0, order: int = 0, target: int = 0) -> list[Any]:
    return [c.RANGE, flags, PREFIX, END, limit, revision, order, target, 0, 0, 0, 0]


def reads(bench: Bench, where: str) -> None:
    old = bench.member.storage.revision - len(bench.names) // 2
    for name, command in {
        "range of all": ranged(),
        "range of all, keys only": ranged(c.KEYS_ONLY),
        "count of all": ranged(c.COUNT_ONLY),
        "all sorted by mod revision": ranged(order=c.SORT_DESCEND, target=c.SORT_MOD),
        "all keys sorted by mod revision": ranged(c.KEYS_ONLY, order=c.SORT_DESCEND, target=c.SORT_MOD),
        "range of all, older revision": ranged(revision=old),
        "first 1,000 of all": ranged(limit=1000),
    }.items():
        bench.measure(f"{name}, {where}", lambda command=command: bench.read(command))  # type: ignore[misc]


def writes(bench: Bench) -> None:
    names, value = bench.names, b"v" * 128
    put = lambda key: [c.PUT, 0, key, value, 0, 0]  # noqa: E731
    bench.measure("2,000 puts", lambda: bench.write(*map(put, names[:2000])))
    bench.measure(
        "16,000 puts of an empty value", lambda: bench.write(*([c.PUT, 0, k, b"", 0, 0] for k in names[:16_000]))
    )
    bench.measure(
        "1,000 transactions, compare and put",
        lambda: bench.write(
            *([c.TXN, 0, [[c.NOT_EQUAL, c.COMPARE_CREATE, k, 1, b""]], [put(k)], []] for k in names[:1000])
        ),
    )
    bench.measure("a transaction of 128 puts", lambda: bench.write([c.TXN, 0, [], list(map(put, names[:128])), []]))
    bench.measure(
        "50 transactions of 128 puts",
        lambda: bench.write(*([c.TXN, 0, [], list(map(put, names[:128])), []] for _ in range(50))),
    )
    everything = [c.GREATER, c.COMPARE_VERSION, PREFIX, 0, END]
    bench.measure(f"a compare over {len(names)} keys", lambda: bench.write([c.TXN, 0, [everything], [], []]), 3)
    bench.measure("a transaction with a range of all", lambda: bench.write([c.TXN, 0, [], [ranged()], []]), 3)
    some = sorted(names)[:2000]
    bench.measure("delete of 1,000 keys", lambda: bench.write([c.DELETE_RANGE, 0, some[0], some[1000], 0]), 1)
    bench.measure(f"delete of {len(names) - 1000} keys", lambda: bench.write([c.DELETE_RANGE, 0, PREFIX, END, 0]), 1)


def compaction(bench: Bench) -> None:
    store, clock, times = bench.member.storage.store, time.thread_time, []
    for _ in bench.turns(bench.write([c.COMPACT, 0, store.revision])):
        pass
    bench.commit()
    while store.compaction.has_work:
        began = clock()
        store.compaction.step()
        times.append(clock() - began)
        if store.compaction.wants_commit or not store.compaction.has_work:
            bench.commit()
    bench.report("compaction", max(times), sum(times), len(times))


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    facts = machine()
    with tempfile.TemporaryDirectory(prefix="raftkv-bench-") as directory:
        bench = Bench(f"{directory}/store.mdb", arguments.keys)
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        bench.put_all(b"v" * 128)
        bench.commit()
        bench.put_all(b"w" * 128)
        reads(bench, "not committed yet")
        bench.commit()
        bench.report("freeze of what is to be committed", bench.freezing, bench.freezing, 1)
        bench.report("thaw of what was committed", bench.thawing, bench.thawing, 1)
        reads(bench, "committed")
        writes(bench)
        compaction(bench)
        bench.member.storage.store.close()
    if arguments.output:
        report = {"machine": facts, "arguments": sys.argv[1:], "rows": bench.rows}
        arguments.output.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    asyncio.run(main())

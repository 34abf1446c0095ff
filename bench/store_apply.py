"""What one command costs the store: apply and commit, in microseconds of CPU, on a store in a temporary directory.

    python bench/store_apply.py [--keys 200000] [--batch 128] [--value-bytes 128]

Apply is timed per command of a batch, decoding of the entry and sessions included. A commit is timed alone, and once beside
a loop that never rests: py-lmdb gives the interpreter lock away at every put and waits a switch interval to get it back.
"""

import argparse
import os
import random
import sys
import tempfile
import time
from threading import Thread
from typing import Any, Callable

from raftkv.limits import GIB, Limits
from raftkv.raft.messages import ENTRY_COMMANDS, Entry
from raftkv.store.lmdb_keyspace import LmdbKeyspace
from raftkv.store.store import Store
from raftkv.wire.commands import APPEND, GET, INCREMENT, PUT, RANGE, TXN, encode_batch, prefix_range_end
from raftkv.wire.passwords import hash_password
from raftkv.wire.users import AUTH_ENABLE, READWRITE, ROLE_ADD, ROLE_GRANT_PERMISSION, USER_ADD, USER_GRANT_ROLE

LIMITS = Limits(map_bytes=8 * GIB, overlay_bytes_max=4 * GIB, overlay_records_max=10_000_000)
SESSION = b"bench-session-16"


class Bench:
    def __init__(self, path: str, batch: int) -> None:
        self.store = Store.open(LmdbKeyspace.open(path, LIMITS), LIMITS)
        self.batch = batch
        self.sequence = 1
        self.user: str | None = None

    def apply(self, name: str, commands: list[list[Any]]) -> None:
        entries = []
        for start in range(0, len(commands), self.batch):
            piece = commands[start : start + self.batch]
            ack_below = self.sequence
            for command in piece:
                command[1] = self.sequence
                self.sequence += 1
            data = encode_batch(0, [[SESSION, True, ack_below, self.user, 1 << 40, piece]])
            entries.append(Entry(self.store.applied_index + len(entries) + 1, 1, ENTRY_COMMANDS, data))
        count = len(commands)
        commands.clear()
        started = time.process_time()
        refused = sum(answer[0] for entry in entries for answers in self.store.apply(entry) for answer in answers)
        report(f"apply {name}", time.process_time() - started, count)
        assert not refused, f"{refused} commands were refused"

    def log_in(self) -> None:
        """From here on all is done by a user with 100 roles of one range each, authentication being on."""
        roles = [b"/bench/%02x" % number for number in range(100)] + [b"/bench/"]
        hashed = hash_password("secret")
        commands: list[list[Any]] = [[USER_ADD, 0, name, hashed, False] for name in ("root", "ann")]
        commands.append([USER_GRANT_ROLE, 0, "root", "root"])
        for number, prefix in enumerate(roles):
            commands += [
                [ROLE_ADD, 0, f"r{number}"],
                [ROLE_GRANT_PERMISSION, 0, f"r{number}", READWRITE, prefix, prefix_range_end(prefix)],
                [USER_GRANT_ROLE, 0, "ann", f"r{number}"],
            ]
        data = encode_batch(0, [[None, False, 0, None, 0, [*commands, [AUTH_ENABLE, 0]]]])
        answers = self.store.apply(Entry(self.store.applied_index + 1, 1, ENTRY_COMMANDS, data))[0]
        assert not any(answer[0] for answer in answers), "everybody is there"
        self.user = "ann"

    def read(self, name: str, commands: list[list[Any]]) -> None:
        started = time.process_time()
        for command in commands:
            self.store.read(command)
        report(f"read {name}", time.process_time() - started, len(commands))

    def commit(self, name: str, commands: int) -> None:
        job = self.store.freeze()
        assert job is not None, "there is something to commit"
        cpu, started = time.process_time(), time.perf_counter()
        job.run()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - started
        self.store.thaw(job)
        report(f"commit {name} ({wall * 1e3:.0f} ms)", cpu, commands)

    def commit_beside_a_busy_loop(self, name: str, commands: int, switch_ms: float) -> None:
        job = self.store.freeze()
        assert job is not None, "there is something to commit"
        before = sys.getswitchinterval()
        sys.setswitchinterval(switch_ms / 1e3)
        thread = Thread(target=job.run)
        started = last = time.perf_counter()
        thread.start()
        stalls: list[float] = []
        while thread.is_alive():
            sum(range(20))
            now = time.perf_counter()
            if now - last > 2e-4:
                stalls.append(now - last)
            last = now
        thread.join()
        sys.setswitchinterval(before)
        self.store.thaw(job)
        wall = time.perf_counter() - started
        print(
            f"  commit {name} beside a busy loop, switch interval {switch_ms} ms: {commands} commands in {wall * 1e3:.0f} ms, "
            f"loop lost {sum(stalls) * 1e3:.0f} ms, longest stall {max(stalls, default=0) * 1e3:.1f} ms"
        )


def report(name: str, seconds: float, count: int) -> None:
    print(f"  {name}: {seconds / count * 1e6:.2f} us each, {count} times")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--value-bytes", type=int, default=128)
    options = parser.parse_args()
    draw = random.Random(1)
    count = options.keys
    keys = [b"/bench/%016x" % draw.getrandbits(64) for _ in range(count)]
    value = os.urandom(options.value_bytes)

    def puts(chosen: list[bytes]) -> list[list[Any]]:
        return [[PUT, 0, key, value, 0, 0] for key in chosen]

    chosen: Callable[[], list[bytes]] = lambda: [keys[draw.randrange(count)] for _ in range(count)]  # noqa: E731
    with tempfile.TemporaryDirectory(prefix="raftkv-bench-") as directory:
        bench = Bench(os.path.join(directory, "store.mdb"), options.batch)
        bench.apply("put of new keys", puts(keys))
        bench.commit("of new keys", count)
        bench.apply("put over committed keys", puts(chosen()))
        bench.apply("put over keys in the overlay", puts(chosen()))
        bench.commit("of twice as many overwrites", 2 * count)
        bench.apply("increment of one key", [[INCREMENT, 0, b"/counter", 1] for _ in range(count)])
        bench.commit("of one hot key", count)
        bench.apply("append", [[APPEND, 0, b"/appended/%d" % (i % 1000), b"x"] for i in range(count // 10)])
        compares = [[0, 0, keys[0], 1, b""]]
        bench.apply("txn", [[TXN, 0, compares, puts([key]), puts([key])] for key in chosen()[: count // 10]])
        bench.commit("of both", count // 5)
        bench.read("get", [[GET, 0, key] for key in chosen()])
        ranges = [[RANGE, 0, key, key[:-1] + b"\xff", 0, 0, 0, 0, 0, 0, 0, 0] for key in chosen()[: count // 10]]
        bench.read("short range", ranges)
        old = bench.store.revision - count
        bench.read("short range at an old revision", [[*command[:5], old, *command[6:]] for command in ranges])
        bench.read("count of all", [[RANGE, 4, b"\0", b"\0", 0, 0, 0, 0, 0, 0, 0, 0]])
        bench.apply("put over committed keys", puts(chosen()))
        bench.read("short range over an overlay", ranges)
        for switch_ms in (5, 1, 0.2):
            bench.commit_beside_a_busy_loop("of overwrites", count, switch_ms)
            bench.apply("put over committed keys", puts(chosen()))
        bench.log_in()
        bench.apply("put over keys in the overlay by a user", puts(chosen()))
        bench.apply("txn by a user", [[TXN, 0, compares, puts([key]), puts([key])] for key in chosen()[: count // 10]])
        print(
            f"  {bench.store.db_size_bytes / 1e6:.0f} MB on disk, {bench.store.db_size_in_use_bytes / 1e6:.0f} in use"
        )
        bench.store.close()


if __name__ == "__main__":
    main()

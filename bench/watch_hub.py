"""For how long the watch hub holds the loop, in one process: feeding an entry, and handing out, live and from history. CPU time of the thread.

    python bench/watch_hub.py [WATCHERS]        default 10000

Every frame is made as the native door makes it; there is no socket, so what a send costs is not in it.
"""

import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from raftkv.errors import RaftKVError
from raftkv.limits import Limits
from raftkv.store.memory_keyspace import MemoryKeyspace
from raftkv.store.watcher import Batch
from raftkv.store.watches import WatchHub
from raftkv.wire.protocol import WATCH_CREATE, WATCH_EVENTS, new_packer
from tests.unit.store.stores import Driver, put

EVENTS = 2_000


class Sink:
    """Packs what it is handed, as the native door does."""

    def __init__(self) -> None:
        self.takes_events = True
        self.events = 0
        self._pack = new_packer().pack

    def on_events(self, tag: int, batch: Batch) -> None:
        packed = batch.encoded.get("bench")
        if packed is None:
            packed = batch.encoded["bench"] = self._pack([0, WATCH_EVENTS, batch.revision, batch.more, batch.items()])
        assert len(b"\x92" + self._pack(tag) + packed) > 1
        self.events += len(batch.events)

    def on_progress(self, tag: int, revision: int) -> None: ...

    def on_canceled(self, tag: int, error: RaftKVError) -> None:
        raise error


class Bench:
    def __init__(self) -> None:
        self.driver = Driver(MemoryKeyspace())
        self.hub = WatchHub(Limits())
        self.driver.store.tell(self.hub)
        self.sink = Sink()

    def watch(self, keys: list[bytes], start_revision: int) -> None:
        for number, key in enumerate(keys):
            self.hub.create([WATCH_CREATE, key, b"", start_revision, 0], self.sink, number)

    def feed(self, name: str, commands: list[Any]) -> None:
        """One entry."""
        began = time.thread_time()
        self.driver.apply(*commands)
        print(f"{name:<48} apply and feed {(time.thread_time() - began) * 1000:6.1f} ms", flush=True)

    def drain(self, name: str) -> None:
        """Until everybody has everything."""
        held: list[float] = []
        before = self.sink.events
        while self.hub.has_backlog:
            began = time.thread_time()
            self.hub.step()
            held.append(time.thread_time() - began)
        held.sort()
        print(
            f"{name:<48} {len(held):>5} steps, held for p50 {held[len(held) // 2] * 1000:.1f}"
            f" p99 {held[len(held) * 99 // 100] * 1000:.1f} max {held[-1] * 1000:.1f} ms,"
            f" {(self.sink.events - before) / sum(held) / 1e6:.2f} M deliveries/s",
            flush=True,
        )


def main() -> None:
    watchers = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    crowd = Bench()
    for _ in range(EVENTS // 100):
        crowd.driver.apply(*(put(b"crowd", b"v" * 100) for _ in range(100)))
    crowd.driver.commit()
    crowd.watch([b"crowd"] * watchers, 2)
    crowd.drain("one key, from history")
    crowd.feed("one key, an entry of 2,000", [put(b"crowd", b"v" * 100) for _ in range(EVENTS)])
    crowd.drain("one key, live")
    alone = Bench()
    keys = [b"own/%d" % number for number in range(watchers)]
    alone.watch(keys, 0)
    alone.feed("a key each, an entry of 2,000", [put(key, b"v" * 100) for key in keys[:EVENTS]])
    alone.drain("a key each, live")
    alone.sink.takes_events = False
    for start in range(0, watchers, EVENTS):
        alone.driver.apply(*(put(key, b"v" * 100) for key in keys[start : start + EVENTS]))
    alone.drain("a key each, found that nobody takes anything")
    alone.sink.takes_events = True
    alone.drain("a key each, caught up from history")


if __name__ == "__main__":
    main()

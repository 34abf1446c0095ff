"""What a delivered event costs through the door of raftkv's clients and through that of etcd's, in one process. CPU time of the thread.

    python bench/watch_doors.py [WATCHERS]        default 10000

Both doors are given the same watches on one key, on streams of 100 each, and the same entries of 100 puts. There is no socket, and for etcd's door no
HTTP/2: what framing and sending cost is not in it. A native response has all revisions of an entry, etcd's has one.
"""

import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from raftkv.daemon.api.watching import WatchDoor
from raftkv.daemon.etcd.watch import WatchStream
from raftkv.etcdpb import rpc_pb2 as rpc
from raftkv.replica.groups import WriteGroup
from raftkv.wire.commands import PUT
from raftkv.wire.protocol import WATCH_CREATE
from tests.unit.daemon.etcd_calls import HandCall, HandHouse

STREAM_WATCHERS = 100
ENTRY_PUTS = 100


class Transport:
    """Counts what it is sent."""

    def __init__(self) -> None:
        self.writes = 0

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: bytes) -> None:
        self.writes += 1


class CountingCall(HandCall):
    """Counts what it is told."""

    count = 0

    def reply(self, message: Any) -> None:
        CountingCall.count += 1


class Writer:
    """The origin of the puts."""

    takes_answers = True

    def on_answers(self, group: Any, answers: Any) -> None: ...

    def on_refused(self, group: Any, error: Exception) -> None:
        raise error


def put_all(hand: HandHouse, count: int) -> float:
    """One entry, told to everybody: seconds."""
    commands = [[PUT, 0, b"k", b"v" * 100, 0, 0] for _ in range(count)]
    group = WriteGroup(Writer(), [0] * count, commands, size_bytes=200 * count, deadline_ms=1 << 50)
    hand.leader.service.forward(group)
    began = time.thread_time()
    hand.cluster.settle()
    return time.thread_time() - began


def measure(name: str, hand: HandHouse, watchers: int) -> None:
    for puts in (1, ENTRY_PUTS):
        put_all(hand, puts)
        seconds = min(put_all(hand, puts) for _ in range(3))
        print(
            f"{name:<8} {watchers} watchers of one key, an entry of {puts:>3}: {seconds * 1000:8.1f} ms,"
            f" {seconds / (watchers * puts) * 1e6:6.2f} us per event",
            flush=True,
        )


def main() -> None:
    watchers = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    hand = HandHouse()
    transport: Any = Transport()
    for start in range(0, watchers, STREAM_WATCHERS):
        door = WatchDoor(hand.leader.service, transport, lambda tag, answer: None, hand.limits)
        for tag in range(start, start + STREAM_WATCHERS):
            door.receive(tag, 0, [WATCH_CREATE, b"k", b"", 0, 0])
    hand.cluster.settle()
    measure("native", hand, watchers)
    hand = HandHouse()
    for _ in range(0, watchers, STREAM_WATCHERS):
        stream = WatchStream(hand.house, CountingCall())
        for _ in range(STREAM_WATCHERS):
            stream.on_message(rpc.WatchRequest(create_request=rpc.WatchCreateRequest(key=b"k")))
    hand.cluster.settle()
    measure("etcd", hand, watchers)


if __name__ == "__main__":
    main()

"""Delay, jitter, loss, duplication and reordering of packets, in user space: a test kernel rarely has tc netem.

A program that runs in a node's network namespace. iptables hands every packet that leaves for a peer to queue 1 (NFQUEUE); here each is
let go at its time, or dropped, or let go and sent once more through a raw socket, whose mark passes it by the queue. The netlink protocol is
spoken by hand (linux/netfilter/nfnetlink_queue.h): a dozen numbers, and no dependency.
"""

import argparse
import heapq
import random
import select
import socket
import struct
import sys
import time
from typing import Final, Iterator

QUEUE_NUMBER: Final = 1
MARK: Final = 77
"""Of packets that have been through it."""
READY: Final = "ready"

NETLINK_NETFILTER: Final = 12
PACKET, VERDICT, CONFIG = 0x300, 0x301, 0x302
REQUEST: Final = 1
CONFIG_COMMAND, CONFIG_PARAMETERS, CONFIG_LENGTH_MAX = 1, 2, 3
PACKET_HEADER, VERDICT_HEADER, PAYLOAD = 1, 2, 10
BIND, COPY_PACKET = 1, 2
DROP, ACCEPT = 0, 1
ATTRIBUTE_TYPE_MASK: Final = 0x3FFF
PACKETS_MAX: Final = 20_000
BUFFER_BYTES: Final = 1 << 20


def attribute(kind: int, data: bytes) -> bytes:
    """A netlink attribute, padded."""
    return struct.pack("=HH", len(data) + 4, kind) + data + bytes(-len(data) % 4)


def message(kind: int, *attributes: bytes) -> bytes:
    """A netlink message of the queue's subsystem."""
    body = struct.pack("=BBH", socket.AF_UNSPEC, 0, socket.htons(QUEUE_NUMBER)) + b"".join(attributes)
    return struct.pack("=IHHII", len(body) + 16, kind, REQUEST, 0, 0) + body


def packets(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Id and bytes of every packet in what one read of the socket brought."""
    offset = 0
    while offset + 16 <= len(data):
        size_bytes, kind = struct.unpack_from("=IH", data, offset)
        if size_bytes < 16:
            return
        if kind == PACKET:
            found = dict(_attributes(data[offset + 20 : offset + size_bytes]))
            yield struct.unpack_from(">I", found[PACKET_HEADER])[0], found.get(PAYLOAD, b"")
        offset += (size_bytes + 3) & ~3


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + 4 <= len(data):
        size_bytes, kind = struct.unpack_from("=HH", data, offset)
        yield kind & ATTRIBUTE_TYPE_MASK, data[offset + 4 : offset + size_bytes]
        offset += max(4, (size_bytes + 3) & ~3)


class LinkQueue:
    """Reads packets, and lets them go when it is their time."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._draw = random.Random(options.seed)
        self._netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        self._netlink.bind((0, 0))
        self._netlink.send(message(CONFIG, attribute(CONFIG_COMMAND, struct.pack(">BBH", BIND, 0, socket.AF_INET))))
        self._netlink.send(
            message(CONFIG, attribute(CONFIG_PARAMETERS, struct.pack(">IB", 0xFFFF, COPY_PACKET)))
            + message(CONFIG, attribute(CONFIG_LENGTH_MAX, struct.pack(">I", PACKETS_MAX)))
        )
        self._raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self._raw.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK)
        self._waiting: list[tuple[float, int, int]] = []
        self._order = 0

    def run(self) -> None:
        """For ever: whoever started it ends it, and the rule's --queue-bypass lets packets pass from then on."""
        while True:
            now = time.monotonic()
            timeout_s = max(0.0, self._waiting[0][0] - now) if self._waiting else None
            readable, _, _ = select.select([self._netlink], [], [], timeout_s)
            if readable:
                try:
                    data = self._netlink.recv(BUFFER_BYTES)
                except OSError:
                    continue  # the kernel had more than fits: lost, as on a real link
                for packet_id, payload in packets(data):
                    self._take(packet_id, payload)
            now = time.monotonic()
            while self._waiting and self._waiting[0][0] <= now:
                self._answer(heapq.heappop(self._waiting)[2], ACCEPT)

    def _take(self, packet_id: int, payload: bytes) -> None:
        options, draw = self._options, self._draw
        if draw.random() < options.loss:
            self._answer(packet_id, DROP)
            return
        if payload and draw.random() < options.duplicate:
            try:
                self._raw.sendto(payload, (socket.inet_ntoa(payload[16:20]), 0))
            except OSError:
                pass  # larger than the link takes: not doubled
        delay_ms = options.delay_ms + draw.uniform(0, options.jitter_ms)
        if draw.random() < options.reorder:
            delay_ms += options.reorder_ms
        self._order += 1
        heapq.heappush(self._waiting, (time.monotonic() + delay_ms / 1000, self._order, packet_id))

    def _answer(self, packet_id: int, verdict: int) -> None:
        self._netlink.send(message(VERDICT, attribute(VERDICT_HEADER, struct.pack(">II", verdict, packet_id))))


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--delay-ms", type=float, default=0.0)
    parser.add_argument("--jitter-ms", type=float, default=0.0)
    parser.add_argument("--loss", type=float, default=0.0)
    parser.add_argument("--duplicate", type=float, default=0.0)
    parser.add_argument("--reorder", type=float, default=0.0)
    parser.add_argument("--reorder-ms", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    queue = LinkQueue(parser.parse_args())
    print(READY, flush=True)
    try:
        queue.run()
    except KeyboardInterrupt:
        sys.exit(0)


if __name__ == "__main__":
    main()

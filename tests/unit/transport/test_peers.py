"""Two or three transports on loopback: batches, resets, reconnects, refusals, garbage and half-open connections."""

import asyncio
import contextlib
import logging
import os
import socket
import struct
from typing import Any, AsyncIterator, Callable, Coroutine

import pytest

from raftkv.limits import DEFAULT_LIMITS, Limits
from raftkv.raft import messages as raft
from raftkv.transport.frames import (
    Forward,
    ForwardAnswer,
    FrameReader,
    Goodbye,
    Hello,
    Refusal,
    RoutedMessage,
    encode_frame,
)
from raftkv.transport.handshake import Identity
from raftkv.transport.peers import PeerTransport
from raftkv.transport.settings import LinkSettings

Run = Callable[[Coroutine[Any, Any, None]], None]

FAST = LinkSettings(
    connect_timeout_ms=2000, handshake_deadline_ms=300, backoff_ms_min=5, backoff_ms_max=20, dead_after_ms=300
)


class Recorder:
    """The owner of a transport: remembers what it was told, and wakes whoever waits for it."""

    def __init__(self) -> None:
        self.messages: list[RoutedMessage] = []
        self.batches = 0
        self.log: list[tuple[str, int]] = []
        self.changed = asyncio.Event()

    def on_messages(self, messages: list[RoutedMessage]) -> None:
        self.messages += messages
        self.batches += 1
        self.changed.set()

    def on_peer_reset(self, node_id: int) -> None:
        self._note("reset", node_id)

    def on_peer_connected(self, node_id: int) -> None:
        self._note("connected", node_id)

    def on_peer_unreachable(self, node_id: int) -> None:
        self._note("unreachable", node_id)

    def _note(self, what: str, node_id: int) -> None:
        self.log.append((what, node_id))
        self.changed.set()


async def until(condition: Callable[[], Any]) -> None:
    """Wait for a condition; the deadline is that of the test (conftest.run)."""
    while not condition():
        await asyncio.sleep(0.002)


class Member:
    def __init__(
        self, node_id: int, settings: LinkSettings = FAST, limits: Limits = DEFAULT_LIMITS, **who: Any
    ) -> None:
        self.events = Recorder()
        self.refuse: dict[int, str] = {}
        defaults: dict[str, Any] = {"cluster_id": 7, "cluster_name": "prod", "incarnation": 100 + node_id}
        self.identity = Identity(node_id=node_id, name=f"n{node_id}", version="0.1.0", **{**defaults, **who})
        self.transport = PeerTransport(
            self.identity,
            self.events,
            limits,
            check_member=lambda hello: self.refuse.get(hello.node_id),
            settings=settings,
            draw=lambda: 0.0,
        )
        self.address = ""

    async def start(self, address: str = "127.0.0.1:0") -> None:
        self.address = await self.transport.start(address)


@contextlib.asynccontextmanager
async def members(*all_members: Member, connect: bool = True) -> AsyncIterator[None]:
    try:
        for member in all_members:
            await member.start()
        if connect:
            addresses = {member.identity.node_id: member.address for member in all_members}
            for member in all_members:
                member.transport.set_peers(addresses)
            for member in all_members:
                others = [node_id for node_id in addresses if node_id != member.identity.node_id]
                await until(lambda m=member, o=others: all(m.transport.is_connected(node_id) for node_id in o))
                await until(lambda m=member: all(peer.accepted for peer in m.transport.statistics().values()))
        yield
    finally:
        for member in all_members:
            await member.transport.close()


def append(source: int, target: int, index: int, size: int = 100) -> raft.AppendEntries:
    return raft.AppendEntries(1, source, target, index - 1, 1, 0, [raft.Entry(index, 1, 1, b"x" * size)])


def test_batches_both_ways_in_order(run: Run) -> None:
    async def scenario() -> None:
        one, two, three = Member(1), Member(2), Member(3)
        async with members(one, two, three):
            sent = [append(1, 2 + number % 2, 1 + number) for number in range(200)]
            one.transport.send(sent[:150])
            one.transport.send(sent[150:])
            answers = [raft.AppendEntriesResponse(1, 2, 1, 5), Forward(9, 2, 1, b"q"), ForwardAnswer(8, 2, 1, b"a")]
            two.transport.send(answers)
            await until(lambda: len(two.events.messages) == 100 == len(three.events.messages))
            await until(lambda: len(one.events.messages) == 3)
            assert two.events.messages == [m for m in sent if m.target == 2]
            assert three.events.messages == [m for m in sent if m.target == 3]
            assert one.events.messages == answers
            assert two.events.batches == 1, "one turn is one frame, and arrives as one batch"
            assert one.events.log == [("connected", 2), ("connected", 3)] or one.events.log == [
                ("connected", 3),
                ("connected", 2),
            ]

    run(scenario())


def test_statistics_count_what_went_through(run: Run) -> None:
    async def scenario() -> None:
        one, two = Member(1), Member(2)
        async with members(one, two):
            one.transport.send([append(1, 2, 1, size=5000)])
            await until(lambda: two.events.messages)
            sent, received = one.transport.statistics()[2], two.transport.statistics()[1]
            assert (sent.connected, sent.accepted, sent.connects, sent.last_error) == (True, True, 1, "")
            assert (sent.messages_sent, sent.messages_dropped, sent.queued_bytes) == (1, 0, 0)
            assert sent.bytes_sent == received.bytes_received > 5000
            assert received.messages_received == 1
            assert sent.round_trip_seconds is None or 0 < sent.round_trip_seconds < 1

    run(scenario())


def test_large_batches_are_split_into_frames_and_arrive_whole(run: Run) -> None:
    async def scenario() -> None:
        limits = Limits(peer_frame_bytes_max=3 * 1024 * 1024)
        one, two = Member(1, limits=limits), Member(2, limits=limits)
        async with members(one, two):
            sent = [append(1, 2, 1 + number, size=1_000_000) for number in range(8)]
            one.transport.send(sent)
            await until(lambda: len(two.events.messages) == 8)
            assert two.events.messages == sent

    run(scenario())


def test_flush_writes_at_once(run: Run) -> None:
    async def scenario() -> None:
        one, two = Member(1), Member(2)
        async with members(one, two):
            one.transport.send([append(1, 2, 1)])
            one.transport.flush()
            assert one.transport.statistics()[2].messages_sent == 1
            await until(lambda: two.events.messages)
            assert len(two.events.messages) == 1

    run(scenario())


async def raw_peer(target: Member, hello: Hello) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = target.address.rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(encode_frame([hello]))
    return reader, writer


HELLO_9 = Hello(1, 7, "prod", 9, "n9", 109, "0.1.0")


async def read_messages(reader: asyncio.StreamReader) -> list[Any]:
    return FrameReader(1 << 20).feed(await reader.read(65536))


@pytest.mark.parametrize("end", ["eof", "reset"])
def test_the_death_of_a_peer_is_reported_at_once(run: Run, end: str) -> None:
    async def scenario() -> None:
        one = Member(1)
        async with members(one):
            reader, writer = await raw_peer(one, HELLO_9)
            assert await read_messages(reader) == [one.identity.hello()]
            writer.write(encode_frame([raft.Heartbeat(3, 9, 1, 0)]))
            await until(lambda: one.events.messages)
            if end == "reset":
                sock = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            await until(lambda: one.events.log)
            assert one.events.log == [("reset", 9)]

    run(scenario())


def test_a_goodbye_is_no_death(run: Run) -> None:
    async def scenario() -> None:
        one, two = Member(1), Member(2)
        async with members(one, two):
            await two.transport.close()
            await until(lambda: ("unreachable", 2) in one.events.log)
            await until(lambda: not one.transport.statistics()[2].accepted)
            assert ("reset", 2) not in one.events.log
            assert not one.transport.is_connected(2)

    run(scenario())


def test_messages_to_a_peer_that_is_down_are_dropped_and_reported(run: Run) -> None:
    async def scenario() -> None:
        one = Member(1)
        async with members(one):
            with socket.create_server(("127.0.0.1", 0)) as unused:
                port = unused.getsockname()[1]
            one.transport.set_peers({2: f"127.0.0.1:{port}"})
            assert not one.transport.send([append(1, 2, 1), append(1, 2, 2), append(1, 3, 1)])
            assert one.events.log == [], "never from inside send"
            await until(lambda: len(one.events.log) == 2)
            assert sorted(one.events.log) == [("unreachable", 2), ("unreachable", 3)]
            await until(lambda: "Connection refused" in one.transport.statistics()[2].last_error)
            assert one.transport.statistics()[2].messages_dropped == 2

    run(scenario())


def test_links_come_back_when_the_peer_does(run: Run) -> None:
    async def scenario() -> None:
        one, two = Member(1), Member(2)
        async with members(one, two):
            await two.transport.close()
            await until(lambda: not one.transport.is_connected(2))
            again = Member(2)
            await again.start(two.address)
            try:
                await until(lambda: one.transport.is_connected(2))
                one.transport.send([append(1, 2, 1)])
                await until(lambda: again.events.messages)
                assert one.events.log.count(("connected", 2)) == 2
                assert one.transport.statistics()[2].last_error == ""
            finally:
                await again.transport.close()

    run(scenario())


def test_a_sign_of_life_ends_the_backoff(run: Run) -> None:
    async def scenario() -> None:
        slow = LinkSettings(backoff_ms_min=3_600_000, backoff_ms_max=3_600_000)
        one, two = Member(1, settings=slow), Member(2)
        async with members(one, connect=False):
            with socket.create_server(("127.0.0.1", 0)) as unused:
                address = f"127.0.0.1:{unused.getsockname()[1]}"
            one.transport.set_peers({2: address})
            await until(lambda: one.transport.statistics()[2].last_error)
            await two.start(address)
            try:
                two.transport.set_peers({1: one.address})
                await until(lambda: one.transport.is_connected(2))
                assert two.transport.is_connected(1)
            finally:
                await two.transport.close()

    run(scenario())


def test_peers_change_at_run_time(run: Run) -> None:
    async def scenario() -> None:
        one, two, moved = Member(1), Member(2), Member(2)
        async with members(one, two):
            await moved.start()
            try:
                one.transport.set_peers({1: one.address, 2: moved.address})
                await until(lambda: one.transport.is_connected(2))
                one.transport.send([append(1, 2, 1)])
                await until(lambda: moved.events.messages)
                assert two.events.messages == []
                assert ("reset", 1) not in two.events.log, "the old link said goodbye"
                one.transport.set_peers({})
                assert one.transport.statistics() == {}
                await until(lambda: 1 not in {n for n, c in moved.transport._listener.established.items()})
            finally:
                await moved.transport.close()

    run(scenario())


def test_names_and_bad_addresses(run: Run) -> None:
    async def scenario() -> None:
        one, two = Member(1), Member(2)
        async with members(one, two, connect=False):
            port = two.address.rsplit(":", 1)[1]
            bad = {3: "no-port", 4: "a..b:1", 5: "x" * 70 + ".invalid:1"}
            one.transport.set_peers({2: f"localhost:{port}", **bad})
            await until(lambda: one.transport.is_connected(2))
            await until(lambda: all(one.transport.statistics()[node_id].last_error for node_id in bad))
            assert "HOST:PORT" in one.transport.statistics()[3].last_error

    run(scenario())


@pytest.mark.parametrize(
    ("who", "words"),
    [
        ({"cluster_name": "dev"}, ["'dev'", "'prod'"]),
        ({"cluster_id": 8}, ["id 7", "to 8"]),
        ({"node_id": 1}, ["both claim to be member 1"]),
    ],
)
def test_the_wrong_cluster_is_refused_with_both_names(
    run: Run, caplog: pytest.LogCaptureFixture, who: dict[str, Any], words: list[str]
) -> None:
    async def scenario() -> None:
        one, two = Member(1), Member(**{"node_id": 2, **who})
        async with members(one, two, connect=False):
            attempts = 3
            two.identity.node_id, own = who.get("node_id", 2), two.identity.node_id
            two.transport.set_peers({99 if own == 1 else 1: one.address})
            await until(lambda: one.transport.connections_refused >= attempts)
            await until(lambda: next(iter(two.transport.statistics().values())).last_error)
            error = next(iter(two.transport.statistics().values())).last_error
            assert all(word in error for word in words), error
            assert two.events.log == one.events.log == []
            refusals = [r for r in caplog.records if "refused a connection" in r.getMessage()]
            assert len(refusals) == 1, "logged once per change, not per attempt"
            assert all(word in refusals[0].getMessage() for word in words)

    with caplog.at_level(logging.WARNING):
        run(scenario())


def test_an_unknown_cluster_id_fits_every_cluster(run: Run) -> None:
    async def scenario() -> None:
        one, two = Member(1, cluster_id=0), Member(2, cluster_id=8)
        async with members(one, two):
            one.transport.set_cluster_id(8)
            two.transport.send([append(2, 1, 1)])
            await until(lambda: one.events.messages)
            assert one.transport.is_connected(2)

    run(scenario())


def test_what_was_refused_without_the_cluster_id_counts_no_more_with_it(run: Run) -> None:
    """A majority of such words ends a member, and the next ones may be others: that it was removed, say."""

    async def scenario() -> None:
        one, two = Member(1, cluster_id=0), Member(2)
        two.refuse[1] = "not part of this cluster, and does not know yet of which"
        async with members(one, two, connect=False):
            one.transport.set_peers({2: two.address})
            await until(lambda: "does not know yet" in one.transport.statistics()[2].last_error)
            two.refuse.clear()
            one.transport.set_cluster_id(7)
            assert one.transport.statistics()[2].last_error == ""
            await until(lambda: one.transport.is_connected(2))

    run(scenario())


def test_learning_another_cluster_id_ends_the_connection(run: Run) -> None:
    async def scenario() -> None:
        one = Member(1, cluster_id=0)
        async with members(one):
            reader, writer = await raw_peer(one, HELLO_9)
            assert len(await read_messages(reader)) == 1
            one.transport.set_cluster_id(6)
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            writer.close()
            await until(lambda: not one.transport._listener.established)
            assert one.events.log == [], "a mismatch is no death"

    run(scenario())


def test_a_replaced_disk_is_refused_in_both_directions(run: Run) -> None:
    async def scenario() -> None:
        one, two = Member(1), Member(2)
        two.refuse[1] = "its disk was replaced: member remove, then add"
        async with members(one, two, connect=False):
            one.transport.set_peers({2: two.address})
            two.transport.set_peers({1: one.address})
            await until(lambda: "disk was replaced" in one.transport.statistics()[2].last_error)
            await until(lambda: "disk was replaced" in two.transport.statistics()[1].last_error)
            assert not two.transport.is_connected(1)
            two.refuse.clear()
            await until(lambda: one.transport.is_connected(2) and two.transport.is_connected(1))

    run(scenario())


def test_another_member_at_the_address_is_not_greeted(run: Run) -> None:
    async def scenario() -> None:
        one, two = Member(1), Member(2)
        async with members(one, two, connect=False):
            one.transport.set_peers({3: two.address})
            await until(lambda: "'n2' (2) answers there, not member 3" in one.transport.statistics()[3].last_error)
            assert not one.transport.is_connected(3)

    run(scenario())


GARBAGE = [
    b"GET / HTTP/1.1\r\n\r\n",
    b"\x16\x03\x01\x02\x00" + b"\x00" * 200,
    b"\x00" * 64,
    b"\xff" * 5000,
    struct.pack(">II", 4097, 0),
    encode_frame([raft.TimeoutNow(1, 2, 1)]),
    encode_frame([]) + encode_frame([HELLO_9, Goodbye(9)]),
    encode_frame([HELLO_9, HELLO_9]),
    *(os.urandom(300) for _ in range(10)),
]


def test_random_bytes_end_their_connection_and_nothing_else(run: Run) -> None:
    async def scenario() -> None:
        one, two = Member(1), Member(2)
        async with members(one, two):
            host, port = one.address.rsplit(":", 1)
            for garbage in GARBAGE:
                reader, writer = await asyncio.open_connection(host, int(port))
                writer.write(garbage)
                with contextlib.suppress(ConnectionError):
                    assert await reader.read() == b"", garbage
                writer.close()
            await until(lambda: not one.transport._listener.strangers)
            two.transport.send([append(2, 1, 1)])
            await until(lambda: one.events.messages)
            assert ("reset", 2) not in one.events.log
            assert one.transport.connections_refused == len(GARBAGE)

    run(scenario())


BROKEN = [
    b"\xff" * 100,
    encode_frame([raft.TimeoutNow(1, 8, 1)]),  # from somebody else
    encode_frame([raft.TimeoutNow(1, 9, 2)]),  # to somebody else
    encode_frame([HELLO_9]),
    encode_frame([Refusal("no")]),
]


def test_broken_frames_of_a_greeted_peer_end_the_connection_without_a_reset(run: Run) -> None:
    async def scenario() -> None:
        one = Member(1)
        async with members(one):
            for broken in BROKEN:
                reader, writer = await raw_peer(one, HELLO_9)
                assert len(await read_messages(reader)) == 1
                writer.write(broken)
                with contextlib.suppress(ConnectionError):
                    assert await reader.read() == b""
                writer.close()
            await until(lambda: not one.transport._listener.established)
            assert one.events.log == []
            assert one.events.messages == []

    run(scenario())


def test_half_open_connections_end_at_the_deadline(run: Run) -> None:
    async def scenario() -> None:
        one = Member(1)
        async with members(one):
            host, port = one.address.rsplit(":", 1)
            ends = [await asyncio.open_connection(host, int(port)) for _ in range(3)]
            ends[1][1].write(b"\x00\x00\x00\x40")
            ends[2][1].write(encode_frame([HELLO_9])[:-1])
            started = asyncio.get_running_loop().time()
            for reader, writer in ends:
                with contextlib.suppress(ConnectionError):
                    assert await reader.read() == b""
                writer.close()
            assert asyncio.get_running_loop().time() - started >= 0.25
            await until(lambda: not one.transport._listener.strangers)

    run(scenario())


def test_strangers_are_bounded(run: Run) -> None:
    async def scenario() -> None:
        patient = LinkSettings(unauthenticated_connections_max=2, handshake_deadline_ms=60_000)
        one = Member(1, settings=patient)
        async with members(one):
            host, port = one.address.rsplit(":", 1)
            first = [await asyncio.open_connection(host, int(port)) for _ in range(2)]
            await until(lambda: len(one.transport._listener.strangers) == 2)
            reader, writer = await asyncio.open_connection(host, int(port))
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            writer.close()
            assert len(one.transport._listener.strangers) == 2
            for _, open_writer in first:
                open_writer.close()
            await until(lambda: not one.transport._listener.strangers)
            _, writer = await raw_peer(one, HELLO_9)
            await until(lambda: 9 in one.transport._listener.established)
            writer.close()
            await until(lambda: one.events.log == [("reset", 9)])

    run(scenario())


def test_a_newer_connection_replaces_the_older_without_a_reset(run: Run) -> None:
    async def scenario() -> None:
        one = Member(1)
        async with members(one):
            old_reader, old_writer = await raw_peer(one, HELLO_9)
            await read_messages(old_reader)
            reader, writer = await raw_peer(one, HELLO_9)
            await read_messages(reader)
            with contextlib.suppress(ConnectionError):
                assert await old_reader.read() == b""
            old_writer.close()
            writer.write(encode_frame([raft.TimeoutNow(1, 9, 1)]))
            await until(lambda: one.events.messages)
            assert one.events.log == []
            writer.write(encode_frame([Goodbye(9)]))
            writer.close()
            await until(lambda: not one.transport._listener.established)
            assert one.events.log == []

    run(scenario())


@contextlib.asynccontextmanager
async def silent_acceptor(greet: Callable[[], bytes]) -> AsyncIterator[tuple[str, list[socket.socket]]]:
    """A peer that answers the handshake and then reads nothing more: a stopped process, or a black hole."""
    loop = asyncio.get_running_loop()
    accepted: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)

        async def accept() -> None:
            while True:
                sock, _ = await loop.sock_accept(server)
                accepted.append(sock)
                await loop.sock_recv(sock, 4096)
                await loop.sock_sendall(sock, greet())

        task = asyncio.create_task(accept())
        try:
            yield f"127.0.0.1:{server.getsockname()[1]}", accepted
        finally:
            task.cancel()
            await asyncio.wait([task])
            for sock in accepted:
                sock.close()


def test_a_peer_that_reads_nothing_is_dropped_on_and_dialled_anew(run: Run) -> None:
    async def scenario() -> None:
        limits = Limits(peer_send_queue_bytes_max=2_000_000)
        one = Member(1, limits=limits)
        two = Identity(cluster_id=7, cluster_name="prod", node_id=2, name="n2", incarnation=1, version="0")
        async with members(one), silent_acceptor(lambda: encode_frame([two.hello()])) as (address, accepted):
            one.transport.set_peers({2: address})
            await until(lambda: one.transport.is_connected(2))
            index = 0
            while ("unreachable", 2) not in one.events.log:
                index += 1
                one.transport.send([append(1, 2, index, size=500_000)])
                assert one.transport.statistics()[2].queued_bytes <= 2_000_000
                await asyncio.sleep(0)
            assert index < 200, "bounded: the kernel's buffers, the write buffer and the queue"
            await until(lambda: len(accepted) > 1)
            await until(lambda: one.events.log.count(("connected", 2)) > 1)
            assert one.transport.statistics()[2].messages_dropped > 0

    run(scenario())


def test_a_handshake_that_is_never_answered(run: Run) -> None:
    async def scenario() -> None:
        one = Member(1)
        async with members(one), silent_acceptor(lambda: b"") as (address, accepted):
            one.transport.set_peers({2: address})
            await until(lambda: "did not answer the handshake" in one.transport.statistics()[2].last_error)
            await until(lambda: len(accepted) > 1)
            assert one.events.log == []

    run(scenario())


def test_an_acceptor_that_answers_nonsense(run: Run) -> None:
    async def scenario() -> None:
        one = Member(1)
        async with members(one), silent_acceptor(lambda: b"HTTP/1.1 400 Bad Request\r\n") as (address, _):
            one.transport.set_peers({2: address})
            await until(lambda: "over the bound" in one.transport.statistics()[2].last_error)
            assert not one.transport.is_connected(2)

    run(scenario())


def test_a_taken_port_is_an_error(run: Run) -> None:
    async def scenario() -> None:
        one, two = Member(1), Member(2)
        async with members(one):
            with pytest.raises(OSError, match="in use"):
                await two.start(one.address)
            await two.transport.close()

    run(scenario())

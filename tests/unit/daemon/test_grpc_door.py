"""The gRPC door without a daemon: who asks late, what waits for its rest, who is silent, and how the member's bounds are shared."""

import asyncio
import gzip
from collections.abc import Callable, Mapping
from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest

from raftkv.daemon.api import grpc_pulse
from raftkv.daemon.api.grpc import GrpcConnection
from raftkv.daemon.api.grpc_calls import Hoard
from raftkv.daemon.api.grpc_door import GrpcDoor
from raftkv.daemon.api.grpc_pulse import Pulse, PulseWatch
from raftkv.daemon.etcd.identity import ANYBODY
from raftkv.errors import RaftKVError
from raftkv.etcdpb import lock_pb2
from raftkv.etcdpb import rpc_pb2 as rpc
from raftkv.http2 import frames
from raftkv.http2.grpc import prefixed
from raftkv.http2.headers import literal
from raftkv.http2.patience import Allowance
from raftkv.limits import Limits
from tests.unit.daemon.etcd_calls import HandHouse

PUT, WATCH, LOCK = "/etcdserverpb.KV/Put", "/etcdserverpb.Watch/Watch", "/v3lockpb.Lock/Lock"


class Wire:
    """A transport that ends in a client made of `h2`."""

    def __init__(self, door: GrpcDoor) -> None:
        self.door = door
        self.connection: GrpcConnection = door()
        self.client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self.client.initiate_connection()
        self.trailers: dict[int, dict[str, str]] = {}
        self.bodies: dict[int, bytes] = {}
        self.aborted = False
        transport: Any = self
        self.connection.connection_made(transport)
        self.flush()

    # What a transport is asked for.

    def get_extra_info(self, name: str) -> None:
        return None

    def set_write_buffer_limits(self, high: int) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True

    close = abort

    def pause_reading(self) -> None:
        pass

    resume_reading = pause_reading

    def write(self, data: bytes) -> None:
        for event in self.client.receive_data(data):
            if isinstance(event, h2.events.TrailersReceived | h2.events.ResponseReceived):
                fields = {str(name, "ascii"): str(value, "ascii") for name, value in map(_as_bytes, event.headers)}
                self.trailers.setdefault(event.stream_id, {}).update(fields)
            elif isinstance(event, h2.events.DataReceived):
                self.bodies[event.stream_id] = self.bodies.get(event.stream_id, b"") + event.data

    def flush(self) -> None:
        """What the client has to say, at once."""
        self.connection.data_received(self.client.data_to_send())

    def send(self, path: str, body: bytes = b"", *, end: bool = True, **metadata: str) -> int:
        stream_id = self.client.get_next_available_stream_id()
        fields = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "x")]
        fields += [("content-type", "application/grpc"), ("te", "trailers")]
        fields += [(name.replace("_", "-"), value) for name, value in metadata.items()]
        self.client.send_headers(stream_id, fields)
        for position in range(0, len(body), 16_384):
            self.client.send_data(stream_id, body[position : position + 16_384])
        if end:
            self.client.end_stream(stream_id)
        self.flush()
        return stream_id

    def status(self, stream_id: int) -> str | None:
        return self.trailers.get(stream_id, {}).get("grpc-status")


def _as_bytes(field: tuple[Any, Any]) -> tuple[bytes, bytes]:
    return tuple(text if isinstance(text, bytes) else text.encode() for text in field)  # type: ignore[return-value]


class Callers:
    """Who calls is known when the test says so."""

    def __init__(self, hand: HandHouse) -> None:
        self.asked: list[Callable[[Any], None]] = []
        hand.house.authenticate = self.ask

    def ask(self, metadata: Mapping[str, str], name: str, found: Callable[[Any], None]) -> None:
        self.asked.append(found)


async def settled(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


def put_message(key: bytes = b"k", value: bytes = b"v") -> bytes:
    return prefixed(rpc.PutRequest(key=key, value=value).SerializeToString())


def door_of(hand: HandHouse, **options: Any) -> GrpcDoor:
    return GrpcDoor(hand.house, 3_000, lambda transport: "", **options)


async def test_a_call_waits_for_its_caller_and_is_served_then() -> None:
    hand = HandHouse()
    callers, door = Callers(hand), door_of(hand)
    wire = Wire(door)
    stream_id = wire.send(PUT, put_message())
    assert wire.status(stream_id) is None
    assert door.shared.hoard.bytes > 0, "what waits is counted"
    callers.asked[0](ANYBODY)
    assert door.shared.hoard.bytes == 0
    await settled(lambda: wire.status(stream_id))
    assert wire.status(stream_id) == "0"
    assert rpc.PutResponse.FromString(wire.bodies[stream_id][5:]).header.revision == 2


async def test_a_stranger_is_refused_and_what_it_sent_is_let_go() -> None:
    hand = HandHouse()
    callers, door = Callers(hand), door_of(hand)
    wire = Wire(door)
    ids = [wire.send(PUT, put_message()), wire.send(WATCH, prefixed(b"") * 3, end=False)]
    assert door.shared.hoard.bytes > 0
    for found in callers.asked:
        found(RaftKVError("no such token"))
    await settled(lambda: all(map(wire.status, ids)))
    assert [wire.status(stream_id) for stream_id in ids] == ["2", "2"]
    assert door.shared.hoard.bytes == 0


async def test_what_strangers_send_is_bounded_over_all_connections() -> None:
    limits = Limits(http2_partial_bytes_max=300_000, http2_partial_bytes_total_max=500_000)
    hand = HandHouse(limits)
    Callers(hand)
    door = door_of(hand)
    wires = [Wire(door) for _ in range(4)]
    ids = [[wire.send(PUT, put_message(value=b"x" * 50_000)) for _ in range(10)] for wire in wires]
    assert door.shared.hoard.bytes <= 500_000
    assert wires[0].status(ids[0][0]) is None, "what fits waits"
    assert wires[0].status(ids[0][9]) == "8", "over the bound of a connection"
    assert wires[3].status(ids[3][0]) == "8", "over the bound of all"
    for wire in wires:
        wire.connection.connection_lost(None)
    assert door.shared.hoard.bytes == 0


async def test_messages_that_never_end_are_bounded_and_let_go() -> None:
    limits = Limits(http2_partial_bytes_max=300_000, http2_partial_bytes_total_max=500_000)
    door = door_of(HandHouse(limits))
    wires = [Wire(door) for _ in range(3)]
    for wire in wires:
        for _ in range(10):
            stream_id = wire.send(PUT, put_message(value=b"x" * 60_000)[:50_000], end=False)
    assert door.shared.hoard.bytes <= 500_000
    assert wires[2].status(stream_id) == "8"
    for wire in wires:
        wire.connection.connection_lost(None)
    assert door.shared.hoard.bytes == 0


async def test_a_compressed_request_is_served_as_etcd_does_and_a_bomb_is_not() -> None:
    wire = Wire(door_of(HandHouse()))
    packed = gzip.compress(rpc.PutRequest(key=b"k", value=b"v" * 10_000).SerializeToString())
    stream_id = wire.send(PUT, b"\1" + prefixed(packed)[1:], grpc_encoding="gzip")
    await settled(lambda: wire.status(stream_id))
    assert wire.status(stream_id) == "0"
    bomb = gzip.compress(bytes(50_000_000))
    stream_id = wire.send(PUT, b"\1" + prefixed(bomb)[1:], grpc_encoding="gzip")
    assert wire.trailers[stream_id]["grpc-message"] == "grpc: received message larger than max (50000000 vs. 2097152)"
    stream_id = wire.send(PUT, put_message(), grpc_encoding="deflate")
    assert wire.status(stream_id) == "12"
    assert wire.trailers[stream_id]["grpc-accept-encoding"] == "identity,gzip"


async def test_what_compressed_requests_become_is_bounded_in_time() -> None:
    door = door_of(HandHouse())
    door.shared = door.shared._replace(inflation=Allowance(25_000, 1))
    wire = Wire(door)
    packed = gzip.compress(rpc.PutRequest(key=b"k", value=b"v" * 10_000).SerializeToString())
    ids = [wire.send(PUT, b"\1" + prefixed(packed)[1:], grpc_encoding="gzip") for _ in range(3)]
    plain = wire.send(PUT, put_message())
    await settled(lambda: all(map(wire.status, [*ids, plain])))
    assert [wire.status(stream_id) for stream_id in [*ids, plain]] == ["0", "0", "8", "0"]


async def test_who_leaves_waits_until_clients_have_heard_it() -> None:
    hand = HandHouse()
    door = door_of(hand)
    wire = Wire(door)
    sent = bytearray()
    wire.write = sent.extend  # type: ignore[method-assign]  # h2's client says no more once it has heard GOAWAY
    block = b"".join(
        literal(name, value)
        for name, value in ((b":method", b"POST"), (b":path", PUT.encode()), (b"content-type", b"application/grpc"))
    )
    leaving = asyncio.create_task(door.begin_shutdown())
    await asyncio.sleep(0)
    for stream_id in (1, 3):  # on its way when it was said; and after it must have been heard
        wire.connection.data_received(
            frames.frame(frames.HEADERS, frames.END_HEADERS, stream_id, block)
            + frames.frame(frames.DATA, frames.END_STREAM, stream_id, put_message())
        )
        await leaving
    await settled(lambda: not wire.connection.connection.streams)
    await asyncio.sleep(0)
    assert hand.house.calls.of(PUT).handled[0] == 1
    assert frames.goaway(1, frames.NO_ERROR, b"shutting down") in sent
    assert frames.rst_stream(3, frames.REFUSED_STREAM) in sent
    wire.connection.connection_lost(None)


async def test_calls_that_are_open_are_shared_among_connections() -> None:
    limits = Limits(http2_streams_max=100, http2_streams_total_max=40)
    door = door_of(HandHouse(limits))
    greedy, modest = Wire(door), Wire(door)
    for _ in range(60):
        greedy.send(PUT, end=False)
    door._share_streams()
    refused = greedy.send(PUT, put_message())
    served = modest.send(PUT, put_message())
    await settled(lambda: modest.status(served))
    assert modest.status(served) == "0"
    assert greedy.status(refused) is None
    assert len(greedy.connection.connection.streams) == 60
    greedy.connection.connection_lost(None)
    door._share_streams()
    assert modest.connection.connection.streams_max == 100
    modest.connection.connection_lost(None)


async def test_a_call_that_the_door_ends_is_not_carried_on_by_anybody() -> None:
    """One that waits for a lock would take it, for a client that was told that there is no leader."""
    wire = Wire(door_of(HandHouse()))
    held = wire.send(LOCK, prefixed(lock_pb2.LockRequest(name=b"l").SerializeToString()))
    await settled(lambda: wire.status(held))
    before = asyncio.all_tasks()
    waiting = wire.send(LOCK, prefixed(lock_pb2.LockRequest(name=b"l").SerializeToString()), hasleader="true")
    (task,) = asyncio.all_tasks() - before
    await asyncio.sleep(0)
    wire.connection.end_streams_without_leader()
    await settled(task.done)
    assert task.cancelled()
    await settled(lambda: wire.status(waiting))
    assert wire.trailers[waiting]["grpc-message"] == "etcdserver: no leader"


@pytest.mark.parametrize("answers", [True, False])
async def test_a_silent_client_is_asked_and_let_go_when_it_does_not_answer(
    answers: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grpc_pulse, "GREETING_S", 0.001)
    pings, aborted = 0, asyncio.Event()
    watch: PulseWatch | None = None

    def ping() -> None:
        nonlocal pings
        pings += 1
        if answers and pings < 3 and watch is not None:
            watch.heard_at += 0.001

    watch = PulseWatch(asyncio.get_running_loop(), Pulse(2, 2), is_greeted=lambda: True, ping=ping, abort=aborted.set)
    async with asyncio.timeout(10):
        await aborted.wait()
    assert pings == (3 if answers else 1)
    watch.stop()


async def test_a_client_that_never_says_what_it_speaks_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_pulse, "GREETING_S", 0.001)
    aborted = asyncio.Event()
    PulseWatch(asyncio.get_running_loop(), Pulse(), is_greeted=lambda: False, ping=lambda: None, abort=aborted.set)
    async with asyncio.timeout(10):
        await aborted.wait()


def test_a_hoard_counts_for_all() -> None:
    everybody = Hoard(100)
    one, other = Hoard(80, everybody), Hoard(80, everybody)
    assert one.add(80)
    assert not one.add(1)
    assert one.add(-1), "letting go is never too much"
    assert not other.add(30)
    assert (one.bytes, other.bytes, everybody.bytes) == (80, 30, 110)

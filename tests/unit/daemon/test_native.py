"""The native door: groups in, answers out, and nothing that a client sends harms the daemon."""

from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftkv.daemon.api.native import NativeConnection
from raftkv.limits import Limits
from raftkv.wire.commands import GET, PUT, SERIALIZABLE, Answer, decode_batch
from raftkv.wire.protocol import ACK, DEFRAGMENT, FORWARD, HELLO, PING, PREFACE, STATUS, hello_options
from tests.unit.conftest import Run
from tests.unit.replica.minicluster import Member, MiniCluster

SESSION = b"s" * 16


class FakeTransport:
    def __init__(self) -> None:
        self.written = bytearray()
        self.is_closed = False
        self.is_paused = False
        self.unsent_bytes = 0

    def get_write_buffer_size(self) -> int:
        return self.unsent_bytes

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.is_closed = True

    def is_closing(self) -> bool:
        return self.is_closed

    def get_extra_info(self, name: str) -> None: ...

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False

    def set_write_buffer_limits(self, high: int) -> None: ...


class FakeDefragmentation:
    def start(self, done: Callable[[Answer], None]) -> None:
        done([0, {"before_bytes": 2, "after_bytes": 1, "seconds": 0.5}])


class FakeControl:
    cluster_name = "mini"
    defragmentation = FakeDefragmentation()

    def hello(self) -> dict[str, Any]:
        return {"member_name": "n1"}

    def status(self) -> dict[str, Any]:
        return {"role": "leader"}

    def members(self) -> list[dict[str, Any]]:
        return []

    def move_leader(self, target: str, done: Callable[[Answer], None]) -> None:
        done([0, {"leader": target}])

    def schedule_pump(self) -> None: ...


class Line:
    """A client at the end of a wire to a one-member cluster."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.cluster = MiniCluster(limits, size=1)
        self.member: Member = self.cluster.elect()
        self.transport = FakeTransport()
        self.door = NativeConnection(self.member.service, FakeControl(), limits or Limits())
        self.door.connection_made(self.transport)  # type: ignore[arg-type]
        self._unpacker = msgpack.Unpacker(raw=False, strict_map_key=False)

    def send(self, *messages: Any) -> None:
        self.door.data_received(b"".join(map(msgpack.packb, messages)))

    def greet(self, **options: Any) -> list[Any]:
        self.door.data_received(PREFACE)
        wanted = hello_options(cluster_name=None, session=SESSION, client="test")
        self.send([1, 0, [HELLO, {**wanted, **options}]])
        return self.answers()

    def answers(self) -> list[Any]:
        self.cluster.settle()
        data, self.transport.written = bytes(self.transport.written), bytearray()
        self._unpacker.feed(data)
        return list(self._unpacker)


def put(request_id: int, sequence: int, key: bytes = b"k", value: bytes = b"v") -> list[Any]:
    return [request_id, 1_000, [PUT, sequence, key, value, 0, 0]]


def in_loop(run: Run, scenario: Callable[[], None]) -> None:
    async def main() -> None:
        scenario()

    run(main())


def test_requests_of_one_read_are_answered_in_one_write_group(run: Run) -> None:
    def scenario() -> None:
        line = Line()
        assert line.greet() == [[1, [0, {"member_name": "n1"}]]]
        line.send([0, 0, [ACK, 1, True]], put(2, 1, b"a"), put(3, 2, b"b"), [4, 0, [GET, 0, b"a"]], [5, 0, [PING]])
        by_id = dict(line.answers())
        assert set(by_id) == {2, 3, 4, 5}
        assert by_id[2][0] == by_id[3][0] == 0
        assert by_id[5] == [0]
        assert len([save for save in line.member.journal.saves if any(entry.kind == 1 for entry in save[1])]) <= 3

    in_loop(run, scenario)


def test_a_retry_of_a_sequence_gets_the_first_answer(run: Run) -> None:
    def scenario() -> None:
        line = Line()
        line.greet()
        line.send([0, 0, [ACK, 1, True]], put(2, 1))
        first = dict(line.answers())[2]
        line.send(put(3, 1, value=b"again"))
        assert dict(line.answers())[3] == first

    in_loop(run, scenario)


def test_an_entry_holds_no_more_small_writes_than_can_be_applied_in_one_go(run: Run) -> None:
    def scenario() -> None:
        line = Line()
        line.greet()
        before = len(line.member.journal.saves)
        line.send([0, 0, [ACK, 1, True]], *(put(2 + n, 1 + n, b"%d" % n, b"") for n in range(6000)))
        assert len(line.answers()) == 6000
        entries = [entry for save in line.member.journal.saves[before:] for entry in save[1]]
        sizes = [sum(len(group[5]) for group in decode_batch(entry.data)[1]) for entry in entries]
        assert sum(sizes) == 6000
        assert max(sizes) <= 2048, "ten milliseconds of the loop"

    in_loop(run, scenario)


def test_frames_may_be_cut_anywhere(run: Run) -> None:
    def scenario() -> None:
        line = Line()
        hello = [1, 0, [HELLO, hello_options(cluster_name=None, session=SESSION, client="test")]]
        stream = PREFACE + b"".join(map(msgpack.packb, (hello, [0, 0, [ACK, 1, True]], put(2, 1), [3, 0, [STATUS]])))
        for position in range(len(stream)):
            line.door.data_received(stream[position : position + 1])
        assert {answer[0] for answer in line.answers()} == {1, 2, 3}

    in_loop(run, scenario)


def test_a_defragmentation_is_the_members_affair(run: Run) -> None:
    def scenario() -> None:
        line = Line()
        line.greet()
        line.send([2, 0, [DEFRAGMENT]])
        assert line.answers() == [[2, [0, {"before_bytes": 2, "after_bytes": 1, "seconds": 0.5}]]]

    in_loop(run, scenario)


def test_bad_requests_are_refused_one_by_one(run: Run) -> None:
    def scenario() -> None:
        limits = Limits(key_bytes_max=8, value_bytes_max=8)
        line = Line(limits)
        line.greet()
        line.send(
            put(2, 0, b"k" * 9),
            put(3, 0, b"k", b"v" * 9),
            put(4, 0, b""),
            [5, 0, [PUT, 0, "text", b"v", 0, 0]],
            [6, 0, [4711, 0]],
            [7, 0, [GET, SERIALIZABLE, b""]],
            put(8, 0, b"good"),
        )
        codes = {request_id: answer[1] if answer[0] else "ok" for request_id, answer in line.answers()}
        assert codes == {
            2: "key_too_large",
            3: "value_too_large",
            4: "key_empty",
            5: "invalid_request",
            6: "unsupported",
            7: "key_empty",
            8: "ok",
        }
        assert not line.transport.is_closed

    in_loop(run, scenario)


@pytest.mark.parametrize(
    "message",
    [1, "x", [1], [1, 2, 3], [1, 0, []], ["1", 0, [PING]], [1, -1, [PING]], [-1, 0, [PING]], [1, 0, ["put"]], {"a": 1}],
)
def test_what_is_no_request_ends_the_connection_with_a_reason(run: Run, message: Any) -> None:
    def scenario() -> None:
        line = Line()
        line.greet()
        line.send(put(2, 0), message)
        by_id = dict(line.answers())
        assert by_id[0][1] == "protocol_error"
        assert by_id[2][0] == 0, "what came before in good order is served"
        assert line.transport.is_closed

    in_loop(run, scenario)


def test_nothing_is_served_before_the_greeting(run: Run) -> None:
    def scenario() -> None:
        line = Line()
        line.door.data_received(PREFACE)
        line.send(put(1, 0))
        assert line.answers()[0][1][1] == "protocol_error"
        assert line.transport.is_closed

    in_loop(run, scenario)


def test_a_pinned_cluster_name_that_differs_is_refused_with_both_names(run: Run) -> None:
    def scenario() -> None:
        line = Line()
        ((_, answer),) = line.greet(cluster_name="prod")
        assert answer[1] == "cluster_mismatch"
        assert "prod" in answer[3]
        assert "mini" in answer[3]
        assert line.transport.is_closed

    in_loop(run, scenario)


def test_a_connection_with_too_much_in_flight_is_not_read_until_answers_went_out(run: Run) -> None:
    def scenario() -> None:
        line = Line(Limits(connection_in_flight_requests_max=4))
        line.greet()
        line.send(*[put(number, 0) for number in range(2, 9)])
        assert line.transport.is_paused
        assert len(line.answers()) == 7
        assert not line.transport.is_paused

    in_loop(run, scenario)


def test_a_client_that_does_not_take_its_answers_is_not_read(run: Run) -> None:
    def scenario() -> None:
        line = Line()
        line.greet()
        line.door.pause_writing()
        assert line.transport.is_paused
        line.door.resume_writing()
        assert not line.transport.is_paused

    in_loop(run, scenario)


def test_writes_are_forwarded_and_reads_are_not(run: Run) -> None:
    def scenario() -> None:
        line = Line()
        line.greet()
        line.send(
            [2, 1_000, [FORWARD, SESSION, True, 1, [PUT, 1, b"k", b"v", 0, 0]]],
            [3, 1_000, [FORWARD, None, False, 0, [GET, 0, b"k"]]],
        )
        by_id = dict(line.answers())
        assert by_id[2][0] == 0
        assert by_id[3][1] == "invalid_request"

    in_loop(run, scenario)


def test_answers_for_a_client_that_left_go_nowhere(run: Run) -> None:
    def scenario() -> None:
        line = Line()
        line.greet()
        line.send(put(2, 0))
        line.door.connection_lost(None)
        assert line.answers() == []

    in_loop(run, scenario)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=8) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)
COMMANDS = st.lists(JUNK, max_size=7).map(lambda items: [*items])
OPERATIONS = st.sampled_from([1, 2, 3, 4, 5, 32, 64, 65, 96, 97, 98, 99, 100, 101, 102, 7])


@settings(max_examples=150)
@given(st.lists(st.tuples(OPERATIONS, COMMANDS), max_size=6), st.binary(max_size=40))
def test_no_message_whatever_breaks_the_door(commands: list[tuple[int, list[Any]]], tail: bytes) -> None:
    import asyncio

    async def scenario() -> None:
        line = Line()
        line.greet()
        line.send(*[[number + 2, 0, [operation, *items]] for number, (operation, items) in enumerate(commands)])
        if not line.transport.is_closed:
            line.door.data_received(tail)
        line.answers()
        line.door.connection_lost(None)
        assert line.member.service.is_idle

    asyncio.run(scenario())

"""Well-formed frames with bad requests in them: each is refused by name, has surely not happened, and changes nothing."""

from typing import Any

import pytest

from raftkv.errors import KeyEmpty, KeyTooLarge, RaftKVError, RequestTooLarge, ValueTooLarge
from raftkv.limits import DEFAULT_LIMITS
from raftkv.wire import commands, protocol

from .harness.native import ConnectionEnded, NativeConnection
from .harness.node import Node

pytestmark = pytest.mark.integration


def refusal(connection: NativeConnection, command: list[Any]) -> RaftKVError:
    """The error that a command is refused with; the connection is still good."""
    outcome = connection.outcome(command)
    assert isinstance(outcome, RaftKVError), outcome
    connection.call([protocol.PING])
    return outcome


@pytest.mark.parametrize(
    ("command", "error"),
    [
        ([commands.PUT, 0, b"k" * (DEFAULT_LIMITS.key_bytes_max + 1), b"v", 0, 0], KeyTooLarge),
        ([commands.PUT, 0, b"k", b"v" * (DEFAULT_LIMITS.value_bytes_max + 1), 0, 0], ValueTooLarge),
        ([commands.PUT, 0, b"", b"v", 0, 0], KeyEmpty),
        ([commands.GET, 0, b""], KeyEmpty),
        ([commands.GET, 0, b"k" * (DEFAULT_LIMITS.key_bytes_max + 1)], KeyTooLarge),
        ([commands.APPEND, 0, b"k" * (DEFAULT_LIMITS.key_bytes_max + 1), b"v"], KeyTooLarge),
        ([commands.INCREMENT, 0, b"", 1], KeyEmpty),
    ],
)
def test_oversize_and_empty_are_refused_by_name(victim: Node, command: list[Any], error: type[RaftKVError]) -> None:
    """Refused with its own code, surely not done, and the connection goes on."""
    with victim.connect() as connection:
        found = refusal(connection, command)
    assert type(found) is error, found
    assert not found.may_have_happened


def test_largest_key_and_value_are_accepted(victim: Node) -> None:
    """`_max` is the last value that is accepted."""
    key, value = b"K" * DEFAULT_LIMITS.key_bytes_max, b"V" * DEFAULT_LIMITS.value_bytes_max
    with victim.connect() as connection:
        connection.put(key, value)
        assert connection.get(key) == value
        connection.call([commands.DELETE_RANGE, 0, key, b"", 0])


MALFORMED: list[Any] = [
    [commands.PUT],
    [commands.PUT, 0],
    [commands.PUT, 0, "text", b"v", 0, 0],
    [commands.PUT, 0, 7, b"v", 0, 0],
    [commands.PUT, 0, b"k", None, 0, 0],
    [commands.PUT, 0, b"k", b"v", -1, 0],
    [commands.PUT, 0, b"k", b"v", 0, "flags"],
    [commands.PUT, 0, b"k", b"v", 0, 0, "one too many"],
    [commands.PUT, -5, b"k", b"v", 0, 0],
    [commands.PUT, 2**63, b"k", b"v", 0, 0],
    [commands.DELETE_RANGE, 0, b"z", b"a", 0],
    [commands.DELETE_RANGE, 0, b"k", [1, 2], 0],
    [commands.TXN, 0, [], [], []],
    [commands.TXN, 0, "compares", [], []],
    [commands.TXN, 0, [[9, 9, b"k", b"", b""]], [], []],
    [commands.TXN, 0, [[0, 0, b"k"]], [], []],
    [commands.TXN, 0, [], [[commands.INCREMENT, 0, b"k", 1]], []],
    [commands.TXN, 0, [], [[commands.PUT, 0, b"k", b"1", 0, 0], [commands.PUT, 0, b"k", b"2", 0, 0]], []],
    [commands.TXN, 0, [], [[commands.EXPIRE_SESSIONS, 0]], []],
    [commands.INCREMENT, 0, b"k", "one"],
    [commands.INCREMENT, 0, b"k", 1.5],
    [commands.INCREMENT, 0, b"k", True],
    [commands.GET, 0],
    [commands.GET, "flags", b"k"],
    [commands.GET, 0, ["k"]],
    [commands.RANGE, 0, b"a"],
    [commands.RANGE, 0, b"a", b"b", "limit", 0, 0, 0, 0, 0, 0, 0],
    [commands.RANGE, 0, b"a", b"b", -1, 0, 0, 0, 0, 0, 0, 0],
    [commands.RANGE, 0, b"a", b"b", 0, 2**62, 0, 0, 0, 0, 0, 0],
    [commands.RANGE, 0, b"a", b"b", 0, 0, 99, 99, 0, 0, 0, 0],
    [commands.PUBLISH_MEMBER, 0, 1, "evil", b"i", "a:1", "b:2", "9"],
    [commands.CREATE_CLUSTER, 0, 1, "evil", []],
    [commands.EXPIRE_SESSIONS, 0],
    [protocol.MOVE_LEADER],
    [protocol.MOVE_LEADER, 7],
    [protocol.MOVE_LEADER, "nobody"],
    [protocol.FORWARD, "session"],
    [protocol.FORWARD, None, False, 0, [protocol.FORWARD, None, False, 0, [protocol.PING]]],
    [protocol.HELLO, {}],
    [0],
    [-1, 0],
    [10_000, 0],
]


@pytest.mark.parametrize("command", MALFORMED, ids=lambda command: repr(command)[:40])
def test_malformed_command_is_refused_or_harmless(victim: Node, command: list[Any]) -> None:
    """An error that has not happened, or a closed connection; an empty transaction may even be answered."""
    harmless = {commands.TXN, commands.DELETE_RANGE, commands.RANGE}
    with victim.connect() as connection:
        connection.call([commands.DELETE_RANGE, 0, b"k", b"", 0])
        revision = connection.call([commands.GET, 0, b"k"])[1]
        try:
            outcome = connection.outcome(command)
        except ConnectionEnded:
            outcome = None
    if isinstance(outcome, RaftKVError):
        assert outcome.code != "internal", outcome
        assert not outcome.may_have_happened, outcome
    else:
        assert outcome is None or command[0] in harmless, outcome
    with victim.connect() as connection:
        assert connection.call([commands.GET, 0, b"k"])[1] == revision, "something was changed"
        assert connection.get(b"k") is None


def test_request_over_the_limit(victim: Node) -> None:
    """A transaction whose parts are fine and whose sum is not."""
    value = b"v" * (DEFAULT_LIMITS.value_bytes_max - 1)
    operations = [[commands.PUT, 0, b"part/%d" % number, value, 0, 0] for number in range(3)]
    with victim.connect() as connection:
        try:
            outcome = connection.outcome([commands.TXN, 0, [], operations, []])
        except ConnectionEnded:
            outcome = None
    assert outcome is None or isinstance(outcome, RequestTooLarge), outcome
    with victim.connect() as connection:
        assert connection.get(b"part/0") is None

"""Exactly once, request by request: the same session and sequence sent again, to the same member and to the next leader.

The library's retries are tested by their outcome elsewhere; here each copy of a request is placed by hand.
"""

import os
from typing import Any

import pytest

from raftkv.errors import RaftKVError, SessionExpired, SessionWindow
from raftkv.limits import DEFAULT_LIMITS
from raftkv.wire import commands, protocol

from .conftest import StartCluster
from .harness.cluster import SMALL_LOG, Cluster
from .harness.native import NativeConnection
from .harness.node import Node
from .harness.waiting import wait_until

pytestmark = pytest.mark.integration

COUNTER = b"counter"


def increment(sequence: int) -> list[Any]:
    return [commands.INCREMENT, sequence, COUNTER, 1]


def moved(leader: Node, target: Node) -> bool:
    with leader.connect() as connection:
        return not isinstance(connection.outcome([protocol.MOVE_LEADER, target.name]), RaftKVError)


def open_session(node: Node, session: bytes, *, ack_below: int = 1, register: bool = False) -> NativeConnection:
    """A connection of a session, its notice sent."""
    connection = node.connect(session=session)
    connection.acknowledge(ack_below, register=register)
    return connection


def test_resent_on_the_same_connection_and_on_another(cluster: Cluster) -> None:
    """Three copies, one effect, one answer."""
    leader, session = cluster.leader(), os.urandom(16)
    with open_session(leader, session, register=True) as connection:
        answers = [connection.call(increment(1)), connection.call(increment(1))]
    with open_session(leader, session) as connection:
        answers.append(connection.call(increment(1)))
        assert connection.get(COUNTER) == b"1"
        assert connection.increment(COUNTER, sequence=2) == 2
    assert answers == [answers[0]] * 3


def test_copies_in_one_burst(cluster: Cluster) -> None:
    """Duplicates inside one entry."""
    with open_session(cluster.leader(), os.urandom(16), register=True) as connection:
        ids = connection.send(*[increment(1)] * 50, *[increment(2)] * 50)
        values = [connection.answer(request_id)[2] for request_id in ids]
        assert values == [1] * 50 + [2] * 50
        assert connection.get(COUNTER) == b"2"


def test_resent_to_the_next_leader(cluster: Cluster) -> None:
    """The answer that the first leader gave, from the second, which has it from the log."""
    leader, session = cluster.leader(), os.urandom(16)
    with open_session(leader, session, register=True) as connection:
        before = [connection.call(increment(sequence)) for sequence in range(1, 11)]
    leader.kill()
    with open_session(cluster.leader(cluster.others(leader)), session) as connection:
        assert [connection.call(increment(sequence)) for sequence in range(1, 11)] == before
        assert connection.get(COUNTER) == b"10"


def test_resent_to_a_leader_that_came_by_snapshot(make_cluster: StartCluster) -> None:
    """Sessions and their answers are part of the snapshot."""
    cluster = make_cluster(environment=SMALL_LOG).start()
    leader, session = cluster.leader(), os.urandom(16)
    follower = cluster.others(leader)[0]
    follower.kill()
    with open_session(leader, session, register=True) as connection:
        before = connection.call(increment(1))
        for number in range(200):
            connection.put(b"bulk/%d" % number, b"x" * 16_000)
    leader.wait_compacted()
    follower.start()
    follower.wait_ready()
    cluster.wait_applied_equal()
    assert "installed a snapshot" in follower.daemon.log_text()
    # It has the snapshot before its leader hears of that, and is refused until then.
    wait_until(lambda: moved(leader, follower), "the leader to move")
    wait_until(lambda: cluster.current_leader() is follower, "the follower to lead")
    with open_session(follower, session) as connection:
        assert connection.call(increment(1)) == before
        assert connection.get(COUNTER) == b"1"


def test_unknown_session_is_never_applied(cluster: Cluster) -> None:
    """Without `register` a session that nobody knows may have expired: unknown outcome, no effect now."""
    with open_session(cluster.leader(), os.urandom(16)) as connection:
        with pytest.raises(SessionExpired) as refused:
            connection.call(increment(7))
        assert refused.value.may_have_happened
        assert connection.get(COUNTER) is None


def test_sequence_below_the_window_is_refused(cluster: Cluster) -> None:
    """Acknowledged answers are forgotten; a copy of such a request must not be applied again."""
    leader, session = cluster.leader(), os.urandom(16)
    with open_session(leader, session, register=True) as connection:
        connection.call(increment(1))
        connection.acknowledge(2, register=False)
        connection.call(increment(2))
        with pytest.raises(SessionWindow):
            connection.call(increment(1))
        with pytest.raises(SessionWindow):
            connection.call(increment(2 + DEFAULT_LIMITS.session_window + 10))
        assert connection.get(COUNTER) == b"2"


def test_what_was_given_up_and_comes_late_is_refused(cluster: Cluster) -> None:
    """Its client went on over another connection, with its next write; the one that it gave up has stayed in the first one's way."""
    leader, session = cluster.leader(), os.urandom(16)
    with (
        open_session(leader, session, register=True) as first,
        open_session(leader, session, ack_below=2, register=True) as second,
    ):
        second.call(increment(2))
        with pytest.raises(SessionWindow) as late:
            first.call(increment(1))
        assert late.value.may_have_happened
        assert second.get(COUNTER) == b"1"


def test_refusals_are_remembered_too(cluster: Cluster) -> None:
    """A retry of a command that failed gets the same failure, even if it would succeed by now."""
    command = [commands.INCREMENT, 1, b"text", 1]
    with cluster.leader().connect() as connection:
        connection.put(b"text", b"not a number")
    with open_session(cluster.leader(), os.urandom(16), register=True) as session:
        first = session.outcome(command)
        with cluster.leader().connect() as connection:
            connection.put(b"text", b"5")
        second = session.outcome(command)
        assert getattr(first, "code", None) == getattr(second, "code", None) == "not_a_number"
        assert session.get(b"text") == b"5"

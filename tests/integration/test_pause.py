"""A paused member wakes up in a world that went on without it, and must not speak for the old one."""

import time

import pytest

from raftkv.errors import RaftKVError
from raftkv.wire import commands

from .harness.cluster import Cluster
from .harness.ledger import check_everywhere
from .harness.native import ConnectionEnded, NativeConnection
from .harness.waiting import wait_until
from .harness.workload import LibraryWorkload

pytestmark = pytest.mark.integration

ELECTION_TIMEOUT_S = 1.0
KEY = b"register"
READS_PER_MOMENT = 200
READ = [commands.GET, 0, KEY]


def answered_values(connection: NativeConnection, ids: list[int]) -> list[bytes | None]:
    """The values of the reads that were served; a refusal or a closed connection serves nothing."""
    values: list[bytes | None] = []
    for request_id in ids:
        try:
            answer = connection.answer(request_id, timeout_s=10)
        except ConnectionEnded:
            break
        if answer[0] == commands.OK:
            values.append(bytes(answer[2][5]) if answer[2] is not None else None)
        else:
            assert isinstance(commands.error_of(answer), RaftKVError)
    return values


def write_until_paused_for(cluster: Cluster, paused_at_s: float, *, among_excluded_name: str) -> bytes:
    """Writes new values at the living majority until 3 election timeouts have passed; the last one acknowledged."""
    others = [node for node in cluster.nodes if node.name != among_excluded_name]
    leader = cluster.leader(others)
    value = b""
    with leader.connect() as connection:
        number = 0
        while time.monotonic() < paused_at_s + 3 * ELECTION_TIMEOUT_S or not number:
            number += 1
            value = b"new-%d" % number
            connection.put(KEY, value)
    return value


def test_paused_leader_serves_no_stale_read(cluster: Cluster) -> None:
    """Reads sent to it after a newer write was acknowledged elsewhere: while it is stopped, and the moment it wakes."""
    leader = cluster.leader()
    pinned = leader.connect(timeout_s=10)
    pinned.put(KEY, b"old")
    assert pinned.get(KEY) == b"old"
    leader.pause()
    concurrent_ids = pinned.send(*[READ] * READS_PER_MOMENT)
    newest = write_until_paused_for(cluster, time.monotonic(), among_excluded_name=leader.name)
    later_ids = pinned.send(*[READ] * READS_PER_MOMENT)
    leader.resume()
    fresh_ids = pinned.send(*[READ] * READS_PER_MOMENT)
    served = answered_values(pinned, concurrent_ids)
    # These were sent before the newer writes: old or any newer one may be seen.
    assert all(value == b"old" or (value or b"").startswith(b"new-") for value in served)
    stale = [value for value in answered_values(pinned, later_ids + fresh_ids) if value != newest]
    assert not stale, f"{len(stale)} stale reads, for example {stale[0]!r} after {newest!r}"
    pinned.close()
    wait_until(lambda: leader.is_ready(), "the woken member to be ready")
    with leader.connect() as connection:
        assert connection.get(KEY) == newest


def test_paused_follower_serves_no_stale_read(cluster: Cluster) -> None:
    """The same through a follower, which asks the leader for an index."""
    leader = cluster.leader()
    follower = cluster.others(leader)[0]
    with leader.connect() as connection:
        connection.put(KEY, b"old")
    pinned = follower.connect(timeout_s=10)
    assert pinned.get(KEY) == b"old"
    follower.pause()
    newest = write_until_paused_for(cluster, time.monotonic(), among_excluded_name=follower.name)
    later_ids = pinned.send(*[READ] * READS_PER_MOMENT)
    follower.resume()
    fresh_ids = pinned.send(*[READ] * READS_PER_MOMENT)
    stale = [value for value in answered_values(pinned, later_ids + fresh_ids) if value != newest]
    assert not stale, f"{len(stale)} stale reads, for example {stale[0]!r} after {newest!r}"
    pinned.close()


def test_paused_leader_acknowledges_no_write_of_its_old_term(cluster: Cluster) -> None:
    """Writes that reach it while it sleeps: whatever it acknowledges later must be in the new history."""
    leader = cluster.leader()
    pinned = leader.connect(timeout_s=10)
    pinned.put(KEY, b"old")
    leader.pause()
    keys = [b"slept/%d" % number for number in range(50)]
    ids = pinned.send(*[[commands.PUT, 0, key, b"x", 0, 0] for key in keys])
    write_until_paused_for(cluster, time.monotonic(), among_excluded_name=leader.name)
    leader.resume()
    acknowledged, refused = [], []
    for key, request_id in zip(keys, ids, strict=True):
        try:
            answer = pinned.answer(request_id, timeout_s=10)
        except ConnectionEnded:
            break
        if answer[0] == commands.OK:
            acknowledged.append(key)
        elif not commands.error_of(answer).may_have_happened:
            refused.append(key)
    pinned.close()
    with cluster.leader().connect() as connection:
        assert all(connection.get(key) == b"x" for key in acknowledged)
        assert all(connection.get(key) is None for key in refused)


def test_client_leaves_a_paused_leader(cluster: Cluster) -> None:
    """A hanging member is left after one attempt's deadline; sessions make the retries exact."""
    with LibraryWorkload(cluster.endpoints) as workload:
        workload.wait_acknowledged(100)
        leader = cluster.leader()
        leader.pause()
        workload.wait_acknowledged(200, deadline_s=30)
        leader.resume()
        wait_until(lambda: leader.is_ready(), "the woken member to be ready")
        workload.wait_acknowledged(100)
        ledger = workload.stop()
    check_everywhere(cluster, ledger)

"""Watches on real members that are killed, stopped, cut off and overtaken: every change once, in order, and nobody pays for a slow one."""

import asyncio
import json
import signal
import threading
import time
from pathlib import Path
from typing import Any, Iterator

import pytest

import raftkv
from raftkv.limits import MIB

from .conftest import StartCluster
from .harness.cluster import Cluster
from .harness.netns import Network
from .harness.offices import move_leader
from .harness.process import RAFTKV, Process, raftkv_environment
from .harness.waiting import wait_until
from .harness.workload import LibraryWorkload

pytestmark = pytest.mark.integration

INTERRUPTED = 130
MOVE_MAX_S = 6.0
Heard = tuple[int, str, bytes, bytes]


class Watcher:
    """A blocking client that watches in a thread and notes what it hears, and when."""

    def __init__(self, endpoints: str, prefix: str = "", start_revision: int = 0) -> None:
        self.heard: list[Heard] = []
        self.heard_at_s: list[float] = []
        self.error: BaseException | None = None
        self._client = raftkv.Client(endpoints)
        self._watch = self._client.watch(prefix=prefix, start_revision=start_revision)
        self._watch.started()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            for batch in self._watch.batches():
                assert {event.revision for event in batch.events} == {batch.revision}
                for event in batch.events:
                    self.heard_at_s.append(time.monotonic())
                    self.heard.append((event.revision, event.type, event.key, event.value))
        except BaseException as error:
            self.error = error

    def wait_for(self, key: bytes, deadline_s: float = 20.0) -> float:
        """When it heard of the key."""

        def found() -> bool:
            assert self.error is None, repr(self.error)
            return any(heard[2] == key for heard in self.heard)

        wait_until(found, f"the watch to hear of {key!r}", deadline_s=deadline_s, seen=lambda: len(self.heard))
        position = next(number for number, heard in enumerate(self.heard) if heard[2] == key)
        return self.heard_at_s[position]

    def close(self) -> None:
        self._watch.close()
        self._thread.join(10)
        assert not self._thread.is_alive()
        self._client.close()


@pytest.fixture
def watchers() -> Iterator[list[Watcher]]:
    made: list[Watcher] = []
    yield made
    for watcher in made:
        watcher.close()


def history(endpoints: str, start_revision: int, last: bytes) -> list[Heard]:
    """The same from a watch that was never disturbed, all of it out of history."""
    watcher = Watcher(endpoints, start_revision=start_revision)
    try:
        watcher.wait_for(last)
        return list(watcher.heard)
    finally:
        watcher.close()


def put(endpoints: str, key: str, value: str = "x") -> int:
    with raftkv.Client(endpoints, timeout=20.0) as kv:
        return kv.put(key, value).revision


CHANGES = ("kill", "move", "pause", "move", "kill", "move", "pause", "move", "kill", "move")


def change_leader(cluster: Cluster, how: str) -> None:
    """Another one leads when this returns, and all run."""
    leader = cluster.leader()
    if how == "kill":
        leader.kill()
    elif how == "pause":
        leader.pause()
    else:
        with raftkv.Client(cluster.endpoints) as kv:
            move_leader(kv, cluster.others(leader)[0].name)
    cluster.leader([node for node in cluster.nodes if node is not leader])
    if how == "kill":
        leader.start()
    elif how == "pause":
        leader.resume()
    leader.wait_ready()


def test_ten_changes_of_the_leader_under_a_watch_leave_no_gap_and_no_duplicate(
    cluster: Cluster, watchers: list[Watcher]
) -> None:
    begin = put(cluster.endpoints, "begin")
    watchers += [Watcher(cluster.endpoints), Watcher(cluster.followers()[0].client_endpoint)]
    with LibraryWorkload(cluster.endpoints) as workload:
        for how in CHANGES:
            workload.wait_acknowledged(80)
            change_leader(cluster, how)
        workload.wait_acknowledged(50)
        workload.stop()
    put(cluster.endpoints, "end")
    expected = history(cluster.endpoints, begin + 1, b"end")
    assert len(expected) > 700
    for watcher in watchers:
        watcher.wait_for(b"end")
        assert watcher.heard == expected


def test_a_member_that_shuts_down_sends_its_watches_on(cluster: Cluster, watchers: list[Watcher]) -> None:
    leader = cluster.leader()
    watchers.append(Watcher(cluster.endpoints))
    leader.terminate()
    asked_at_s = time.monotonic()
    put(cluster.others(leader)[0].client_endpoint, "after")
    assert watchers[0].wait_for(b"after") - asked_at_s < MOVE_MAX_S
    assert len(watchers[0].heard) == 1


@pytest.mark.netns
def test_a_watch_on_a_member_that_is_cut_off_moves_on(
    network: Network, separated: Cluster, watchers: list[Watcher]
) -> None:
    """The client reaches it all the time: it is the member that has to say that it knows nothing any more."""
    follower = separated.followers()[0]
    others = separated.others(follower)
    watchers.append(Watcher(follower.client_endpoint))
    first = put(separated.endpoints, "first")
    watchers[0].wait_for(b"first")
    network.isolate(follower.name, [node.name for node in others])
    cut_at_s = time.monotonic()
    put(others[0].client_endpoint, "second")
    assert watchers[0].wait_for(b"second") - cut_at_s < MOVE_MAX_S
    assert [heard[0] for heard in watchers[0].heard] == [first, first + 1]
    network.heal()


def test_a_watch_on_a_member_that_stands_still_moves_on(cluster: Cluster, watchers: list[Watcher]) -> None:
    """Not a byte comes any more, also no reset: only the missing signs of life tell."""
    leader = cluster.leader()
    watchers.append(Watcher(cluster.endpoints))
    leader.pause()
    paused_at_s = time.monotonic()
    put(",".join(node.client_endpoint for node in cluster.others(leader)), "after")
    assert watchers[0].wait_for(b"after") - paused_at_s < 2 * MOVE_MAX_S
    leader.resume()


def test_a_stopped_watcher_costs_no_memory_and_delays_nobody(
    cluster: Cluster, watchers: list[Watcher], tmp_path: Path
) -> None:
    output = tmp_path / "slow.out"
    slow = Process(
        [*RAFTKV, "watch", "big/", "--prefix", "-o", "json"],
        tmp_path / "slow.log",
        environment=raftkv_environment({"RAFTKV_ENDPOINTS": cluster.endpoints}),
        stdout_path=output,
    )
    value, count = "v" * 60_000, 1_500  # 90 MB
    try:
        watchers.append(Watcher(cluster.endpoints, "big/"))
        with raftkv.Client(cluster.endpoints, timeout=20.0) as kv:

            def is_watching() -> bool:
                kv.put("big/warm", "up")
                return output.stat().st_size > 0

            wait_until(is_watching, "the slow watcher to watch")
            slow.send(signal.SIGSTOP)
            leader = cluster.leader()
            before_bytes, delays_s = leader.daemon.resident_bytes(), []
            for number in range(count):
                kv.put(f"big/{number % 20}", f"{number} {value}")
                if number % 100 == 0:
                    kv.put(f"big/mark {number}", "")
                    written_at_s = time.monotonic()  # what the disks took is no delay of a watch
                    delays_s.append(watchers[0].wait_for(b"big/mark %d" % number) - written_at_s)
            kv.put("big/last", "")
            watchers[0].wait_for(b"big/last")
            grown_bytes = leader.daemon.resident_bytes() - before_bytes
        # What is not committed to the store yet (64 MiB at most) and the log that is kept for followers (64 MiB) count too; what the
        # watcher did not take would be 90 more.
        assert grown_bytes < 180 * MIB, f"grew by {grown_bytes // MIB} MiB"
        assert max(delays_s) < 1.0
        slow.send(signal.SIGCONT)
        wait_until(lambda: b"big/last" in output.read_bytes()[-1000:], "the slow watcher to catch up", deadline_s=30)
        heard = [json.loads(line) for line in output.read_bytes().splitlines()]
        revisions = [event["mod_revision"] for event in heard]
        assert revisions == list(range(revisions[0], revisions[0] + len(revisions))), "no gap, no duplicate"
    finally:
        slow.kill()


def test_a_thousand_watches_and_a_thousand_waits(healthy: Cluster) -> None:
    """On a hundred connections: each hears twenty changes in order; all waits are answered by one write."""

    async def main() -> None:
        clients = [raftkv.connect(healthy.endpoints, timeout=30.0) for _ in range(100)]
        watches = [client.watch("crowd") for client in clients for _ in range(10)]
        await asyncio.gather(*(watch.started() for watch in watches))
        waits = [asyncio.create_task(client.wait("crowd/go", timeout=120)) for client in clients for _ in range(10)]
        for number in range(20):
            await clients[0].put("crowd", str(number))

        async def hear(watch: Any) -> list[int]:
            heard = []
            async for event in watch:
                heard.append(int(event.value))
                if len(heard) == 20:
                    break
            return heard

        for heard in await asyncio.wait_for(asyncio.gather(*map(hear, watches)), 60):
            assert heard == list(range(20))
        await clients[0].put("crowd/go", "1")
        for kv in await asyncio.wait_for(asyncio.gather(*waits), 60):
            assert kv is not None
            assert kv.value == b"1"
        for client in clients:
            await client.close()

    asyncio.run(main())


def test_what_was_compacted_meanwhile_is_said_also_by_a_member_that_was_away(make_cluster: StartCluster) -> None:
    cluster = make_cluster().start()
    away = cluster.followers()[0]
    old = put(cluster.endpoints, "k", "1")
    away.kill()
    with raftkv.Client(cluster.endpoints, timeout=20.0) as kv:
        for number in range(5):
            newest = kv.put("k", str(number)).revision
        kv.compact(newest)
    away.start()
    away.wait_ready()
    with raftkv.Client(away.client_endpoint, timeout=20.0) as kv:
        with pytest.raises(raftkv.WatchCompacted) as gone, kv.watch("k", start_revision=old) as watch:
            next(watch)
        assert gone.value.compact_revision == newest
        with kv.watch("k", start_revision=newest) as watch:
            assert next(watch).value == b"4"


def test_the_command_line_goes_on_across_a_leader_change_and_ends_with_ctrl_c(cluster: Cluster, tmp_path: Path) -> None:
    output = tmp_path / "watch.out"
    watching = Process(
        [*RAFTKV, "watch", "job/", "--prefix", "--rev", "1"],
        tmp_path / "watch.log",
        environment=raftkv_environment({"RAFTKV_ENDPOINTS": cluster.endpoints}),
        stdout_path=output,
    )
    try:
        put(cluster.endpoints, "job/1", "a")
        wait_until(lambda: output.read_bytes() == b"PUT\njob/1\na\n", "the first change, written out at once")
        leader = cluster.leader()
        leader.kill()
        put(cluster.endpoints, "job/2", "b")
        with raftkv.Client(cluster.endpoints, timeout=20.0) as kv:
            kv.delete("job/1")
        expected = b"PUT\njob/1\na\nPUT\njob/2\nb\nDELETE\njob/1\n"
        wait_until(lambda: output.read_bytes() == expected, "the others", seen=output.read_bytes)
        watching.send(signal.SIGINT)
        assert watching.wait_exit() == INTERRUPTED
        assert watching.log_text() == ""
    finally:
        watching.kill()

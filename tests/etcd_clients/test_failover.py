"""Clients of three members go on while the leader is killed, while it stands still, and while a member is cut off; nothing acknowledged is lost.

Each client writes keys of its own, each key once, and prints what was acknowledged. Libraries that know one address are given a member that stays;
etcdctl, node and Patroni know all.
"""

import signal
import subprocess
import threading
import time
from collections import Counter
from typing import Any, Iterator

import pytest

from raftkv_jepsen.machines.netns import NamespacesUnavailable, Network
from raftkv_jepsen.machines.waiting import holds_for, wait_until

from .environments import LIBRARIES
from .etcdctl import Etcdctl
from .servers import Servers, make_servers

pytestmark = pytest.mark.integration

ACKNOWLEDGED, FAILED = "acknowledged", "failed"
STOP_SECONDS_MAX = 60.0
WAIT_SECONDS_MAX = 60.0
LOCK_TTL_SECONDS = 8
KNOWS_ALL = ("node", "rust")


class Writer:
    """One program that writes until it is stopped, and what it printed."""

    def __init__(self, name: str, command: list[str], environment: dict[str, str] | None) -> None:
        self.name = name
        self.keys: dict[str, str] = {}
        self.errors: list[str] = []
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._read, self._read_errors)]
        for thread in self._threads:
            thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            outcome, key, *rest = line.split(maxsplit=2)
            self.keys[key] = outcome
            if rest:
                self.errors.append(rest[0].strip())

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.errors.append(line.strip())

    @property
    def acknowledged(self) -> list[str]:
        return [key for key, outcome in list(self.keys.items()) if outcome == ACKNOWLEDGED]

    def wait_acknowledged(self, more: int) -> None:
        wanted = len(self.acknowledged) + more

        def reached() -> bool:
            assert self._process.poll() is None, f"{self.name} ended: {self.errors[-5:]}"
            return len(self.acknowledged) >= wanted

        seen = lambda: (Counter(list(self.keys.values())), self.errors[-3:])  # noqa: E731
        wait_until(reached, f"{self.name}: {more} more writes", deadline_s=WAIT_SECONDS_MAX, seen=seen)

    def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(STOP_SECONDS_MAX) == 0, self.errors[-5:]
        for thread in self._threads:
            thread.join(10)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()


class Etcdctls(threading.Thread):
    """etcdctl again and again, each time a process of its own, with all addresses."""

    def __init__(self, endpoints: str, prefix: str) -> None:
        super().__init__(daemon=True)
        self.name, self._prefix = "etcdctl", prefix
        self._ctl = Etcdctl(endpoints, "--command-timeout=5s", "--dial-timeout=2s")
        self.keys: dict[str, str] = {}
        self.errors: list[str] = []
        self._over = threading.Event()
        self.start()

    def run(self) -> None:
        number = 0
        while not self._over.is_set():
            key = f"{self._prefix}{number:06d}"
            done = self._ctl.run("put", key, f"value of {key}")
            self.keys[key] = FAILED if done.returncode else ACKNOWLEDGED
            if done.returncode:
                self.errors.append(done.stderr.decode().strip().splitlines()[-1])
            number += 1

    @property
    def acknowledged(self) -> list[str]:
        return [key for key, outcome in list(self.keys.items()) if outcome == ACKNOWLEDGED]

    def wait_acknowledged(self, more: int) -> None:
        wanted = len(self.acknowledged) + more
        seen = lambda: self.errors[-3:]  # noqa: E731
        wait_until(lambda: len(self.acknowledged) >= wanted, "etcdctl to write", deadline_s=WAIT_SECONDS_MAX, seen=seen)

    def stop(self) -> None:
        self._over.set()
        self.join(STOP_SECONDS_MAX)
        assert not self.is_alive()

    def kill(self) -> None:
        self._over.set()


@pytest.fixture
def writers(request: pytest.FixtureRequest) -> Iterator[list[Any]]:
    running: list[Any] = []
    yield running
    for writer in running:
        writer.kill()


def start_writers(writers: list[Any], servers: Servers, stays: Any) -> None:
    """One of each client; those that know one address know that of `stays`."""
    for name, make_command in LIBRARIES.items():
        command, environment = make_command()
        endpoints = servers.endpoints if name in KNOWS_ALL else stays.client_endpoint
        writers.append(Writer(name, [*command, "write", endpoints, f"{name}/"], environment))
    writers.append(Etcdctls(servers.endpoints, "etcdctl/"))
    for writer in writers:
        writer.wait_acknowledged(5)


def check(writers: list[Any], servers: Servers) -> None:
    """Every acknowledged key is on every member, with its value, written once; no key that nobody wrote."""
    for writer in writers:
        writer.stop()
    ends_s = time.monotonic() + 20
    for node in servers.nodes:
        ctl = Etcdctl(node.client_endpoint)
        for writer in writers:
            while True:
                lines = ctl("get", f"{writer.name}/", "--prefix").splitlines()
                found = dict(zip(lines[::2], lines[1::2], strict=True))
                lost = [key for key in writer.acknowledged if found.get(key) != f"value of {key}"]
                if not lost or time.monotonic() > ends_s:
                    break
            assert not lost, f"{writer.name} on {node.name}: acknowledged and lost: {lost[:5]}"
            assert set(found) <= set(writer.keys), f"{writer.name}: nobody wrote {set(found) - set(writer.keys)}"


def test_the_leader_is_killed(make: Any, writers: list[Any]) -> None:
    servers = make(size=3)
    for _ in range(2):
        leader = servers.leader()
        if not writers:
            stays = servers.others(leader)[0]
            start_writers(writers, servers, stays)
        elif leader is stays:
            break  # those that know one address could not go on
        leader.kill()
        for writer in writers:
            writer.wait_acknowledged(5)
        leader.start()
        leader.wait_ready()
    check(writers, servers)


@pytest.mark.long
def test_the_leader_stands_still(make: Any, writers: list[Any]) -> None:
    """The kernel goes on taking its clients' bytes: a client with other addresses has to notice by itself."""
    servers = make(size=3)
    leader = servers.leader()
    start_writers(writers, servers, servers.others(leader)[0])
    leader.process.send(signal.SIGSTOP)
    try:
        for writer in writers:
            if writer.name not in KNOWS_ALL:  # node's client waits for its deadline
                writer.wait_acknowledged(5)
    finally:
        leader.process.send(signal.SIGCONT)
    for writer in writers:
        writer.wait_acknowledged(5)
    check(writers, servers)


@pytest.mark.long
def test_what_stays_outlives_the_leader(make: Any) -> None:
    """A watch, a lock and a lease of etcdctl, which know all addresses, wherever each was connected; for longer than the lock's lease lasts."""
    servers = make(size=3)
    ctl = Etcdctl(servers.endpoints, "--command-timeout=5s", "--dial-timeout=2s")
    lease = ctl("lease", "grant", str(LOCK_TTL_SECONDS)).split()[1]
    ctl("put", "leased", "v", f"--lease={lease}")
    revision = ctl.json("put", "events/first", "v")["header"]["revision"]
    with (
        ctl.staying("watch", "events/", "--prefix", f"--rev={revision}") as watch,
        ctl.staying("lock", "mutex", f"--ttl={LOCK_TTL_SECONDS}") as lock,
        ctl.staying("lease", "keep-alive", lease) as keeping,
    ):
        assert watch.lines(3) == ["PUT", "events/first", "v"]
        held = lock.line()
        keeping.until("keepalived")
        servers.leader().kill()
        for number in range(20):
            wait_until(lambda n=number: ctl.run("put", f"events/{n}", "v").returncode == 0, "a put", deadline_s=30)
        heard: list[str] = []
        while "events/19" not in heard:
            key = watch.lines(3)[1]
            heard += [key] if key not in heard else []  # a put whose answer was lost was done again
        assert heard == [f"events/{number}" for number in range(20)]
        with ctl.staying("lock", "mutex") as second:
            holds_for(lambda: second.is_running, "the second to wait", seconds=1.5 * LOCK_TTL_SECONDS)
            assert not second.heard
            assert lock.is_running
            assert ctl("get", held, "--keys-only").strip() == held
            assert ctl("get", "leased", "--print-value-only") == "v\n"
            lock.interrupt()
            assert second.line() != held


@pytest.mark.long
@pytest.mark.netns
def test_a_member_is_cut_off(kind: str, writers: list[Any]) -> None:
    """First a follower, then the leader; each is in the list of addresses of those that know all."""
    try:
        network = Network(3)
    except NamespacesUnavailable as error:
        pytest.skip(f"no network namespaces: {error}")
    try:
        with network.entered(), make_servers(kind, size=3, places=network.places()) as servers:
            servers.start()
            leader = servers.leader()
            stays, follower = servers.others(leader)
            start_writers(writers, servers, stays)
            for victim in (follower, leader):
                network.isolate(victim.name, [node.name for node in servers.others(victim)])
                for writer in writers:
                    writer.wait_acknowledged(5)
                network.heal()
                for writer in writers:
                    writer.wait_acknowledged(5)
            check(writers, servers)
            for writer in writers:
                writer.kill()
    finally:
        network.close()

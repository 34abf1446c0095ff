"""Starting, watching and ending members, with stand-ins that only answer /readyz; the real ones are met in tests/integration."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Callable

import pytest

from raftkv_cli import lifeline
from raftkv_cli.commands.dev import choose_layout
from raftkv_cli.local_cluster import Layout, LocalCluster, Place, consecutive_ports, free_ports, load_layout
from raftkv_cli.settings import Settings
from raftkv_cli.signals import SignalInbox
from raftkv_cli.spec import Call, Failed

DEADLINE_SECONDS = 20.0

STAND_IN = """
import socket, sys
host, port = sys.argv[1].split(":")
server = socket.create_server((host, int(port)))
print("stand-in listens", flush=True)
while True:
    connection, _ = server.accept()
    connection.recv(4096)
    connection.sendall(b"HTTP/1.1 200 OK\\r\\n\\r\\nok")
    connection.close()
"""


class StandIns(LocalCluster):
    """A cluster whose members are stand-ins."""

    script = STAND_IN

    def serve_command(self, place: Place) -> list[str]:
        return [sys.executable, "-c", self.script, place.client]


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "the condition was not met in time"
        time.sleep(0.01)  # between two looks at another process


def call(**options: object) -> Call:
    return Call({}, {f"--{name.replace('_', '-')}": value for name, value in options.items()}, "value", Settings())


def test_a_layout_is_found_again(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "d", "dev", consecutive_ports(2379, 3))
    assert [place.client for place in layout.places] == ["127.0.0.1:2379", "127.0.0.1:2381", "127.0.0.1:2383"]
    assert [place.peer for place in layout.places] == ["127.0.0.1:2380", "127.0.0.1:2382", "127.0.0.1:2384"]
    assert load_layout(layout.directory) is None
    layout.save()
    assert load_layout(layout.directory) == layout


def test_options_that_contradict_the_cluster_that_is_there_are_refused(tmp_path: Path) -> None:
    made = choose_layout(call(nodes=5, port=3000, cluster_name="x"), tmp_path)
    made.save()
    assert choose_layout(call(), tmp_path) == made
    assert choose_layout(call(nodes=5, port=3000, cluster_name="x"), tmp_path) == made
    assert choose_layout(call(port=0), tmp_path) == made
    for options, complaint in [
        ({"nodes": 3}, "--nodes is 3"),
        ({"port": 1}, "--port is 1"),
        ({"cluster_name": "y"}, "y"),
    ]:
        with pytest.raises(Failed, match=complaint):
            choose_layout(call(**options), tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"cluster_name": "x", "ports": [1]}'])
def test_a_damaged_layout_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "cluster.json").write_text(content)
    with pytest.raises(Failed, match=r"cluster\.json is damaged"):
        load_layout(tmp_path)


def test_a_directory_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(Failed, match="not a directory of raftkv dev"):
        load_layout(tmp_path)


def test_free_ports_differ() -> None:
    ports = [port for pair in free_ports(5) for port in pair]
    assert len(set(ports)) == 10


def test_a_taken_port_is_named_before_anything_starts(tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        layout = Layout(tmp_path / "d", "dev", (*free_ports(1), (port, free_ports(1)[0][0])))
        with StandIns(layout) as cluster, pytest.raises(Failed, match=f"127.0.0.1:{port}, the client port of n2"):
            cluster.start()
        assert not layout.directory.exists()


def test_members_start_die_and_end(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "d", "dev", free_ports(3))
    with StandIns(layout) as cluster:
        cluster.start()
        assert cluster.wait_ready(DEADLINE_SECONDS)
        pids = [member.pid for member in cluster.members.values()]
        assert len({os.getpgid(pid) for pid in pids}) == 3
        os.kill(cluster.members["n2"].pid, signal.SIGKILL)
        wait_for(lambda: not cluster.members["n2"].running)
        assert [member.place.name for member in cluster.take_deaths()] == ["n2"]
        assert cluster.take_deaths() == []
        assert cluster.members["n2"].log_tail() == ["stand-in listens"]
        assert cluster.ready_names() == ["n1", "n3"]
        cluster.signal_member("n1", signal.SIGKILL)
        assert cluster.take_deaths() == [], "it was asked to"
        cluster.start_member("n1")
        cluster.start_member("n2")
        assert cluster.wait_ready(DEADLINE_SECONDS)
        cluster.signal_member("n3", signal.SIGSTOP)
    assert not any(member.running for member in cluster.members.values())


def test_a_member_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    class Stubborn(StandIns):
        script = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + STAND_IN

    with Stubborn(Layout(tmp_path / "d", "dev", free_ports(1))) as cluster:
        cluster.start()
        assert cluster.wait_ready(DEADLINE_SECONDS)
        cluster.stop(grace_seconds=0.2)
        process = cluster.members["n1"].process
        assert process is not None
        assert process.returncode == -signal.SIGKILL


def test_not_ready_when_a_member_died(tmp_path: Path) -> None:
    class Dying(StandIns):
        script = "raise SystemExit('no such luck')"

    with Dying(Layout(tmp_path / "d", "dev", free_ports(1))) as cluster:
        cluster.start()
        assert not cluster.wait_ready(DEADLINE_SECONDS)
        wait_for(lambda: not cluster.members["n1"].running)
        assert cluster.members["n1"].log_tail() == ["no such luck"]


CHILD = "from raftkv_cli import lifeline; lifeline.hold(); print('held', flush=True); import signal; signal.pause()"
PARENT = """
import subprocess, sys, os
from raftkv_cli import lifeline
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], env={**os.environ, **lifeline.environment()}, stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
sys.stdin.readline()
"""


def test_a_child_ends_when_its_parent_is_killed() -> None:
    environment = {**os.environ, **lifeline.environment()}
    del environment[lifeline.VARIABLE]
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, CHILD], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert parent.stdin is not None
    assert parent.stdout is not None
    with parent.stdin, parent.stdout:
        child_pid = int(parent.stdout.readline())
        parent.kill()
        parent.wait()
        wait_for(lambda: has_ended(child_pid))


def has_ended(pid: int) -> bool:
    """Gone, or a zombie that nobody collects (in containers whose first process does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_a_child_whose_parent_is_gone_already_ends_at_once() -> None:
    environment = {**os.environ, **lifeline.environment(), lifeline.VARIABLE: "1"}
    done = subprocess.run([sys.executable, "-c", CHILD], env=environment, capture_output=True, timeout=DEADLINE_SECONDS)
    assert done.returncode == -signal.SIGTERM
    assert done.stdout == b""


def test_signals_wake_the_inbox_and_nothing_else() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    with SignalInbox([signal.SIGUSR1]) as inbox:
        assert inbox.wait(0) == set()
        os.kill(os.getpid(), signal.SIGUSR1)
        assert inbox.wait(DEADLINE_SECONDS) == {signal.SIGUSR1}
        assert inbox.wait(0) == set()
    assert signal.getsignal(signal.SIGUSR1) == before

"""Member processes of a cluster under test: started, watched through /proc, and surely ended.

Every process dies with this one (PR_SET_PDEATHSIG), so that not even a SIGKILL of the benchmark leaves a cluster behind. What
differs between raftkv and etcd is in raftkv_cluster.py and etcd_cluster.py.
"""

import contextlib
import ctypes
import http.client
import os
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Protocol

HOST = "127.0.0.1"
CLOCK_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class BenchError(Exception):
    """The measurement cannot go on; the message says why and where to look."""


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on. They are all held at once while asking, so that they differ."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for held in sockets:
            held.bind((HOST, 0))
        return [int(held.getsockname()[1]) for held in sockets]


def wait_until(condition: Callable[[], bool], what: str, seconds_max: float, poll_seconds: float = 0.01) -> float:
    """Wait for `condition` and return how many seconds it took. Raises BenchError after `seconds_max`."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > seconds_max:
            raise BenchError(f"{what}: not within {seconds_max:.0f} s")
        time.sleep(poll_seconds)
    return time.monotonic() - started


def raise_open_files() -> None:
    """As many file descriptors as the system lets us have, for us and for what we start."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def http_get(port: int, path: str, timeout_seconds: float = 1.0) -> tuple[int, bytes]:
    """Status and body; (0, b"") when nobody answers."""
    connection = http.client.HTTPConnection(HOST, port, timeout=timeout_seconds)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


def die_with_parent() -> None:
    """For Popen's preexec_fn: the child gets SIGKILL when the thread that started it ends."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@dataclass(slots=True)
class Member:
    """One process of a cluster."""

    name: str
    client_port: int
    peer_port: int
    data_dir: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None, f"{self.name} was never started"
        return self.process.pid

    @property
    def endpoint(self) -> str:
        return f"{HOST}:{self.client_port}"

    def cpu_seconds(self) -> float:
        """User and system time of all threads so far, in steps of a clock tick (10 ms)."""
        return cpu_seconds_of(self.pid)

    def memory_bytes(self) -> dict[str, int]:
        """Resident memory: all of it, and split into anonymous and file-backed (the mapped store; the kernel may drop it)."""
        fields = {}
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name in ("VmRSS", "RssAnon", "RssFile"):
                fields[name] = int(rest.split()[0]) * 1024
        return {"rss": fields["VmRSS"], "anonymous": fields["RssAnon"], "file": fields["RssFile"]}

    def log_tail(self, bytes_max: int = 2000) -> str:
        path = self.data_dir.with_suffix(".log")
        return path.read_bytes()[-bytes_max:].decode("utf-8", "replace") if path.exists() else "(no log)"


def cpu_seconds_of(pid: int) -> float:
    """User and system time of a process and all its threads."""
    # The command's name stands in parentheses and may hold anything: count from behind it.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS_PER_SECOND


class ClusterKind(Protocol):
    """What start_cluster needs to know about a product."""

    name: str

    def command(self, member: Member, members: list[Member]) -> list[str]: ...

    def is_ready(self, member: Member) -> bool:
        """Does it answer, know a leader, and has it caught up?"""
        ...

    def stall_ms(self, member: Member) -> float:
        """The longest that the member's loop was held since the last call; 0 where there is no such figure."""
        ...

    def leader_of(self, members: list[Member]) -> str | None:
        """The name of the member that the running members agree on as their leader."""
        ...


@dataclass(slots=True)
class Cluster:
    """Three members on fresh data directories. A context manager: leaving it ends the processes and deletes the data."""

    kind: ClusterKind
    size: int = 3
    ready_seconds_max: float = 60.0
    members: list[Member] = field(default_factory=list)
    directory: Path = Path()

    def __enter__(self) -> "Cluster":
        self.directory = Path(tempfile.mkdtemp(prefix=f"bench-{self.kind.name}-"))
        ports = free_ports(2 * self.size)
        for i in range(self.size):
            name = f"n{i + 1}"
            self.members.append(Member(name, ports[2 * i], ports[2 * i + 1], self.directory / name))
        try:
            for member in self.members:
                self.start(member)
            self.wait_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def start(self, member: Member) -> None:
        """Start a member's process on its data directory, whatever is in it."""
        assert member.process is None or member.process.poll() is not None, f"{member.name} is running"
        with member.data_dir.with_suffix(".log").open("ab") as log:
            member.process = subprocess.Popen(
                self.kind.command(member, self.members),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                preexec_fn=die_with_parent,
                start_new_session=True,  # Ctrl-C is for the benchmark, which then ends the members
            )

    def wait_ready(self, members: list[Member] | None = None) -> float:
        """Wait until the given members (default: all) are ready; how many seconds it took."""
        waiting = list(self.members if members is None else members)

        def all_ready() -> bool:
            for member in list(waiting):
                if member.process is not None and member.process.poll() is not None:
                    code = member.process.returncode
                    raise BenchError(f"{self.kind.name} {member.name} ended with {code}:\n{member.log_tail()}")
                if self.kind.is_ready(member):
                    waiting.remove(member)
            return not waiting

        return wait_until(all_ready, f"{self.kind.name} ready", self.ready_seconds_max)

    def leader(self) -> Member:
        """The member that all running members agree on as leader; waits for an election to end."""
        found: list[str] = []

        def has_leader() -> bool:
            found[:] = [name for name in (self.kind.leader_of(self.running()),) if name is not None]
            return bool(found)

        wait_until(has_leader, f"{self.kind.name} leader", self.ready_seconds_max)
        return next(member for member in self.members if member.name == found[0])

    def followers(self) -> list[Member]:
        leader = self.leader()
        return [member for member in self.running() if member is not leader]

    def running(self) -> list[Member]:
        return [member for member in self.members if member.process is not None and member.process.poll() is None]

    def stop(self, members: list[Member], signal_number: signal.Signals, seconds_max: float = 20.0) -> None:
        """Signal the members and wait until they are gone; whoever stays longer than `seconds_max` is killed."""
        for member in members:
            if member.process is not None and member.process.poll() is None:
                member.process.send_signal(signal_number)
        deadline = time.monotonic() + seconds_max
        for member in members:
            if member.process is None:
                continue
            try:
                member.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                member.process.kill()
                member.process.wait()

    def disk_bytes(self) -> dict[str, int]:
        """Allocated bytes below each member's data directory."""
        return {
            member.name: sum(path.stat().st_blocks * 512 for path in member.data_dir.rglob("*") if path.is_file())
            for member in self.members
        }

    def close(self) -> None:
        """End everything and delete the data. Harmless when called twice."""
        self.stop(self.members, signal.SIGKILL)
        shutil.rmtree(self.directory, ignore_errors=True)

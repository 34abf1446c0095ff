"""One member of a test cluster: its addresses, its data directory, and its daemon, which comes and goes."""

import http.client
import shutil
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Mapping

from raftkv_jepsen.machines.native import ConnectionEnded, NativeConnection
from raftkv_jepsen.machines.process import RAFTKV, Process, raftkv_environment
from raftkv_jepsen.machines.waiting import wait_until

READY_DEADLINE_S = 30.0
HTTP_TIMEOUT_S = 2.0


@dataclass
class Node:
    """A member. `launcher` is a command prefix, for example the one that enters a network namespace; `flags` are added ones."""

    clean_exits: ClassVar[tuple[int, ...]] = (0,)
    """Exit codes after SIGTERM."""
    name: str
    client_endpoint: str
    peer_endpoint: str
    data_directory: Path
    log_path: Path
    cluster_name: str
    initial_cluster: str
    environment: dict[str, str] = field(default_factory=dict)
    launcher: tuple[str, ...] = ()
    flags: dict[str, str] = field(default_factory=dict)
    program: tuple[str, ...] = RAFTKV
    process: Process | None = None
    paused: bool = False
    login: tuple[str, str] | None = None  # name and password, once authentication is on

    def arguments(self, **overrides: str) -> list[str]:
        """The daemon's command line; an override replaces a flag's value (`data_dir=...` for --data-dir)."""
        flags = {
            "name": self.name,
            "data_dir": str(self.data_directory),
            "listen": self.client_endpoint,
            "listen_peer": self.peer_endpoint,
            "initial_cluster": self.initial_cluster,
            "cluster_name": self.cluster_name,
            **self.flags,
            **overrides,
        }
        flags = {flag: value for flag, value in flags.items() if value or flag != "initial_cluster"}
        words = [*self.launcher, *self.program, "serve"]
        for flag, value in flags.items():
            words += ["--" + flag.replace("_", "-"), value]
        return words

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.exit_code is None

    @property
    def daemon(self) -> Process:
        """Its process. Raises AssertionError when it was never started or has been ended."""
        assert self.process is not None, f"{self.name} is not started"
        return self.process

    def start(self, *, environment: Mapping[str, str] | None = None) -> Process:
        """Starts the daemon; it is not ready yet."""
        assert not self.running, f"{self.name} runs already"
        variables = raftkv_environment({**self.environment, **(environment or {})})
        self.process = Process(self.arguments(), self.log_path, environment=variables)
        self.paused = False
        return self.process

    def kill(self) -> None:
        """kill -9."""
        if self.process is not None:
            self.process.kill()
        self.paused = False

    def begin_anew(self, through: "Node") -> None:
        """Its disk is empty; at its next start it joins through another member."""
        for path in self.data_directory.glob("*"):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        self.flags["join"] = through.client_endpoint
        self.initial_cluster = ""

    def terminate(self, deadline_s: float = 10.0) -> int:
        """SIGTERM, and the exit code."""
        self.daemon.send(signal.SIGTERM)
        return self.daemon.wait_exit(deadline_s)

    def pause(self) -> None:
        """SIGSTOP: the kernel goes on taking connections and bytes for it."""
        self.daemon.send(signal.SIGSTOP)
        self.paused = True

    def resume(self) -> None:
        """SIGCONT."""
        self.daemon.send(signal.SIGCONT)
        self.paused = False

    def connect(self, **options: Any) -> NativeConnection:
        """A raw connection to this member, as `login` if there is one."""
        return NativeConnection(self.client_endpoint, **{"login": self.login, **options})

    def http_get(self, path: str) -> tuple[int, str]:
        """Status and body; status 0 when the member cannot be reached."""
        connection = http.client.HTTPConnection(self.client_endpoint, timeout=HTTP_TIMEOUT_S)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            return 0, repr(error)
        finally:
            connection.close()

    def is_ready(self) -> bool:
        """Whether /readyz says so. Raises AssertionError when the daemon has ended instead."""
        code = self.daemon.exit_code
        assert code is None, f"{self.name} ended with exit code {code}:\n{self.daemon.log_text()[-2000:]}"
        return self.http_get("/readyz")[0] == http.client.OK

    def wait_ready(self, deadline_s: float = READY_DEADLINE_S) -> None:
        """Waits for /readyz."""
        wait_until(
            self.is_ready, f"{self.name} to be ready", deadline_s=deadline_s, seen=lambda: self.http_get("/readyz")
        )

    def status(self) -> dict[str, Any] | None:
        """Its own status; None when it does not answer."""
        if not self.running or self.paused:
            return None
        try:
            with self.connect(timeout_s=HTTP_TIMEOUT_S) as connection:
                return connection.status()
        except (OSError, ConnectionEnded):
            return None

    def own_dump(self) -> list[list[Any]]:
        """All key-values that this member's own store holds, in order."""
        with self.connect(timeout_s=20) as connection:
            return connection.dump(serializable=True)

    def log_bytes(self) -> int:
        """What the segments of the write-ahead log take on disk now."""
        sizes = []
        for path in (self.data_directory / "wal").iterdir():
            try:
                sizes.append(path.stat().st_size)
            except FileNotFoundError:
                continue  # compacted between the listing and the look
        assert sizes, "the log is somewhere else"
        return sum(sizes)

    def wait_compacted(self, bytes_max: int = 2 * 1024 * 1024) -> None:
        """The log has let go of what was written before; with SMALL_LOG about 64 KiB in segments of 256 KiB are retained."""
        wait_until(
            lambda: self.log_bytes() < bytes_max,
            "the log to be compacted",
            deadline_s=10,
            seen=lambda: self.log_bytes(),
        )

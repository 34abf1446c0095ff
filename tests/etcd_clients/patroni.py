"""PostgreSQL under Patroni: members of a cluster whose leader is chosen through an etcd, here on loopback.

PostgreSQL does not run as root. Root therefore starts Patroni in a user namespace of its own, in which it is somebody else: files keep their
owner and nothing of the machine has to be opened to another user.
"""

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

from raftkv_jepsen.machines.ports import PortReservations
from raftkv_jepsen.machines.process import Process, log_tail
from raftkv_jepsen.machines.waiting import wait_until

from .environments import missing, python_with

SOMEBODY = ("unshare", "--user", "--map-user=1000", "--map-group=1000")
TTL_SECONDS = 20  # Patroni's least
WAIT_SECONDS = 150.0


def postgres_folder() -> Path:
    """Where the newest PostgreSQL has its programs. Skips, or on CI fails, when there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: float(path.parts[-3]))
    if not found:
        missing("PostgreSQL is not installed: apt install postgresql")
    return found[-1].parent


def launcher() -> tuple[str, ...]:
    return SOMEBODY if os.geteuid() == 0 else ()


class Postgres:
    """One PostgreSQL with its Patroni."""

    def __init__(self, name: str, folder: Path, etcd_endpoints: str, ports: PortReservations) -> None:
        self.name = name
        self.port = ports.take()
        self._data = folder / f"{name}-data"
        self.log_path = folder / f"{name}.log"
        self.config_path = folder / f"{name}.yml"
        self._bin = postgres_folder()
        self._process: Process | None = None
        self._python = python_with("patroni")
        api = f"127.0.0.1:{ports.take()}"
        everybody = {"username": "postgres", "password": "secret"}
        config = {
            "scope": "store",
            "name": name,
            "restapi": {"listen": api, "connect_address": api},
            "etcd3": {"hosts": etcd_endpoints.split(",")},
            "bootstrap": {
                "dcs": {
                    "ttl": TTL_SECONDS,
                    "loop_wait": 2,
                    "retry_timeout": 5,
                    "postgresql": {"use_pg_rewind": True, "parameters": {"wal_log_hints": "on"}},
                },
                "initdb": [{"encoding": "UTF8"}, {"locale": "C"}],
            },
            "postgresql": {
                "listen": f"127.0.0.1:{self.port}",
                "connect_address": f"127.0.0.1:{self.port}",
                "data_dir": str(self._data),
                "bin_dir": str(self._bin),
                "pgpass": str(folder / f"{name}.pgpass"),
                "pg_hba": [
                    "host all all 127.0.0.1/32 trust",
                    "host replication all 127.0.0.1/32 trust",
                    "local all all trust",
                ],
                "authentication": {"superuser": everybody, "replication": {"username": "copy", "password": "secret"}},
                "parameters": {"unix_socket_directories": str(folder), "fsync": "off"},
            },
        }
        self.config_path.write_text(json.dumps(config))  # JSON is YAML

    def start(self) -> None:
        patroni = str(Path(self._python).with_name("patroni"))
        self._process = Process([*launcher(), patroni, str(self.config_path)], self.log_path)

    def kill(self) -> None:
        """Both at once, as if the machine had gone."""
        if self._process is not None:
            self._process.kill()
        pid_file = self._data / "postmaster.pid"
        if pid_file.exists():
            pid = int(pid_file.read_text().split()[0])
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                return
            # The others end when they see that the first is gone, and let go of the port.
            wait_until(lambda: not Path(f"/proc/{pid}").exists(), "PostgreSQL to end")

    def ask(self, statement: str) -> str:
        """One statement. Raises CalledProcessError when it is not done."""
        words = ("-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-tAqc", statement)
        done = subprocess.run([self._bin / "psql", *words], capture_output=True, text=True, timeout=30, check=True)
        return done.stdout.strip()

    def can(self, statement: str) -> bool:
        try:
            self.ask(statement)
        except subprocess.CalledProcessError:
            return False
        return True

    def is_in_recovery(self) -> str:
        """`t` for a replica, `f` for a leader, nothing while it does not answer."""
        try:
            return self.ask("select pg_is_in_recovery()")
        except subprocess.CalledProcessError:
            return ""


class PatroniCluster:
    """Two of them, and what patronictl says."""

    def __init__(self, folder: Path, etcd_endpoints: str) -> None:
        self._ports = PortReservations()
        self.members = [Postgres(name, folder, etcd_endpoints, self._ports) for name in ("pg1", "pg2")]
        self._patronictl = str(Path(python_with("patroni")).with_name("patronictl"))

    def ctl(self, *words: str) -> str:
        command = [self._patronictl, "-c", str(self.members[0].config_path), *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
        assert done.returncode == 0, f"{words}:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def rows(self) -> list[dict[str, Any]]:
        return list(json.loads(self.ctl("list", "--format", "json")))

    def leader(self) -> Postgres | None:
        """Who leads and is not about to stop."""
        names = [row["Member"] for row in self.rows() if row["Role"] == "Leader" and row["State"] == "running"]
        return next((member for member in self.members if member.name in names), None)

    def wait_leader(self, *, among: list[Postgres] | None = None) -> Postgres:
        wanted = self.members if among is None else among

        def leading() -> Postgres | None:
            leader = self.leader()
            return leader if leader in wanted else None

        return wait_until(leading, "a leader", deadline_s=WAIT_SECONDS, seen=self.rows, interval_s=0.5)

    def wait_replicating(self) -> None:
        """The other one follows, without anything outstanding."""

        def streaming() -> bool:
            return any(row["Role"] == "Replica" and row["State"] == "streaming" for row in self.rows())

        wait_until(streaming, "a replica that streams", deadline_s=WAIT_SECONDS, seen=self.rows, interval_s=0.5)

    def other(self, member: Postgres) -> Postgres:
        return next(each for each in self.members if each is not member)

    def report(self) -> str:
        return "\n".join(f"--- {member.name}\n{log_tail(member.log_path)}" for member in self.members)

    def close(self) -> None:
        for member in self.members:
            member.kill()
        self._ports.close()


def can_be_somebody() -> bool:
    """Whether this machine lets root be somebody else."""
    if os.geteuid() != 0:
        return True
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*SOMEBODY, "true"], capture_output=True, check=False).returncode == 0

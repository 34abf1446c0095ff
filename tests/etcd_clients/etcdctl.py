"""etcdctl as a user runs it: words in, text and exit code out; and the verbs that stay, whose lines are awaited."""

import json
import os
import queue
import re
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any, Sequence

from tests.differential.real import binary

RUN_SECONDS_MAX = 60.0
LINE_SECONDS_MAX = 20.0


def etcdctl_binary() -> str | None:
    """Path of etcdctl, which lies beside etcd."""
    etcd = binary()
    path = Path(etcd).with_name("etcdctl") if etcd is not None else None
    return str(path) if path is not None and os.access(path, os.X_OK) else None


def environment() -> dict[str, str]:
    """The caller's, without settings of etcdctl."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ETCDCTL_")}
    return {**kept, "ETCDCTL_API": "3"}


class Etcdctl:
    """`ctl("put", "k", "v")` is its standard output. Every call is a process of its own."""

    def __init__(self, endpoints: str, *flags: str) -> None:
        program = etcdctl_binary()
        assert program is not None
        self._words = [program, f"--endpoints={endpoints}", "--command-timeout=20s", "--dial-timeout=10s", *flags]
        self._endpoints = endpoints

    def having(self, *flags: str) -> "Etcdctl":
        """The same with more global flags."""
        return Etcdctl(self._endpoints, *self._words[4:], *flags)

    def run(
        self, *words: str, given: str | bytes = b"", seconds: float = RUN_SECONDS_MAX
    ) -> subprocess.CompletedProcess[bytes]:
        given = given.encode() if isinstance(given, str) else given
        command = [*self._words, *words]
        return subprocess.run(
            command, input=given, capture_output=True, timeout=seconds, env=environment(), check=False
        )

    def __call__(self, *words: str, given: str | bytes = b"") -> str:
        done = self.run(*words, given=given)
        shown = done.stdout.decode(errors="surrogateescape")
        assert done.returncode == 0, f"{words}: exit code {done.returncode}\n{shown}\n{done.stderr.decode()}"
        return shown

    def refused(self, *words: str, given: str | bytes = b"", code: int = 1) -> str:
        """What it says of an error. The exit code is 1, or 2 where it could not even log in."""
        done = self.run(*words, given=given)
        assert done.returncode == code, f"{words}: exit code {done.returncode}\n{done.stdout!r}\n{done.stderr!r}"
        return done.stderr.decode()

    def json(self, *words: str) -> Any:
        return json.loads(self(*words, "--write-out=json"))

    def fields(self, *words: str) -> dict[str, str]:
        """`"Name" : value` lines; of a name that comes again the last."""
        found = re.findall(r'^"([^"]+)" : (.*)$', self(*words, "--write-out=fields"), flags=re.MULTILINE)
        assert found, "fields"
        return dict(found)

    def staying(self, *words: str) -> "Staying":
        return Staying([*self._words, *words])


class Staying:
    """A verb that does not end by itself. A context manager: it ends with the block."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment()
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self.heard: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.decode(errors="replace").rstrip("\n"))

    def __enter__(self) -> "Staying":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join(10)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def type(self, line: str) -> None:
        """A line on its standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()

    def line(self, deadline_s: float = LINE_SECONDS_MAX) -> str:
        """The next line of its output. Raises AssertionError when none comes."""
        try:
            line = self._lines.get(timeout=deadline_s)
        except queue.Empty:
            code = self._process.poll()
            raise AssertionError(f"{self._command[4:]} said nothing more after {self.heard} ({code=})") from None
        self.heard.append(line)
        return line

    def lines(self, count: int) -> list[str]:
        return [self.line() for _ in range(count)]

    def until(self, text: str, deadline_s: float = LINE_SECONDS_MAX) -> str:
        """The next line that holds this text."""
        ends_s = time.monotonic() + deadline_s
        while text not in (line := self.line(max(0.1, ends_s - time.monotonic()))):
            pass
        return line

    def interrupt(self) -> int:
        """Ctrl-C, and the exit code."""
        self._process.send_signal(signal.SIGINT)
        return self.ended()

    def ended(self) -> int:
        """The exit code."""
        return self._process.wait(LINE_SECONDS_MAX)

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

"""A Docker engine for the tests: the one that is there, or one of their own that leaves nothing behind.

An engine of our own lives in a network namespace, with data, sockets and pid file in one temporary directory: its bridges,
address translation and published ports never touch the machine's network, and the ports of the compose file are always
free in it. Installing packages and starting a daemon is not something a test does unasked: RAFTKV_E2E_ENGINE=1 asks for it.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Iterator, Sequence

from integration.harness.waiting import wait_until

PERMISSION = "RAFTKV_E2E_ENGINE"
PACKAGES = ("docker.io", "docker-compose", "iptables", "iproute2", "debootstrap")
TOOLS = ("dockerd", "docker-compose", "iptables", "ip", "nsenter")
START_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 30.0


class EngineUnavailable(Exception):
    """No Docker engine can be had here; the text says why and what would help."""


class Engine:
    """How to talk to an engine, and from where its published ports are reached."""

    def __init__(self, host: str | None, namespace: str | None) -> None:
        self.environment = dict(os.environ)
        if host is not None:
            # Debian's engine has only the classic builder, and its compose is to use that one.
            self.environment |= {"DOCKER_HOST": host, "DOCKER_BUILDKIT": "0", "COMPOSE_DOCKER_CLI_BUILD": "0"}
        self._namespace = namespace

    @property
    def is_private(self) -> bool:
        """Was it started by the tests, on a network of its own?"""
        return self._namespace is not None

    def docker(self, *arguments: str, seconds_max: float = 60.0) -> str:
        """Run the docker command and return its stripped output. Raises CalledProcessError with its stderr."""
        return run(["docker", *arguments], self.environment, seconds_max).strip()

    def compose_command(self) -> list[str]:
        """`docker compose` where the plugin is there, else docker-compose. Raises EngineUnavailable."""
        if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0:
            return ["docker", "compose"]
        if shutil.which("docker-compose") is None:
            raise EngineUnavailable("neither `docker compose` nor docker-compose is installed")
        return ["docker-compose"]

    def on_its_network(self, command: Sequence[str]) -> list[str]:
        """The command that runs `command` where the published ports are."""
        return [*(["nsenter", f"--net=/run/netns/{self._namespace}"] if self._namespace else []), *command]


def run(command: Sequence[str], environment: dict[str, str] | None = None, seconds_max: float = 600.0) -> str:
    """Run to the end and return stdout; on failure the exception's notes hold what it printed."""
    done = subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds_max,
        check=False,
    )
    if done.returncode != 0:
        error = subprocess.CalledProcessError(done.returncode, list(command), done.stdout, done.stderr)
        error.add_note((done.stdout + done.stderr)[-4000:])
        raise error
    return done.stdout


@contextlib.contextmanager
def acquire_engine() -> Iterator[Engine]:
    """The engine that answers, else one of our own if that is allowed. Raises EngineUnavailable."""
    if shutil.which("docker") is not None:
        answers = subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0
        if answers:
            yield Engine(host=None, namespace=None)
            return
    if os.environ.get(PERMISSION) != "1":
        raise EngineUnavailable(
            f"no Docker engine answers; as root, {PERMISSION}=1 installs and starts one for the test"
        )
    if os.geteuid() != 0:
        raise EngineUnavailable("no Docker engine answers, and only root can start one")
    install(TOOLS, PACKAGES)
    with _private_engine() as engine:
        yield engine


def install(tools: Sequence[str], packages: Sequence[str]) -> None:
    """Have Debian's packages installed if one of the tools is missing. Raises EngineUnavailable."""
    if all(map(shutil.which, tools)):
        return
    if shutil.which("apt-get") is None:
        raise EngineUnavailable(f"{', '.join(tools)} are needed, and there is no apt-get to install them")
    # Otherwise the package would start an engine on the machine's own network.
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    try:
        run(["apt-get", "update", "-qq"], environment)
        run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages], environment)
    except subprocess.CalledProcessError as error:
        raise EngineUnavailable(f"{' '.join(error.cmd)}: {error.stderr.strip()[-300:]}") from error


@contextlib.contextmanager
def _private_engine() -> Iterator[Engine]:
    with contextlib.ExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix="raftkv-e2e-engine-"))
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        namespace = directory.name
        try:
            run(["ip", "netns", "add", namespace])
        except subprocess.CalledProcessError as error:
            raise EngineUnavailable(f"no network namespace can be made here: {error.stderr.strip()}") from error
        stack.callback(run, ["ip", "netns", "delete", namespace])
        run(["ip", "-n", namespace, "link", "set", "lo", "up"])
        engine = Engine(f"unix://{directory}/docker.sock", namespace)
        daemon = _start_daemon(engine, directory)
        stack.callback(_stop_daemon, daemon)
        wait_until(lambda: _answers(engine, daemon, directory), "dockerd", deadline_s=START_SECONDS_MAX)
        yield engine


def _start_daemon(engine: Engine, directory: Path) -> "subprocess.Popen[bytes]":
    # The engine chooses how it stores layers: overlays where they work, else copies, which take a minute instead of a second. No default bridge: builds run without a network, which is what they promise.
    command = [
        "dockerd",
        f"--data-root={directory}/data",
        f"--exec-root={directory}/exec",
        f"--pidfile={directory}/pid",
        f"--host=unix://{directory}/docker.sock",
        "--bridge=none",
    ]
    with (directory / "log").open("ab") as log:
        return subprocess.Popen(
            engine.on_its_network(command), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )


def _answers(engine: Engine, daemon: "subprocess.Popen[bytes]", directory: Path) -> bool:
    if daemon.poll() is not None:
        tail = (directory / "log").read_text(errors="replace")[-600:]
        raise EngineUnavailable(f"dockerd ended with {daemon.returncode}: {tail}")
    return subprocess.run(["docker", "info"], env=engine.environment, capture_output=True, check=False).returncode == 0


def _stop_daemon(daemon: "subprocess.Popen[bytes]") -> None:
    """End dockerd; its containerd and containers end with it."""
    daemon.send_signal(signal.SIGTERM)
    try:
        daemon.wait(STOP_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        os.killpg(daemon.pid, signal.SIGKILL)
        daemon.wait()

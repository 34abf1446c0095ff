"""Virtual environments and node packages of clients whose dependencies get in each other's way, made once and kept beside our own.

They live under .venv/clients, one folder per set of requirements: another version is another folder, and `make clean` removes all. Without a
network a test that needs one is skipped with the reason; on CI (the variable CI is set) it fails instead: nobody would see it skipped.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Callable, Iterator, NoReturn

import pytest

PROGRAMS = Path(__file__).parent / "programs"
CACHE = Path(__file__).resolve().parents[2] / ".venv" / "clients"
INSTALL_SECONDS_MAX = 600.0

REQUIREMENTS: dict[str, tuple[str, ...]] = {
    # Its messages were made for protobuf 3, its lock for a tenacity that passes two arguments.
    "etcd3": ("etcd3==0.12.0", "protobuf==3.20.3", "tenacity==6.1.0", "grpcio>=1.60"),
    "aetcd": ("aetcd==1.0.0",),
    "etcd3gw": ("etcd3gw==2.7.0",),
    "rust": ("etcd-client-py==0.5.1",),  # Rust's etcd-client, from Python
    # Its own tests import every driver, and so what each of them needs.
    "tooz": ("tooz==9.1.0", "etcd3gw==2.7.0", "testtools", "fixtures", "ddt", "sysv_ipc", "pymemcache", "redis"),
    "patroni": ("patroni[etcd3]==4.1.5", "psycopg[binary]>=3.2"),
}


def python_with(name: str) -> str:
    """The interpreter of an environment that holds what `name` needs. Skips, or on CI fails, when it cannot be made."""
    requirements = REQUIREMENTS[name]
    seal = hashlib.sha256("\n".join((sys.version, *requirements)).encode()).hexdigest()[:8]

    def install(folder: Path) -> None:
        _run([sys.executable, "-m", "venv", str(folder)])
        _run([f"{folder}/bin/pip", "install", "--quiet", "--disable-pip-version-check", *requirements])

    return str(_made(f"{name}-{seal}", install) / "bin" / "python")


def node_with_etcd3() -> tuple[str, dict[str, str]]:
    """node, and the environment in which client.js finds its packages. Skips, or on CI fails, when there is none."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        missing("node and npm are not installed")
    lock = (PROGRAMS / "node" / "package-lock.json").read_bytes()

    def install(folder: Path) -> None:
        folder.mkdir(parents=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(PROGRAMS / "node" / name, folder)
        _run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], folder)

    folder = _made(f"node-{hashlib.sha256(lock).hexdigest()[:8]}", install)
    return "node", {**os.environ, "NODE_PATH": str(folder / "node_modules")}


def missing(reason: str) -> NoReturn:
    """What a test cannot do without is not here."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def _made(name: str, install: Callable[[Path], None]) -> Path:
    """The folder, made by the first who asks; others, in other processes too, wait for it."""
    CACHE.mkdir(parents=True, exist_ok=True)
    folder = CACHE / name
    with open(CACHE / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = folder / ".complete"
        if not stamp.exists():
            shutil.rmtree(folder, ignore_errors=True)
            try:
                install(folder)
            except (OSError, subprocess.SubprocessError) as error:
                output = getattr(error, "stderr", None) or b""
                missing(f"{name} cannot be installed (no network?): {error}\n{output.decode(errors='replace')[-500:]}")
            stamp.touch()
    return folder


def _run(command: list[str], folder: Path | None = None) -> None:
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=INSTALL_SECONDS_MAX)


def library_commands() -> Iterator[tuple[str, Callable[[], tuple[list[str], dict[str, str]]]]]:
    """Per library: its name, and what makes the command that runs its program, to which words are added."""

    def python(name: str) -> tuple[list[str], dict[str, str]]:
        return [python_with(name), str(PROGRAMS / f"python_{name}.py")], dict(os.environ)

    def node() -> tuple[list[str], dict[str, str]]:
        program, environment = node_with_etcd3()
        return [program, str(PROGRAMS / "node" / "client.js")], environment

    for name in ("etcd3", "aetcd", "etcd3gw", "rust"):
        yield name, lambda name=name: python(name)
    yield "node", node


LIBRARIES = dict(library_commands())

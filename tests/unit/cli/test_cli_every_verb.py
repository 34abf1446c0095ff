"""What is wrong with a command line is said in one line, with exit code 2, by every verb and action, before anybody is asked."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from raftkv_cli.spec import Option, Verb
from raftkv_cli.verbs import VERBS, load_verb

from .conftest import RunCli
from .fake_client import Cluster

CONTRACT = [
    "put",
    "get",
    "del",
    "txn",
    "watch",
    "lease",
    "lock",
    "elect",
    "job",
    "pool",
    "queue",
    "barrier",
    "counter",
    "member",
    "move-leader",
    "recover",
    "status",
    "health",
    "snapshot",
    "compact",
    "user",
    "role",
    "auth",
    "bench",
    "torch-proxy",
    "dev",
    "serve",
]
LOADED = {name: load_verb(name) for name in VERBS}
VALUED = [
    (name, option.name)
    for name, verb in LOADED.items()
    for option in verb.options
    if option.metavar and option.convert is not str and not verb.parses_itself
]


def words_of(verb: Verb) -> list[str]:
    """Arguments enough that only what is tested is wrong."""
    return ["1" for argument in verb.arguments if argument.required]


def expect_one_line(cli: RunCli, cluster: Cluster, *words: str) -> str:
    code, stdout, stderr = cli(*words)
    assert (code, stdout) == (2, b""), (words, stderr)
    assert stderr.startswith("raftkv"), words
    assert len(stderr.splitlines()) == 1, stderr
    assert "Traceback" not in stderr
    assert cluster.asked == []
    return stderr


def test_the_verbs_of_the_contract_exist() -> None:
    assert set(CONTRACT) <= set(VERBS)


@pytest.mark.parametrize("name", sorted(VERBS))
def test_an_option_that_does_not_exist(cli: RunCli, cluster: Cluster, name: str) -> None:
    assert "--no-such" in expect_one_line(cli, cluster, name, *words_of(LOADED[name]), "--no-such")


@pytest.mark.parametrize("name", sorted(VERBS))
def test_an_argument_too_many(cli: RunCli, cluster: Cluster, name: str) -> None:
    expect_one_line(cli, cluster, name, *["x"] * 40)


@pytest.mark.parametrize("name", [name for name in sorted(VERBS) if words_of(LOADED[name])])
def test_an_argument_too_few(cli: RunCli, cluster: Cluster, name: str) -> None:
    assert "missing" in expect_one_line(cli, cluster, name)


NONSENSE = ["", "-1e999", "nan", "two\nlines", "\udcff", "1" * 5000]
FINE = {("put", "--lease", "-1e999"), ("dev", "--cluster-name", "nan")}  # a hexadecimal number, a name


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [(*pair, value) for pair in VALUED for value in NONSENSE if (*pair, value) not in FINE],
)
def test_a_value_that_is_none(cli: RunCli, cluster: Cluster, name: str, option: str, value: str) -> None:
    assert option in expect_one_line(cli, cluster, name, *words_of(LOADED[name]), option, value)


@pytest.mark.parametrize(("name", "option"), VALUED)
def test_an_option_without_its_value(cli: RunCli, cluster: Cluster, name: str, option: str) -> None:
    assert option in expect_one_line(cli, cluster, name, *words_of(LOADED[name]), option)


@pytest.mark.parametrize("name", sorted(VERBS))
def test_help_fits_and_tells_every_option(cli: RunCli, name: str) -> None:
    text = cli(name, "--help").stdout.decode()
    verb = LOADED[name]
    assert all(option.name in text for option in verb.options)
    assert max(map(len, text.splitlines())) <= 112
    assert "None" not in text


def documented(project: Path) -> dict[str, str]:
    """Of each verb, its part of docs/cli.md."""
    parts = re.split(r"^## ", (project / "docs" / "cli.md").read_text(), flags=re.MULTILINE)
    found: dict[str, str] = {}
    for part in parts:
        for name in re.findall(r"`([a-z-]+)`", part.splitlines()[0]):
            found[name] = part
    return found


@pytest.mark.parametrize("name", sorted(set(VERBS) - {"serve", "version"}))
def test_every_option_is_in_its_part_of_the_manual(project: Path, name: str) -> None:
    part = documented(project)[name]
    missing = [option.name for option in LOADED[name].options if f"{option.name}" not in part]
    assert missing == []


def run_for_real(project: Path, *words: bytes, **pipes: object) -> "subprocess.CompletedProcess[bytes]":
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(project), str(project / "cli")))}
    environment.pop("RAFTKV_ENDPOINTS", None)
    command = [sys.executable.encode(), b"-m", b"raftkv_cli", *words]
    return subprocess.run(command, env=environment, stderr=subprocess.PIPE, timeout=60, check=False, **pipes)  # type: ignore[call-overload,no-any-return]


@pytest.mark.parametrize("name", ["get", "lock", "semaphore", "pool", "job", "lease"])
def test_bytes_that_are_no_text(project: Path, name: str) -> None:
    done = run_for_real(project, name.encode(), b"--no-such-\xff\xfe", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert (done.returncode, done.stdout) == (2, b"")
    assert len(done.stderr.splitlines()) == 1, done.stderr


def test_options_are_named_once() -> None:
    for verb in LOADED.values():
        names = [option.name for option in verb.options if isinstance(option, Option)]
        assert len(names) == len(set(names))

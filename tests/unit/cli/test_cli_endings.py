"""Every ending of a command line: errors to exit codes, one line on stderr, nothing asked of the cluster for bad usage."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from raftkv import errors
from raftkv_cli.verbs import VERBS

from .conftest import RunCli
from .fake_client import Cluster

BAD_USAGE = [
    ([], "a verb is missing"),
    (["frobnicate"], "unknown verb 'frobnicate'"),
    (["gett", "k"], "did you mean get?"),
    (["--no-such", "get", "k"], "unknown option --no-such"),
    (["get"], "KEY is missing"),
    (["get", ""], "KEY is empty"),
    (["get", "a", "b"], "unexpected argument 'b'"),
    (["get", "k", "--prefx"], "did you mean --prefix?"),
    (["get", "k", "--prefix", "--range-end", "z"], "exclude each other"),
    (["get", "k", "--prefix", "--keys-only", "--count-only"], "exclude each other"),
    (["get", "k", "--limit", "3"], "--limit needs --prefix or --range-end"),
    (["get", "k", "--sort", "mod"], "--sort needs"),
    (["get", "k", "--prefix", "--limit", "0"], "--limit '0' is not within 1"),
    (["get", "k", "--prefix", "--sort", "size"], "--sort 'size' is none of"),
    (["get", "k", "--rev", "-3"], "--rev '-3' is not within 1"),
    (["get", "k", "--range-end", ""], "--range-end is empty"),
    (["get", "k", "-o", "yaml"], "--output 'yaml' is none of"),
    (["get", "k", "--timeout", "soon"], "--timeout 'soon'"),
    (["get", "k", "--timeout", "-1"], "--timeout '-1'"),
    (["get", "k", "--timeout"], "--timeout needs a value"),
    (["get", "k", "--endpoints", "nonsense"], "--endpoints: "),
    (["get", "k", "--endpoints", "127.0.0.1:99999"], "127.0.0.1:99999"),
    (["get", "k", "--cluster-name", ""], "--cluster-name is empty"),
    (["put", "k"], "VALUE is missing"),
    (["put", "", "v"], "KEY is empty"),
    (["put", "k", "v", "w"], "unexpected argument 'w'"),
    (["del"], "KEY is missing"),
    (["del", ""], "KEY is empty"),
    (["del", "k", "--prefix", "--range-end", "z"], "exclude each other"),
    (["txn", "a", "b"], "unexpected argument 'b'"),
    (["status", "n1"], "unexpected argument 'n1'"),
    (["health", "n1"], "unexpected argument 'n1'"),
    (["move-leader", "n1", "n2"], "unexpected argument 'n2'"),
    (["bench"], "KIND is missing"),
    (["bench", "scan"], "KIND 'scan' is none of put, get"),
    (["bench", "put", "--in-flight", "0"], "--in-flight '0'"),
    (["bench", "put", "--in-flight", "2", "--processes", "3"], "--processes 3 needs"),
    (["bench", "put", "--seconds", "-1"], "--seconds '-1'"),
    (["dev", "--nodes", "0"], "--nodes '0'"),
    (["dev", "--port", "70000"], "--port '70000'"),
    (["dev", "--port", "65533"], "leaves no room"),
    (["dev", "--data-dir", ""], "--data-dir is empty"),
    (["dev", "--endpoints", "a:1"], "unknown option --endpoints"),
    (["--endpoints", "a:1", "dev"], "--endpoints before dev means nothing"),
    (["--timeout", "3", "serve"], "--timeout before serve means nothing"),
    (["dev", "--cluster-name", "two words"], "--cluster-name 'two words' must be 1 to 64 letters"),
    (["serve", "--no-such"], "--no-such"),
    (["serve", "stray"], "stray"),
    (["serve", "--name"], "--name"),
    (["semaphore", "s", "--", "true"], "--capacity is required"),
    (["semaphore", "", "--capacity", "1"], "NAME is empty"),
    (["semaphore", "s", "--capacity", "0"], "--capacity '0' is not within 1"),
    (["semaphore", "s", "--capacity", "2", "--weight", "3"], "--weight 3 is more than --capacity 2"),
    (["semaphore", "s", "--queue", "--resize", "2"], "exclude each other"),
    (["semaphore", "s", "--queue", "--", "true"], "--queue runs no command"),
    (["version", "now"], "unexpected argument 'now'"),
]


@pytest.mark.parametrize(("words", "complaint"), BAD_USAGE, ids=[" ".join(words) for words, _ in BAD_USAGE])
def test_bad_usage_is_one_line_and_nothing_is_asked(
    cli: RunCli, cluster: Cluster, words: list[str], complaint: str
) -> None:
    code, stdout, stderr = cli(*words)
    assert (code, stdout) == (2, b"")
    assert len(stderr.splitlines()) == 1
    assert stderr.startswith("raftkv")
    assert complaint in stderr
    assert cluster.asked == []


def test_a_bad_variable_is_named(cli: RunCli, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAFTKV_ENDPOINTS", "here and there")
    code, _, stderr = cli("get", "k")
    assert code == 2
    assert "RAFTKV_ENDPOINTS" in stderr
    assert cli("version").code == 0


ENDINGS = [
    (errors.NoQuorum(), 4, 4),
    (errors.NoQuorum(may_have_happened=True), 5, 4),
    (errors.Unreachable(), 4, 4),
    (errors.NotLeader(), 4, 4),
    (errors.ShuttingDown(), 4, 4),
    (errors.DeadlineExceeded(), 4, 4),
    (errors.DeadlineExceeded(may_have_happened=True), 5, 4),
    (errors.OutcomeUnknown(), 5, 1),
    (errors.LeadershipLost(), 5, 1),
    (errors.Overloaded(), 1, 1),
    (errors.KeyTooLarge(), 1, 1),
    (errors.ClusterMismatch(), 1, 1),
    (errors.KeyNotFound(), 3, 3),
    (errors.ConfigError(), 2, 2),
    (errors.Internal(), 5, 1),
]


@pytest.mark.parametrize(
    ("error", "code_of_write", "code_of_read"),
    ENDINGS,
    ids=[f"{error.code}-{error.may_have_happened}" for error, _, _ in ENDINGS],
)
def test_errors_become_exit_codes(
    cli: RunCli, cluster: Cluster, error: errors.RaftKVError, code_of_write: int, code_of_read: int
) -> None:
    cluster.error = error
    for words, expected in [
        (["put", "k", "v"], code_of_write),
        (["del", "k"], code_of_write),
        (["move-leader"], code_of_write),
        (["get", "k"], code_of_read),
        (["get", "k", "--prefix"], code_of_read),
        (["status"], code_of_read),
    ]:
        code, stdout, stderr = cli(*words)
        assert (code, stdout) == (expected, b""), words
        assert stderr.startswith(f"raftkv {words[0]}: {error.code}: ")
        assert len(stderr.splitlines()) == 1
        assert ("may have happened" in stderr) == (expected == 5 or error.code == "outcome_unknown")


def test_a_message_cannot_command_the_terminal(cli: RunCli, cluster: Cluster) -> None:
    cluster.error = errors.InvalidRequest("two\nlines and \x1b[31mred")
    assert cli("get", "k").stderr == "raftkv get: invalid_request: two lines and \\x1b[31mred\n"


def test_a_bug_is_no_traceback(cli: RunCli, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.members = None  # type: ignore[assignment]  # what a bug looks like
    code, _, stderr = cli("status")
    assert code == 1
    assert stderr.startswith("raftkv status: internal: TypeError")
    assert len(stderr.splitlines()) == 1
    monkeypatch.setenv("RAFTKV_DEBUG", "1")
    with pytest.raises(TypeError):
        cli("status")


def test_interrupt_is_quiet(cli: RunCli, cluster: Cluster) -> None:
    cluster.error = KeyboardInterrupt()  # type: ignore[assignment]  # raised where an error is
    assert cli("put", "k", "v") == (130, b"", "")


@pytest.mark.parametrize(
    ("script", "complaint"),
    [(b"", "the transaction is empty"), (b"nonsense\n", "line 1"), (b"\xff\xfe\n", "line 1"), (b"\nput k\n", "line 2")],
)
def test_a_bad_transaction_names_its_line(cli: RunCli, cluster: Cluster, script: bytes, complaint: str) -> None:
    code, stdout, stderr = cli("txn", stdin=script)
    assert (code, stdout) == (1, b"")
    assert stderr.startswith("raftkv txn: standard input: ")
    assert complaint in stderr
    assert cluster.asked == []


def test_a_missing_file_is_named(cli: RunCli, cluster: Cluster) -> None:
    code, _, stderr = cli("txn", "/no/such/file")
    assert code == 1
    assert stderr == "raftkv txn: /no/such/file: No such file or directory\n"


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["help"]])
def test_help(cli: RunCli, words: list[str]) -> None:
    code, stdout, stderr = cli(*words)
    assert (code, stderr) == (0, "")
    assert all(f"  {verb} " in stdout.decode() for verb in VERBS)


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_help_of_a_verb(cli: RunCli, verb: str) -> None:
    texts = {cli(*words).stdout for words in ([verb, "--help"], ["--help", verb], ["help", verb], [verb, "-h"])}
    assert len(texts) == 1
    (text,) = texts
    assert text.startswith(f"usage: raftkv {verb}".encode())


def environment(project: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join((str(project), str(project / "cli")))}


def test_a_reader_that_goes_away_is_no_error(project: Path) -> None:
    """`raftkv --help | true`: the pipe is closed before anything is written."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = [sys.executable, "-m", "raftkv_cli", "--help"]
    done = subprocess.run(command, stdout=write_end, stderr=subprocess.PIPE, env=environment(project), timeout=30)
    os.close(write_end)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_full_disk_behind_stdout_is_one_line(project: Path) -> None:
    command = [sys.executable, "-m", "raftkv_cli", "--help"]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, env=environment(project), timeout=30)
    assert done.returncode == 1
    assert done.stderr == b"raftkv: No space left on device\n"

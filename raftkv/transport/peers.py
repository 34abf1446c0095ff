"""All peers of one member: the links to them, the listener for them, and the calls that the owner gets.

The owner (daemon/loop.py) sees batches of messages and four events; it is never called from inside one of its own calls.
Messages of one loop turn share a frame and a write per peer, and the same entries are encoded once for all of them.
"""

import asyncio
import random
from typing import Callable, Mapping, Sequence

from raftkv.limits import Limits
from raftkv.transport.frames import PackedEntries, RoutedMessage
from raftkv.transport.handshake import CheckMember, Identity, PeerEvents
from raftkv.transport.links import Link, PeerStatistics
from raftkv.transport.listener import Listener
from raftkv.transport.peer_tls import PeerTls
from raftkv.transport.settings import LinkSettings
from raftkv.units import NodeId

_CLOSE_DEADLINE_S = 1.0


class PeerTransport:
    """The network port of a member. One event loop owns it; no method may be called from another thread."""

    def __init__(
        self,
        identity: Identity,
        events: PeerEvents,
        limits: Limits,
        *,
        check_member: CheckMember,
        settings: LinkSettings | None = None,
        draw: Callable[[], float] = random.random,
        tls: PeerTls | None = None,
    ) -> None:
        self.identity = identity
        self.limits = limits
        self.settings = settings or LinkSettings()
        self.check_member = check_member
        self.tls = tls
        self.draw = draw  # in [0, 1): the jitter of the backoff
        self._events = events
        self._listener = Listener(self)
        self._links: dict[NodeId, Link] = {}
        self._tasks: dict[Link, asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._flush_scheduled = False
        self._dropped_to: set[NodeId] = set()
        self._closed = False

    async def start(self, address: str) -> str:
        """Listen for peers on HOST:PORT; port 0 takes a free one. Returns the bound address. Raises OSError, ConfigError."""
        return await self._listener.start(address)

    def set_peers(self, peers: Mapping[NodeId, str]) -> None:
        """Whom to keep a link to: node id -> "host:port". Links come, go and change address; unchanged ones stay."""
        if self._closed:
            return
        for node_id, link in tuple(self._links.items()):
            if peers.get(node_id) != link.statistics.address:
                self._drop_link(node_id)
        for node_id, address in peers.items():
            if node_id not in self._links and node_id != self.identity.node_id:
                link = self._links[node_id] = Link(node_id, address, self)
                task = self._tasks[link] = asyncio.get_running_loop().create_task(link.run(), name=f"link to {address}")
                task.add_done_callback(_report_failure)

    def set_cluster_id(self, cluster_id: int) -> None:
        """The cluster id became known. Connections of members with another one end, and who refused us without it is asked again."""
        assert cluster_id > 0, "a cluster id is positive"
        if cluster_id != self.identity.cluster_id:
            self.identity.cluster_id = cluster_id
            for link in self._links.values():
                link.begin_anew()
            self._listener.close_refused()

    def send(self, messages: Sequence[RoutedMessage]) -> bool:
        """Queue for this loop turn's write. What cannot be queued is dropped; the peer is then reported unreachable. Whether all are queued."""
        is_whole = self._queue(messages)
        if not self._flush_scheduled:
            self._flush_scheduled = True
            asyncio.get_running_loop().call_soon(self._on_turn_end)
        return is_whole

    def send_at_once(self, messages: Sequence[RoutedMessage]) -> None:
        """Like send, and written before it returns, with whatever was queued before: for a batch that is complete."""
        self._queue(messages)
        self.flush()
        if self._dropped_to and not self._flush_scheduled:
            self._flush_scheduled = True
            asyncio.get_running_loop().call_soon(self._on_turn_end)

    def _queue(self, messages: Sequence[RoutedMessage]) -> bool:
        links = self._links
        is_whole = True
        for message in messages:
            link = links.get(message.target)
            if link is None or not link.queue(message):
                self._dropped_to.add(message.target)
                is_whole = False
        return is_whole

    def flush(self) -> None:
        """Write what is queued now instead of at the end of the turn, for example before handing work to the disk."""
        entries = PackedEntries()
        for link in self._links.values():
            link.flush(entries)

    def is_connected(self, node_id: NodeId) -> bool:
        """Whether a message to the peer would be written, not dropped."""
        link = self._links.get(node_id)
        return link is not None and link.statistics.connected

    def introductions(self) -> dict[NodeId, str]:
        """Where those who have connected to here say that they listen: fresher than the log, for one that has moved."""
        return {
            node_id: connection.hello.address
            for node_id, connection in self._listener.established.items()
            if connection.hello is not None and connection.hello.address
        }

    def recheck(self) -> None:
        """Somebody is no member any more: connections of those that would be refused now end."""
        self._listener.close_refused()

    def statistics(self) -> dict[NodeId, PeerStatistics]:
        """The figures of every peer that has a link."""
        return {node_id: link.snapshot_statistics() for node_id, link in self._links.items()}

    @property
    def connections_refused(self) -> int:
        """Connections to the peer port that were not let in."""
        return self._listener.refused

    async def close(self) -> None:
        """Say goodbye to everybody and end. Nothing is reported from here on."""
        self._closed = True
        self.flush()
        for node_id in tuple(self._links):
            self._drop_link(node_id)
        await self._listener.close()
        if self._ending:
            await asyncio.wait(self._ending, timeout=_CLOSE_DEADLINE_S)

    def _drop_link(self, node_id: NodeId) -> None:
        task = self._tasks.pop(self._links.pop(node_id))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        task.cancel()

    def _on_turn_end(self) -> None:
        self._flush_scheduled = False
        self.flush()
        if self._dropped_to and not self._closed:
            dropped_to, self._dropped_to = self._dropped_to, set()
            for node_id in dropped_to:
                self._events.on_peer_unreachable(node_id)

    # From the links.

    def on_link_up(self, node_id: NodeId) -> None:
        if not self._closed:
            self._events.on_peer_connected(node_id)

    def on_link_down(self, node_id: NodeId) -> None:
        if not self._closed:
            self._events.on_peer_unreachable(node_id)

    def on_link_dropped(self, node_id: NodeId) -> None:
        # Found while flushing, perhaps from inside a call of the owner: reported at the end of the turn.
        self._dropped_to.add(node_id)
        if not self._flush_scheduled:
            self._flush_scheduled = True
            asyncio.get_running_loop().call_soon(self._on_turn_end)

    # From the listener.

    def on_incoming_messages(self, node_id: NodeId, messages: list[RoutedMessage], received_bytes: int) -> None:
        link = self._links.get(node_id)
        if link is not None:
            link.statistics.bytes_received += received_bytes
            link.statistics.messages_received += len(messages)
        if messages and not self._closed:
            self._events.on_messages(messages)

    def on_incoming_up(self, node_id: NodeId) -> None:
        link = self._links.get(node_id)
        if link is not None:
            link.statistics.accepted = True
            link.wake()

    def on_incoming_down(self, node_id: NodeId, reset: bool) -> None:
        link = self._links.get(node_id)
        if link is not None:
            link.statistics.accepted = False
        if reset and not self._closed:
            self._events.on_peer_reset(node_id)


def _report_failure(task: "asyncio.Task[None]") -> None:
    """A link never ends by itself: if it did, that is a bug, and the loop's exception handler decides about the process."""
    if not task.cancelled() and task.exception() is not None:
        context = {"message": f"{task.get_name()} failed", "exception": task.exception(), "task": task}
        task.get_loop().call_exception_handler(context)


__all__ = ["PeerTransport"]

"""The other members as this one sees them: who they are, where they are, who is let in, and what follows from their refusals.

Three sources, the freshest first: what a member says when it connects (it may have moved), the log, and what `member.json` was
given at the beginning. Whoever is not known here but belongs to the same cluster is let in: this member may have been away while
all others were replaced, and could never learn that otherwise. Former members are refused in words that make them stop.
"""

from pathlib import Path
from typing import Callable

from raftkv.daemon.membership import Incarnations, Membership
from raftkv.daemon.storage import Storage
from raftkv.errors import ClusterMismatch, RaftKVError
from raftkv.raft.node import Raft
from raftkv.transport.frames import Hello
from raftkv.transport.handshake import REMOVED
from raftkv.transport.peer_tls import PeerTls
from raftkv.transport.peers import PeerTransport
from raftkv.units import NodeId

REFUSED = "refused: "  # how the transport marks a peer's own words


class Neighbours:
    """Of one member. `on_refused`: it waits in vain; `on_removed`: it is no member any more."""

    def __init__(
        self,
        membership: Membership,
        directory: Path,
        storage: Storage,
        raft: Raft,
        *,
        on_refused: Callable[[RaftKVError], None],
        on_removed: Callable[[], None],
        tls: PeerTls | None = None,
    ) -> None:
        self._membership = membership
        self._storage = storage
        self._raft = raft
        self._incarnations = Incarnations(directory)
        self._on_refused = on_refused
        self._on_removed = on_removed
        self._removed_count = 0
        if tls is not None:
            tls.known = self.places

    def places(self) -> dict[NodeId, tuple[str, str]]:
        """Name and peer address of every member, as they are written down: not as somebody says who greets."""
        found = self._membership.peers()
        for member in self._storage.members():
            address = member["peer_address"] or found.get(member["id"], ("", ""))[1]
            found[member["id"]] = (member["name"], address)
        return found

    def check(self, hello: Hello) -> str | None:
        """Why whoever greets is not let in; None when it is."""
        node_id = hello.node_id
        if self._storage.store.is_removed(node_id):
            if hello.cluster_id:  # the same one: that was compared already
                return f"member {hello.name!r} {REMOVED}"
            # Final for whoever hears it, and it may mean the cluster that this one was recovered from.
            return f"member {hello.name!r} ({node_id:x}) is not part of this cluster, and does not know yet of which"
        known = self.places()
        if node_id in known:
            return self._incarnations.check(node_id, known[node_id][0], hello.incarnation)
        if self._storage.cluster_id and hello.cluster_id:  # the same one: that was compared already
            return self._incarnations.check(node_id, hello.name, hello.incarnation)
        return f"member {hello.name!r} ({node_id:x}) is not part of this cluster"

    def follow(self, peers: PeerTransport) -> None:
        """Keep links to whom the log and the others name, and none to former members."""
        removed = self._storage.removed_members()
        addresses = {node_id: address for node_id, (_, address) in self.places().items() if address}
        addresses.update(peers.introductions())
        for node_id in (self._membership.node_id, *removed):
            addresses.pop(node_id, None)
        peers.set_peers(addresses)
        if self._storage.cluster_id:
            peers.set_cluster_id(self._storage.cluster_id)
        if len(removed) != self._removed_count:
            self._removed_count = len(removed)
            peers.recheck()
        if self._membership.node_id in removed:
            self._on_removed()
        self._heed_refusals(peers)

    def _heed_refusals(self, peers: PeerTransport) -> None:
        """A member that a majority will not talk to (its disk was replaced, say) waits in vain: it says why and ends.

        That it was removed is said by somebody who has applied it, which is final: one is enough.
        """
        refusals = [
            peer.last_error.removeprefix(REFUSED)
            for peer in peers.statistics().values()
            if not peer.connected and peer.last_error.startswith(REFUSED)
        ]
        if any(refusal.endswith(REMOVED) for refusal in refusals):
            self._on_removed()
        elif len(refusals) > len(self._raft.configuration.voters or self._membership.peers()) // 2:
            self._on_refused(ClusterMismatch(f"a majority of the cluster refuses this member: {refusals[0]}"))


__all__ = ["Neighbours"]

"""Who this member is and whom it has met: the two small files of a data directory that are neither log nor store.

`member.json` is made with the directory: the member's name, its random incarnation and the initial cluster, which counts
only until the cluster's own records are in the log. `peers.json` keeps the first incarnation seen of every other member:
a member that comes back with another one has lost its disk, and could elect a leader that lacks acknowledged writes.
"""

import hashlib
import json
import os
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path

from raftkv.errors import Corruption
from raftkv.raft.messages import Configuration
from raftkv.units import NodeId

_POSITIVE_63_BITS = (1 << 63) - 1


def node_id_of(cluster_name: str, name: str) -> NodeId:
    """The id of an initial member: derived, so that all founders agree on it without talking."""
    digest = hashlib.sha256(f"raftkv member\0{cluster_name}\0{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") & _POSITIVE_63_BITS or 1


@dataclass(frozen=True, slots=True)
class Membership:
    """What `member.json` holds."""

    cluster_name: str
    name: str
    node_id: NodeId
    incarnation: int
    initial_cluster: dict[str, str]  # member name -> peer address, of those that were there at the beginning
    format: int = 1
    cluster_id: int = 0  # of the cluster that was joined; founders learn it from the log
    ids: dict[str, NodeId] = field(default_factory=dict)  # of the members that were found by one who joined
    removed: bool = False  # no member any more, for ever

    @classmethod
    def found(cls, cluster_name: str, name: str, initial_cluster: dict[str, str]) -> "Membership":
        """A new member with an incarnation of its own."""
        assert name in initial_cluster, "a founder is part of the initial cluster"
        incarnation = secrets.randbits(63) or 1
        return cls(cluster_name, name, node_id_of(cluster_name, name), incarnation, dict(initial_cluster))

    def peers(self) -> dict[NodeId, tuple[str, str]]:
        """Every initial member by id: name and peer address; this one included."""
        return {
            self.ids.get(name) or node_id_of(self.cluster_name, name): (name, address)
            for name, address in self.initial_cluster.items()
        }

    def initial_configuration(self) -> Configuration:
        """What counts until the log says more: the founders; nobody for one who joined, because the log tells it."""
        return Configuration(frozenset() if self.ids else frozenset(self.peers()))


def load_membership(directory: Path) -> Membership | None:
    """The membership of a data directory; None when it is new. Raises Corruption for a file that cannot be read."""
    path = directory / "member.json"
    try:
        return Membership(**json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise Corruption(
            f"{path}: cannot be read ({error}): remove the member from the cluster, delete its data directory, add it anew"
        ) from error


def save_membership(directory: Path, membership: Membership) -> None:
    """Durable when it returns."""
    write_durably(directory / "member.json", asdict(membership))


class Incarnations:
    """The incarnations of the other members, as first seen. Durable before a peer is believed."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "peers.json"
        self._seen: dict[str, int] = {}
        try:
            self._seen = json.loads(self._path.read_text())
        except FileNotFoundError:
            pass
        except ValueError as error:
            raise Corruption(
                f"{self._path}: cannot be read ({error}): restore it or remove and re-add this member"
            ) from error

    def check(self, node_id: NodeId, name: str, incarnation: int) -> str | None:
        """Why this peer is refused, or None. The first sight of a member is written down."""
        known = self._seen.get(str(node_id))
        if known is None:
            self._seen[str(node_id)] = incarnation
            write_durably(self._path, self._seen)
            return None
        if known == incarnation:
            return None
        return f"member {name}: its disk was replaced (another incarnation): run member remove, then add it anew"


def write_durably(path: Path, content: object) -> None:
    temporary = path.with_suffix(".tmp")
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.rename(temporary, path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)

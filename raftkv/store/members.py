"""Who the cluster is: its id and name, the settings that apply obeys, and what each member has published about itself.

The configuration (who votes) is the consensus core's; here it is only kept, as the bytes of the last applied entry, so that
it commits with the data and travels with a snapshot.
"""

from typing import Any, Final

import msgpack

from raftkv.errors import IncarnationMismatch, InvalidRequest
from raftkv.units import NodeId
from raftkv.wire.commands import Command
from raftkv.wire.settings import Settings, settings_from

_MEMBERS_MAX: Final = 1000
_NAME_BYTES_MAX: Final = 1024
_INT64_MAX: Final = 2**63 - 1


class Cluster:
    """Identity and member table. `cluster_id` is 0 until CREATE_CLUSTER was applied."""

    __slots__ = ("cluster_id", "cluster_name", "configuration", "members", "settings")

    def __init__(self, settings: Settings) -> None:
        self.cluster_id = 0
        self.cluster_name = ""
        self.settings = settings
        self.members: dict[NodeId, dict[str, Any]] = {}
        self.configuration = b""  # data of the last applied ENTRY_CONFIGURATION; empty before the first one

    def create(self, command: Command) -> None:
        """CREATE_CLUSTER. A second one changes nothing: a new leader may propose it before it has seen the first.

        Raises InvalidRequest.
        """
        if len(command) not in (5, 6):
            raise InvalidRequest(f"CREATE_CLUSTER has 5 or 6 items, not {len(command)}")
        cluster_id, name, members = command[2:5]
        if type(cluster_id) is not int or not 0 < cluster_id <= _INT64_MAX or not _is_text(name):
            raise InvalidRequest("CREATE_CLUSTER has an id above 0 and a name")
        if type(members) is not list or len(members) > _MEMBERS_MAX or not all(map(_is_initial_member, members)):
            raise InvalidRequest("CREATE_CLUSTER lists members as id, name and peer address")
        settings = self.settings
        if len(command) == 6:
            given = settings_from(command[5])
            if given is None:
                raise InvalidRequest("CREATE_CLUSTER has settings that are no mapping of names to integers above 0")
            settings = given
        if self.cluster_id:
            return
        self.cluster_id, self.cluster_name, self.settings = cluster_id, name, settings
        for node_id, member_name, peer_address in members:
            self.members.setdefault(node_id, _member(node_id, member_name, None, "", peer_address, ""))

    def publish(self, command: Command) -> None:
        """PUBLISH_MEMBER: what a member says about itself. Raises InvalidRequest, or IncarnationMismatch for a replaced disk."""
        if len(command) != 8:
            raise InvalidRequest(f"PUBLISH_MEMBER has 8 items, not {len(command)}")
        _, _, node_id, name, incarnation, client_address, peer_address, version = command
        if not _is_node_id(node_id) or not all(map(_is_text, (name, client_address, peer_address, version))):
            raise InvalidRequest("PUBLISH_MEMBER has an id above 0 and texts")
        if not _is_incarnation(incarnation):
            raise InvalidRequest("an incarnation is an integer, a text or bytes")
        known = self.members.get(node_id)
        if known is None and len(self.members) >= _MEMBERS_MAX:
            raise InvalidRequest(f"a cluster has at most {_MEMBERS_MAX} members")
        if known is not None and known["incarnation"] not in (None, incarnation):
            raise IncarnationMismatch(details={"id": node_id, "name": known["name"]})
        self.members[node_id] = _member(node_id, name, incarnation, client_address, peer_address, version)

    def pack(self) -> bytes:
        """All of it as bytes, the same on every member; also what the digest folds."""
        members = [self.members[node_id] for node_id in sorted(self.members)]
        packed: bytes = msgpack.packb(
            [self.cluster_id, self.cluster_name, self.settings.to_items(), members, self.configuration],
            use_bin_type=True,
        )
        return packed


def unpack_cluster(data: bytes) -> Cluster:
    """Undo Cluster.pack."""
    cluster_id, name, settings_items, members, configuration = msgpack.unpackb(data)
    settings = settings_from(settings_items)
    assert settings is not None, "what was packed is a mapping"
    cluster = Cluster(settings)
    cluster.cluster_id, cluster.cluster_name, cluster.configuration = cluster_id, name, configuration
    cluster.members = {member["id"]: member for member in members}
    return cluster


def _member(
    node_id: NodeId, name: str, incarnation: Any, client_address: str, peer_address: str, version: str
) -> dict[str, Any]:
    return {
        "id": node_id,
        "name": name,
        "address": client_address,
        "peer_address": peer_address,
        "version": version,
        "incarnation": incarnation,
    }


def _is_node_id(value: Any) -> bool:
    return type(value) is int and 0 < value <= _INT64_MAX


def _is_text(value: Any) -> bool:
    return type(value) is str and len(value) <= _NAME_BYTES_MAX and value.isprintable()


def _is_incarnation(value: Any) -> bool:
    if type(value) is int:
        return 0 <= value <= _INT64_MAX
    return type(value) in (str, bytes) and len(value) <= _NAME_BYTES_MAX


def _is_initial_member(item: Any) -> bool:
    return type(item) is list and len(item) == 3 and _is_node_id(item[0]) and _is_text(item[1]) and _is_text(item[2])

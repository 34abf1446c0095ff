"""Who the cluster is: its id and name, the settings that apply obeys, and what each member has published about itself.

The configuration (who votes) is the consensus core's; here it is kept as the bytes of the last applied entry, so that it commits
with the data and travels with a snapshot. A member is recorded before a configuration names it, so that everybody knows where
it is; its record goes when a configuration names it no more, and its id never comes back.
"""

from typing import Any, Final

import msgpack

from raftkv.errors import IncarnationMismatch, InvalidRequest
from raftkv.raft.membership import decode_configuration
from raftkv.units import NodeId
from raftkv.wire.alarms import NOSPACE
from raftkv.wire.commands import PRIORITY_MAX, Command
from raftkv.wire.settings import Settings, settings_from

_MEMBERS_MAX: Final = 1000
_REMOVED_MAX: Final = 1000  # ids that are remembered, oldest forgotten first
_NAME_BYTES_MAX: Final = 1024
_INT64_MAX: Final = 2**63 - 1


class Cluster:
    """Identity and member table. `cluster_id` is 0 until CREATE_CLUSTER was applied."""

    __slots__ = (
        "alarms",
        "cluster_id",
        "cluster_name",
        "configuration",
        "downgrade",
        "full",
        "members",
        "removed",
        "settings",
    )

    def __init__(self, settings: Settings) -> None:
        self.cluster_id = 0
        self.cluster_name = ""
        self.settings = settings
        self.members: dict[NodeId, dict[str, Any]] = {}
        self.removed: dict[NodeId, None] = {}  # ids of former members, in the order of their end
        self.full: set[NodeId] = set()  # members whose store is over its quota
        self.alarms: set[tuple[int, int]] = set()  # raised by hand: number of a member, kind
        self.downgrade = ""  # the version that is announced
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
        if len(command) not in (8, 9):
            raise InvalidRequest(f"PUBLISH_MEMBER has 8 or 9 items, not {len(command)}")
        _, _, node_id, name, incarnation, client_address, peer_address, version = command[:8]
        priority = command[8] if len(command) == 9 else 0
        if type(priority) is not int or not 0 <= priority <= PRIORITY_MAX:
            raise InvalidRequest(f"a priority is an integer from 0 to {PRIORITY_MAX}")
        if not _is_node_id(node_id) or not all(map(_is_text, (name, client_address, peer_address, version))):
            raise InvalidRequest("PUBLISH_MEMBER has an id above 0 and texts")
        if not _is_incarnation(incarnation):
            raise InvalidRequest("an incarnation is an integer, a text or bytes")
        self._check_room(node_id)
        known = self.members.get(node_id)
        if known is not None and known["incarnation"] not in (None, incarnation):
            raise IncarnationMismatch(details={"id": node_id, "name": known["name"]})
        self.members[node_id] = record = _member(node_id, name, incarnation, client_address, peer_address, version)
        record["priority"] = priority
        if known is not None:
            record["pending"], record["wants_vote"] = known["pending"], known["wants_vote"]

    def record(self, command: Command) -> None:
        """RECORD_MEMBER: somebody who is about to become a member, or who has moved. Raises InvalidRequest."""
        if len(command) != 6:
            raise InvalidRequest(f"RECORD_MEMBER has 6 items, not {len(command)}")
        _, _, node_id, name, peer_address, wants_vote = command
        if not _is_node_id(node_id) or not _is_text(name) or not _is_text(peer_address) or type(wants_vote) is not bool:
            raise InvalidRequest("RECORD_MEMBER has an id above 0, two texts and a flag")
        self._check_room(node_id)
        if any(name and other["name"] == name and other["id"] != node_id for other in self.members.values()):
            raise InvalidRequest(f"the name {name!r} is taken by another member")
        record = self.members.setdefault(node_id, _member(node_id, name, None, "", peer_address, "", pending=True))
        record["peer_address"], record["wants_vote"] = peer_address, wants_vote
        record["name"] = record["name"] or name  # whoever was announced by its address alone has come

    def forget(self, command: Command) -> None:
        """FORGET_MEMBER: a record that no configuration ever named. Raises InvalidRequest."""
        if len(command) != 3 or not _is_node_id(command[2]):
            raise InvalidRequest("FORGET_MEMBER has an id above 0")
        record = self.members.get(command[2])
        if record is None or not record["pending"]:
            raise InvalidRequest(f"member {command[2]} is not a record without a configuration")
        self._remove(command[2])

    def set_alarm(self, command: Command) -> None:
        """SET_ALARM. Of somebody who is no member it changes nothing: it may have been removed meanwhile. Raises InvalidRequest."""
        if len(command) != 4 or not _is_node_id(command[2]) or type(command[3]) is not bool:
            raise InvalidRequest("SET_ALARM has an id above 0 and a flag")
        node_id, on = command[2:]
        if on and node_id in self.members:
            self.full.add(node_id)
        elif not on:
            self.full.discard(node_id)

    def full_names(self) -> list[str]:
        """By name, those whose store is over its quota."""
        return sorted(self._name_of(node_id) for node_id in self.full)

    def alarm_names(self, kind: int) -> list[str]:
        """By name, those for whom an alarm of this kind was raised, by themselves or by hand."""
        return sorted(self._name_of(node_id) for node_id, its_kind in self.all_alarms() if its_kind == kind)

    def all_alarms(self) -> list[tuple[int, int]]:
        """Number of the member and kind of each alarm, in order."""
        return sorted({*((node_id, NOSPACE) for node_id in self.full), *self.alarms})

    def raise_alarm(self, member: int, kind: int, on: bool) -> bool:
        """ALARM, which is valid. Whether there is an alarm because of it, or was one until now.

        What a member has raised because of its quota is taken back too: it says so again if it has to.
        """
        alarm = (member, kind)
        if on:
            self.alarms.add(alarm)
            return True
        was_raised = alarm in self.all_alarms()
        self.alarms.discard(alarm)
        if kind == NOSPACE:
            self.full.discard(member)
        return was_raised

    def announce_downgrade(self, target: str) -> bool:
        """DOWNGRADE, which is valid. False: one is announced already, or there is none to take back."""
        if bool(target) == bool(self.downgrade):
            return False
        self.downgrade = target
        return True

    def _name_of(self, node_id: int) -> str:
        member = self.members.get(node_id)
        return (member["name"] if member is not None else "") or f"{node_id:x}"

    def configure(self, data: bytes) -> None:
        """A configuration takes effect in the state machine: who is in it is a member, who is not any more is gone for good."""
        self.configuration = data
        configuration = decode_configuration(data)
        present = configuration.members() | configuration.learners_next
        for node_id in sorted(self.members):  # not in the order in which they came, which a snapshot forgets
            record = self.members[node_id]
            if node_id in present:
                record["pending"] = False
                record["wants_vote"] = record["wants_vote"] and node_id not in configuration.voters
            elif not record["pending"]:
                self._remove(node_id)

    def refound(
        self, cluster_id: int, cluster_name: str, node_id: NodeId, name: str, peer_address: str, configuration: bytes
    ) -> None:
        """Another cluster, of one member; its settings stay."""
        self.removed.update(dict.fromkeys(self.members))
        self.cluster_id, self.cluster_name, self.configuration = cluster_id, cluster_name, configuration
        self.full.clear()
        self.alarms.clear()
        self.downgrade = ""
        self.members = {node_id: _member(node_id, name, None, "", peer_address, "")}

    def _remove(self, node_id: NodeId) -> None:
        del self.members[node_id]
        self.full.discard(node_id)
        self.removed[node_id] = None
        if len(self.removed) > _REMOVED_MAX:
            del self.removed[next(iter(self.removed))]

    def _check_room(self, node_id: NodeId) -> None:
        if node_id in self.removed:
            raise InvalidRequest(f"member {node_id} was removed from the cluster")
        if node_id not in self.members and len(self.members) >= _MEMBERS_MAX:
            raise InvalidRequest(f"a cluster has at most {_MEMBERS_MAX} members")

    def pack(self) -> bytes:
        """All of it as bytes, the same on every member; also what the digest folds."""
        members = [self.members[node_id] for node_id in sorted(self.members)]
        later = [sorted(self.alarms), self.downgrade] if self.alarms or self.downgrade else []  # most never have any
        packed: bytes = msgpack.packb(
            [
                self.cluster_id,
                self.cluster_name,
                self.settings.to_items(),
                members,
                self.configuration,
                list(self.removed),
                sorted(self.full),
                *later,
            ],
            use_bin_type=True,
        )
        return packed


def unpack_cluster(data: bytes) -> Cluster:
    """Undo Cluster.pack."""
    cluster_id, name, settings_items, members, configuration, removed, full, *later = msgpack.unpackb(data)
    settings = settings_from(settings_items)
    assert settings is not None, "what was packed is a mapping"
    cluster = Cluster(settings)
    cluster.cluster_id, cluster.cluster_name, cluster.configuration = cluster_id, name, configuration
    cluster.members = {member["id"]: member for member in members}
    cluster.removed = dict.fromkeys(removed)
    cluster.full = set(full)
    if later:
        cluster.alarms, cluster.downgrade = {(member, kind) for member, kind in later[0]}, later[1]
    return cluster


def _member(
    node_id: NodeId,
    name: str,
    incarnation: Any,
    client_address: str,
    peer_address: str,
    version: str,
    *,
    pending: bool = False,
) -> dict[str, Any]:
    return {
        "id": node_id,
        "name": name,
        "address": client_address,
        "peer_address": peer_address,
        "version": version,
        "priority": 0,  # to lead
        "incarnation": incarnation,
        "pending": pending,  # recorded, and in no configuration yet
        "wants_vote": False,  # gets a vote as soon as it has caught up
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

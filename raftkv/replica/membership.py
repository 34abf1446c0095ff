"""Changes of the membership as use-cases (chapter 4): by name, step by step, one at a time, and only on the leader.

A new member is recorded through the log first, so that everybody can reach it, and is then made a learner; when it wants a vote,
the leader promotes it once it has caught up. A leader that is to go hands over first, and the request goes on at the next one.
What the core refuses (raft/changes.py) is refused before anything is recorded. Everything can be asked for again: what is
done already is not done twice. Sans-IO; ids are drawn by whoever owns this.
"""

import re
from dataclasses import dataclass, field
from typing import Any, Callable, Final, Mapping, Protocol, Sequence

from raftkv.errors import (
    InvalidRequest,
    LeadershipLost,
    MemberNotFound,
    MembershipBusy,
    MembershipRefused,
    OutcomeUnknown,
    PeerAddressTaken,
    RaftKVError,
    TransferRefused,
)
from raftkv.limits import Limits
from raftkv.raft.changes import Change
from raftkv.raft.node import Raft
from raftkv.replica.groups import ReadGroup, WriteGroup
from raftkv.replica.ports import AccessControl
from raftkv.units import Index, Milliseconds, NodeId
from raftkv.wire.commands import FORGET_MEMBER, OK, RECORD_MEMBER, Answer, Command, failure

SIZE_BYTES: Final = 256  # of a command, about
NAME_BYTES_MAX: Final = 256

_MEMBER_ID: Final = re.compile(r"\bmember (\d+)\b")
_ADDRESS: Final = re.compile(r"[^\s/@]+:\d{1,5}\Z")
_LISTS: Final = ("promote", "demote", "remove")

_TOLD: Final = (
    "id",
    "name",
    "address",
    "peer_address",
    "version",
    "wants_vote",
)  # of each member, when a change is done

Done = Callable[[Answer], None]


class MemberTable(Protocol):
    """What the replicated store knows of the members (store/members.py)."""

    @property
    def cluster_id(self) -> int: ...

    def members(self) -> Sequence[Mapping[str, Any]]: ...


@dataclass(frozen=True, slots=True)
class Newcomer:
    """Somebody to add. `learner` None: as it was announced, with a vote if it was not; `incarnation` None: whoever starts under that
    name. An empty `name`: whoever comes with that address gives it one."""

    name: str
    peer_address: str
    learner: bool | None
    incarnation: int | None


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asks for; members by name, or by id as text."""

    add: tuple[Newcomer, ...] = ()
    promote: tuple[str, ...] = ()
    demote: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    move: tuple[tuple[str, str], ...] = ()  # members and the peer addresses where they are to be looked for
    force: bool = False


@dataclass(slots=True)
class _Job:
    """The request that runs. `index`: of the configuration that is waited for, 0 before there is one."""

    request: Request
    done: Done
    deadline_ms: Milliseconds
    change: Change
    ids: dict[str, NodeId]
    commands: list[Command] = field(default_factory=list)
    index: Index = 0
    hands_over: bool = False


def read_request(mapping: Any) -> Request:
    """The request in a CHANGE_MEMBERS. Raises InvalidRequest."""
    if type(mapping) is not dict or set(mapping) - {"add", *_LISTS, "move", "force"}:
        raise InvalidRequest("a membership change is a mapping of add, promote, demote, remove, move and force")
    lists: dict[str, tuple[str, ...]] = {}
    for key in _LISTS:
        names = mapping.get(key, [])
        if type(names) is not list or not all(map(_is_name, names)):
            raise InvalidRequest(f"{key} of a membership change lists names")
        lists[key] = tuple(names)
    add, move, force = mapping.get("add", []), mapping.get("move", []), mapping.get("force", False)
    if type(add) is not list or type(move) is not list or type(force) is not bool:
        raise InvalidRequest("add and move of a membership change are lists, force is a flag")
    return Request(add=tuple(map(_read_newcomer, add)), move=tuple(map(_read_move, move)), force=force, **lists)


def _read_move(item: Any) -> tuple[str, str]:
    if type(item) is not list or len(item) != 2 or not _is_name(item[0]):
        raise InvalidRequest("a move is the name of a member and a peer address")
    _check_address(item[1])
    return item[0], item[1]


def _check_address(peer_address: Any) -> None:
    if not _is_name(peer_address) or not _ADDRESS.match(peer_address):
        raise InvalidRequest(f"a peer address is HOST:PORT, not {peer_address!r}")


def _read_newcomer(item: Any) -> Newcomer:
    if type(item) is not list or len(item) != 4:
        raise InvalidRequest("a new member is its name, its peer address, whether it only learns, and its incarnation")
    name, peer_address, learner, incarnation = item
    if not (name == "" or _is_name(name)) or type(learner) not in (bool, type(None)):
        raise InvalidRequest("a new member has a name, or an empty one until it comes")
    _check_address(peer_address)
    if incarnation is not None and (type(incarnation) is not int or incarnation <= 0):
        raise InvalidRequest("an incarnation is an integer above 0")
    return Newcomer(name, peer_address, learner, incarnation)


def _check_free(peer_address: str, table: Sequence[Mapping[str, Any]], but: NodeId | None) -> None:
    """Raises PeerAddressTaken when somebody else than the member `but` is there."""
    for other in table:
        if other["peer_address"] == peer_address and other["id"] != but:
            who = repr(other["name"]) if other["name"] else str(other["id"])
            raise PeerAddressTaken(f"{peer_address} is the peer address of member {who}")


def _is_name(value: Any) -> bool:
    return type(value) is str and 0 < len(value) <= NAME_BYTES_MAX and value.isprintable()


def with_names(message: str, members: Sequence[Mapping[str, Any]]) -> str:
    """The core knows members by their ids only; people know their names."""
    names = {str(member["id"]): member["name"] for member in members}
    return _MEMBER_ID.sub(lambda found: f"member {names.get(found[1]) or found[1]}", message)


class Reconfiguration:
    """The desk where changes are asked for. Also the origin of the records that it proposes."""

    takes_answers = True

    def __init__(
        self,
        raft: Raft,
        table: MemberTable,
        limits: Limits,
        *,
        submit: Callable[[WriteGroup], None],
        elsewhere: Callable[[], RaftKVError],
        draw_id: Callable[[], NodeId],
    ) -> None:
        self._raft = raft
        self._table = table
        self._limits = limits
        self._submit = submit
        self._elsewhere = elsewhere
        self._draw_id = draw_id
        self._job: _Job | None = None

    # Asking.

    def ask(self, request: Request, done: Done, now_ms: Milliseconds, deadline_ms: Milliseconds) -> None:
        """Carry the request out; `done` gets [OK, mapping] once it is applied here, or a failure."""
        if not self._raft.is_leader:
            done(failure(self._elsewhere()))
        elif self._job is not None:
            done(failure(MembershipBusy("another membership change is running")))
        else:
            try:
                self._job = self._plan(request, done, deadline_ms)
                self._begin(self._job, now_ms)
            except RaftKVError as error:
                self._job = None
                done(failure(self._named(error)))

    def ask_for(self, group: WriteGroup, access: AccessControl, now_ms: Milliseconds) -> None:
        """Carry out the one CHANGE_MEMBERS in a group: of a door whose clients cannot be sent to the leader, or of another member's."""
        try:
            access.check(group.commands[0], group.user, group.auth_revision)
            request = read_request(group.commands[0][1])
        except LookupError as error:
            group.origin.on_refused(group, InvalidRequest(str(error)))
            return
        except RaftKVError as error:
            group.origin.on_refused(group, error)
            return
        self.ask(request, lambda answer: group.origin.on_answers(group, [answer]), now_ms, group.deadline_ms)

    def _plan(self, request: Request, done: Done, deadline_ms: Milliseconds) -> _Job:
        """Names become ids, and what is done already falls away. Raises MembershipRefused."""
        table = self._table.members()
        records = {member["name"]: member for member in table if member["name"]}
        by_id = {str(member["id"]): member for member in table}
        now = self._raft.configuration
        ids: dict[str, NodeId] = {}
        commands: list[Command] = []
        for newcomer in request.add:
            record = self._record_of(newcomer, table)
            ids[newcomer.name] = node_id = self._draw_id() if record is None else record["id"]
            announced = newcomer.learner is None and record is not None
            wants_vote = record["wants_vote"] if record is not None and announced else not newcomer.learner
            wants_vote = wants_vote and node_id not in now.voters
            wanted = (newcomer.name, newcomer.peer_address, wants_vote)
            if record is None or (record["name"], record["peer_address"], record["wants_vote"]) != wanted:
                commands.append([RECORD_MEMBER, 0, node_id, *wanted])
        chosen: dict[str, frozenset[NodeId]] = {}
        for key, names in (("promote", request.promote), ("demote", request.demote), ("remove", request.remove)):
            found = []
            for name in names:
                record = records.get(name) or by_id.get(name)
                if record is None:
                    raise MemberNotFound(f"there is no member {name!r}")
                if key == "remove" and record["id"] not in now.members():
                    commands.append([FORGET_MEMBER, 0, record["id"]])
                else:
                    found.append(record["id"])
            chosen[key] = frozenset(found)
        for name, peer_address in request.move:
            record = records.get(name) or by_id.get(name)
            if record is None:
                raise MemberNotFound(f"there is no member {name!r}")
            _check_free(peer_address, table, record["id"])
            commands.append([RECORD_MEMBER, 0, record["id"], record["name"], peer_address, record["wants_vote"]])
        change = Change(learn=frozenset(ids.values()) - now.members(), **chosen)
        if change.named():
            self._raft.check_change(change, force=request.force)
        return _Job(request, done, deadline_ms, change, ids, commands)

    def _record_of(self, newcomer: Newcomer, table: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
        """The record that the newcomer has already, when it was asked for before. Raises MembershipRefused."""
        record = next((member for member in table if newcomer.name and member["name"] == newcomer.name), None)
        if record is None and newcomer.name:
            announced = [member for member in table if not member["name"] and member["incarnation"] is None]
            record = next((one for one in announced if one["peer_address"] == newcomer.peer_address), None)
        _check_free(newcomer.peer_address, table, None if record is None else record["id"])
        if record is None:
            if len(table) >= self._limits.members_max:
                raise MembershipRefused(f"a cluster has at most {self._limits.members_max} members")
            return None
        if record["incarnation"] in (None, newcomer.incarnation):
            return record
        raise MembershipRefused(
            f"there is a member {newcomer.name!r} already; if its disk was replaced, remove it first, or take another name"
        )

    # Steps.

    def _begin(self, job: _Job, now_ms: Milliseconds) -> None:
        going = job.change.remove | job.change.demote
        if self._raft.node_id in going and self._hand_over(job, going):
            return
        if job.commands:
            group = WriteGroup(
                self,
                [0] * len(job.commands),
                job.commands,
                size_bytes=SIZE_BYTES * len(job.commands),
                deadline_ms=job.deadline_ms,
            )
            self._submit(group)
        else:
            self._configure(job)

    def _hand_over(self, job: _Job, going: frozenset[NodeId]) -> bool:
        """False: there is nobody to hand over to, so that this leader removes itself (4.2.2)."""
        raft = self._raft
        if not raft.configuration.voters - going - {raft.node_id}:
            return False
        try:
            raft.transfer_leadership(avoid=going)
        except TransferRefused:
            if job.request.force:
                return False
            raise
        job.hands_over = True
        return True

    def _configure(self, job: _Job) -> None:
        if not job.change.named():
            self._finish(job)
            return
        job.index, _ = self._raft.propose_change(job.change, force=job.request.force)

    def _finish(self, job: _Job) -> None:
        self._job = None
        voters = self._raft.configuration.voters
        members = [
            {key: member[key] for key in _TOLD} | {"voter": member["id"] in voters} for member in self._table.members()
        ]
        job.done([OK, {"ids": job.ids, "members": members, "cluster_id": self._table.cluster_id}])

    def _fail(self, error: RaftKVError) -> None:
        job, self._job = self._job, None
        if job is not None:
            job.done(failure(self._named(error)))

    def _named(self, error: RaftKVError) -> RaftKVError:
        named = with_names(error.message, self._table.members())
        return type(error)(named, details=error.details, may_have_happened=error.may_have_happened)

    # What happens.

    def on_answers(self, group: WriteGroup | ReadGroup, answers: Sequence[Answer]) -> None:
        """The records are applied (or refused by apply)."""
        job = self._job
        if job is None or job.commands is not group.commands:
            return
        refused = [answer for answer in answers if answer[0] != OK]
        if refused:
            self._job = None
            job.done(refused[0])
            return
        try:
            self._configure(job)
        except RaftKVError as error:
            self._fail(error)

    def on_refused(self, group: WriteGroup | ReadGroup, error: RaftKVError) -> None:
        """The records were not taken, or what became of them is not known."""
        job = self._job
        if job is not None and job.commands is group.commands:
            self._fail(error)

    def on_applied(self, index: Index) -> None:
        """Everything up to `index` is applied here: perhaps the configuration that is waited for, or the one that follows it."""
        job = self._job
        if job is None or not job.index or index < job.index:
            return
        raft = self._raft
        if raft.configuration.voters_outgoing or raft.configuration_index > index:
            job.index = raft.configuration_index if raft.configuration_index > index else index + 1
        else:
            self._finish(job)

    def on_office_lost(self) -> None:
        """This member leads no more: a hand-over has succeeded, anything else is somebody else's to end."""
        job = self._job
        if job is not None:
            self._fail(self._elsewhere() if job.hands_over else LeadershipLost())

    def tick(self, now_ms: Milliseconds) -> None:
        """A few times a second: requests that take too long, and learners that have caught up."""
        raft, job = self._raft, self._job
        if job is not None:
            # Between the loss of the office and the word of it nothing is known yet.
            if job.hands_over and raft.is_leader and not raft.is_transferring:
                self._fail(MembershipBusy("nobody took the leadership over from the member that is to go; it leads on"))
            elif job.deadline_ms <= now_ms:
                self._fail(OutcomeUnknown("the change is not finished yet; it goes on by itself"))
        elif raft.is_leader and raft.configuration.learners:
            self._promote_who_wants_it()

    def _promote_who_wants_it(self) -> None:
        learners = self._raft.configuration.learners
        for member in self._table.members():
            if member["wants_vote"] and member["id"] in learners:
                try:
                    self._raft.propose_change(Change(promote=frozenset({member["id"]})))
                except RaftKVError:
                    continue  # it has not caught up, or another change is not finished: the next tick tries again
                return


__all__ = ["Newcomer", "Reconfiguration", "Request", "read_request", "with_names"]

"""What procedures need of the member that serves them: one object per member, made by its wiring."""

import asyncio
from typing import Any, Callable, Final, Mapping, Protocol, Sequence, TypeAlias

from raftkv.daemon.api.controls import MemberControl
from raftkv.daemon.etcd.counting import CallCounts
from raftkv.daemon.etcd.identity import ANYBODY, Caller
from raftkv.daemon.etcd.parking import LOOK_INTERVAL_S, Parking
from raftkv.daemon.etcd.renewals import Renewals
from raftkv.daemon.facts import Facts, MemberFacts
from raftkv.errors import NotLeader, RaftKVError
from raftkv.etcd.responses import Origin
from raftkv.etcd.statuses import Status, status_of
from raftkv.limits import Limits
from raftkv.replica.groups import ReadGroup, WriteGroup
from raftkv.replica.lease_desk import QUESTIONS
from raftkv.replica.membership import read_request
from raftkv.replica.service import Service
from raftkv.store.hashing import ContentHash
from raftkv.units import Milliseconds, NodeId, Revision, Term
from raftkv.wire.commands import FAILED, READS, SERIALIZABLE, Answer, Command, command_bytes, error_of
from raftkv.wire.protocol import CHANGE_MEMBERS, KEEP_ALIVE, check_keep_alive
from raftkv.wire.validate import validate


class EtcdView(Protocol):
    """What a member tells about itself to the etcd API (daemon/view.py)."""

    @property
    def header_ids(self) -> tuple[int, NodeId, Term]:
        """Cluster id, member id, term: what stands in the header of every response."""
        ...

    @property
    def revision(self) -> Revision:
        """Of the store here, as applied."""
        ...

    @property
    def knows_leader(self) -> bool: ...

    @property
    def closing(self) -> asyncio.Event:
        """Set once this member has begun to leave."""
        ...

    @property
    def client_scheme(self) -> str:
        """Of the URLs of members: http or https."""
        ...

    @property
    def peer_scheme(self) -> str: ...

    def facts(self) -> Facts: ...

    def member_facts(self) -> list[MemberFacts]: ...

    async def hash_content(self, revision: Revision) -> ContentHash:
        """The finished hash of the data as of a revision; 0: the current one. Raises RaftKVError."""
        ...


Found: TypeAlias = Callable[[Caller | RaftKVError], None]
Authenticate: TypeAlias = Callable[[Mapping[str, str], str, Found], None]
"""Who makes a call with this metadata, over a connection with a certificate of this name ("": none)? Found once, mostly at once."""


class House:
    """The member as procedures see it."""

    def __init__(
        self,
        service: Service,
        member: MemberControl,
        view: EtcdView,
        limits: Limits,
        request_timeout_ms: Milliseconds,
        calls: CallCounts | None = None,
    ) -> None:
        self.service = service
        self.member = member
        self.view = view
        self.limits = limits
        self.request_timeout_ms = request_timeout_ms  # etcd's: 5 s and two election timeouts; a client may want less
        self.calls = calls or CallCounts()  # doors count into it
        self.authenticate: Authenticate = lambda metadata, certificate_name, found: found(ANYBODY)
        self.chores: set[asyncio.Task[Any]] = set()  # what goes on although nobody waits for it
        self.parking = Parking(service, view, member.schedule_pump, limits)
        self.renewals = Renewals(service, self.parking, member.schedule_pump, limits, request_timeout_ms)

    def origin(self) -> Origin:
        """Who answers, for the headers of responses."""
        return Origin(*self.view.header_ids)

    def timeout_ms(self, of_client_ms: Milliseconds) -> Milliseconds:
        """How long a request may take whose client gives it `of_client_ms` (0: no bound of its own)."""
        return min(of_client_ms or self.request_timeout_ms, self.request_timeout_ms)

    def refusal(self, metadata: Mapping[str, str]) -> Status | None:
        """Why a call is not even begun: it wants a member that knows a leader (`hasleader`), and this one does not."""
        if metadata.get("hasleader") == "true" and not self.view.knows_leader:
            return status_of(NotLeader())
        return None

    async def caller_of(self, metadata: Mapping[str, str], certificate_name: str = "") -> Caller:
        """`authenticate` for doors that wait. Raises RaftKVError."""
        answers: list[Caller | RaftKVError] = []
        self.authenticate(metadata, certificate_name, answers.append)
        while not answers:  # a token that this member has not heard of yet: rare, and over soon
            await asyncio.sleep(LOOK_INTERVAL_S)
        (found,) = answers
        if isinstance(found, RaftKVError):
            raise found
        return found

    async def ask(self, command: Command, caller: Caller = ANYBODY, timeout_ms: Milliseconds = 0) -> Answer:
        """Have one command carried out, on any member. Returns an answer that is no failure; raises RaftKVError."""
        waiting = _Waiting(self)
        submit(self, waiting, 0, command, caller, self.timeout_ms(timeout_ms))
        self.member.schedule_pump()
        answer = await waiting.answered
        if answer[0] == FAILED:
            raise error_of(answer)
        return answer


def check(command: Command, limits: Limits) -> None:
    """Refuse what can never be done, by the rules of all doors. Raises RaftKVError."""
    if command[0] == KEEP_ALIVE:
        check_keep_alive(command, limits.keep_alive_leases_max)
    elif command[0] == CHANGE_MEMBERS:
        read_request(command[1])
    else:
        validate(command, limits)


def submit(house: House, origin: Any, tag: int, command: Command, caller: Caller, timeout_ms: Milliseconds) -> None:
    """Hand one command over as a group of its own; `origin` is an Origin of replica/groups.py. Raises RaftKVError if it is invalid."""
    check(command, house.limits)
    service = house.service
    deadline_ms = service.deadline(timeout_ms)
    if command[0] in READS:
        user, auth_revision = caller
        group = ReadGroup(origin, [tag], [command], deadline_ms=deadline_ms, user=user, auth_revision=auth_revision)
        if command[1] & SERIALIZABLE:
            service.read_now(group)
        else:
            service.submit_reads(group)
        return
    service.forward(
        WriteGroup(
            origin,
            [tag],
            [command],
            size_bytes=0 if command[0] in _NO_ENTRIES else command_bytes(command),
            deadline_ms=deadline_ms,
            user=caller.user,
            auth_revision=caller.auth_revision,
        )
    )


_NO_ENTRIES: Final = QUESTIONS | {CHANGE_MEMBERS}  # what the leader does without an entry of their own


class _Waiting:
    """The origin of one command whose answer somebody awaits."""

    takes_answers = True

    def __init__(self, house: House) -> None:
        self._house = house
        self.answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def on_answers(self, group: WriteGroup | ReadGroup, answers: Sequence[Answer]) -> None:
        if not self.answered.done():
            self.answered.set_result(answers[0])

    def on_refused(self, group: WriteGroup | ReadGroup, error: RaftKVError) -> None:
        parking = self._house.parking
        if self.answered.done():
            return
        if not (parking.takes(error) and parking.park(group.deadline_ms, lambda: self._again(group), self._fail)):
            self._fail(error)

    def _again(self, group: WriteGroup | ReadGroup) -> None:
        if self.answered.done():
            return  # nobody awaits it any more
        if isinstance(group, ReadGroup):
            self._house.service.submit_reads(group)
        else:
            self._house.service.forward(group)

    def _fail(self, error: RaftKVError) -> None:
        if not self.answered.done():
            self.answered.set_exception(error)

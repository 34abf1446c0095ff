"""Requests of users through real members: what is judged where, and that nobody is told what it may not know."""

from typing import Any

import pytest

from raftkv.replica.groups import ReadGroup, WriteGroup
from raftkv.replica.watching import Waiter
from raftkv.wire.commands import GET, LEASE_GRANT, LEASE_TTL, LEASES, PUT, RANGE, SERIALIZABLE, WITH_KEYS, Answer
from raftkv.wire.identity import ANYBODY, Caller
from raftkv.wire.passwords import hash_password
from raftkv.wire.protocol import CHANGE_MEMBERS, KEEP_ALIVE, WAIT, WATCH_CREATE
from raftkv.wire.users import (
    AUTH_DISABLE,
    AUTH_ENABLE,
    AUTH_STATUS,
    READ,
    READWRITE,
    ROLE_ADD,
    ROLE_GRANT_PERMISSION,
    ROLE_REVOKE_PERMISSION,
    USER_ADD,
    USER_CHANGE_PASSWORD,
    USER_DELETE,
    USER_GET,
    USER_GRANT_ROLE,
)
from raftkv.wire.watching import UNTIL_CHANGED, UNTIL_EXISTS
from tests.unit.replica.minicluster import Member, MiniCluster
from tests.unit.replica.origins import RecordingOrigin
from tests.unit.store.watching import RecordingSink

HASH = hash_password("secret", b"salt-of-16-bytes")
FAR_MS = 1 << 40


class Sink(RecordingSink):
    """What a door's end of watches is told."""

    def __init__(self) -> None:
        super().__init__()
        self.created: dict[int, Any] = {}

    def on_created(self, tag: int, watcher: Any, revision: int) -> None:
        self.created[tag] = watcher


class House:
    """A cluster with ann, who may read and write under a/, and with root."""

    def __init__(self) -> None:
        self.cluster = MiniCluster()
        self.leader = self.cluster.elect()
        self.follower = next(one for one in self.cluster.members.values() if one is not self.leader)
        self.root = self.ann = ANYBODY
        self.do(PUT, b"a/1", b"1", 0, 0)
        self.do(PUT, b"b/1", b"1", 0, 0)
        self.do(USER_ADD, "root", HASH, False)
        self.do(USER_GRANT_ROLE, "root", "root")
        self.do(ROLE_ADD, "a")
        self.do(ROLE_GRANT_PERMISSION, "a", READWRITE, b"a/", b"a0")
        self.do(USER_ADD, "ann", HASH, False)
        self.do(USER_GRANT_ROLE, "ann", "a")
        self.do(AUTH_ENABLE)
        revision = self.leader.storage.store.auth.revision
        self.root, self.ann = Caller("root", revision), Caller("ann", revision)

    def write(self, caller: Caller, *command: Any, member: Member | None = None) -> str:
        origin = RecordingOrigin()
        kind, *rest = command
        user, auth_revision = caller
        group = WriteGroup(
            origin, [0], [[kind, 0, *rest]], size_bytes=100, deadline_ms=FAR_MS, user=user, auth_revision=auth_revision
        )
        (member or self.leader).service.forward(group)
        self.cluster.settle()
        return outcome(origin)

    def do(self, *command: Any) -> None:
        """By root; everybody has applied it afterwards."""
        assert self.write(self.root, *command) == "ok"
        self.cluster.pass_time(200)  # a heartbeat tells the followers

    def read(self, caller: Caller, *commands: list[Any], member: Member | None = None) -> list[str]:
        origin = RecordingOrigin()
        member = member or self.leader
        user, auth_revision = caller
        group = ReadGroup(
            origin, [0] * len(commands), list(commands), deadline_ms=FAR_MS, user=user, auth_revision=auth_revision
        )
        if commands[0][0] in (KEEP_ALIVE, LEASE_TTL):
            member.service.ask_leader(group)
        elif commands[0][1] & SERIALIZABLE:
            member.service.read_now(group)
        else:
            member.service.submit_reads(group)
        self.cluster.settle()
        assert not origin.errors
        return [code(answer) for answers in origin.answers for answer in answers]

    def watch(self, caller: Caller, key: bytes, end: bytes, start: int = 0, member: Member | None = None) -> Sink:
        sink = Sink()
        member = member or self.leader
        member.service.watching.open([WATCH_CREATE, key, end, start, 0], sink, 1, FAR_MS, caller)
        self.cluster.settle()
        return sink

    def wait(self, caller: Caller, condition: int, key: bytes) -> list[Answer]:
        answers: list[Answer] = []
        self.leader.service.watching.wait([WAIT, condition, True, [key], 99], Waiter(answers.append), FAR_MS, caller)
        self.cluster.settle()
        return answers


def code(answer: Answer) -> str:
    return answer[1] if answer[0] else "ok"


def outcome(origin: RecordingOrigin) -> str:
    if origin.errors:
        return origin.errors[0].code
    return code(origin.answers[0][0])


@pytest.fixture
def house() -> House:
    return House()


def test_writes_are_judged_in_apply_and_nobody_s_do_not_reach_the_log(house: House) -> None:
    assert house.write(house.ann, PUT, b"a/2", b"", 0, 0) == "ok"
    assert house.write(house.ann, PUT, b"b/2", b"", 0, 0) == "permission_denied"
    last_index = house.leader.raft.last_index
    assert house.write(ANYBODY, PUT, b"a/2", b"", 0, 0) == "user_empty"
    assert house.leader.raft.last_index == last_index
    assert house.write(house.ann, AUTH_DISABLE) == "permission_denied"


def test_a_forwarded_write_keeps_its_user(house: House) -> None:
    for caller, key, expected in (
        (house.ann, b"a/3", "ok"),
        (house.ann, b"b/3", "permission_denied"),
        (ANYBODY, b"a/3", "user_empty"),
    ):
        assert house.write(caller, PUT, key, b"", 0, 0, member=house.follower) == expected


def test_the_membership_is_root_s_also_when_it_is_forwarded(house: House) -> None:
    for member in (house.leader, house.follower):
        for caller, expected in ((house.ann, "permission_denied"), (ANYBODY, "user_empty")):
            origin = RecordingOrigin()
            command = [CHANGE_MEMBERS, {"remove": ["n3"]}]
            group = WriteGroup(origin, [0], [command], size_bytes=0, deadline_ms=FAR_MS)
            group.user, group.auth_revision = caller
            member.service.forward(group)
            house.cluster.settle()
            assert outcome(origin) == expected


@pytest.mark.parametrize("flags", [0, SERIALIZABLE])
@pytest.mark.parametrize("where", ["leader", "follower"])
def test_reads_are_judged_where_they_are_answered(house: House, where: str, flags: int) -> None:
    member: Member = getattr(house, where)
    commands: list[list[Any]] = [
        [GET, flags, b"a/1"],
        [GET, flags, b"b/1"],
        [RANGE, flags, b"a/", b"a0", *[0] * 8],
        [RANGE, flags, b"\0", b"\0", *[0] * 8],
        [LEASES, flags],
        [USER_GET, flags, "ann"],
        [USER_GET, flags, "root"],
        [AUTH_STATUS, flags],
    ]
    no = "permission_denied"
    assert house.read(house.ann, *commands, member=member) == ["ok", no, "ok", no, "ok", "ok", no, no]
    assert house.read(house.root, *commands, member=member) == ["ok"] * 8
    assert house.read(ANYBODY, *commands, member=member) == ["user_empty"] * 8


def test_a_range_ends_with_the_permission_in_its_middle(house: House) -> None:
    house.do(PUT, b"a/long", b"x" * 900_000, 0, 0)
    origin = RecordingOrigin()
    user, auth_revision = house.ann
    command = [RANGE, 0, b"a/", b"a0", *[0] * 8]
    group = ReadGroup(origin, [0] * 3, [command] * 3, deadline_ms=FAR_MS, user=user, auth_revision=auth_revision)
    origin.takes_answers = False
    house.leader.service.submit_reads(group)
    house.cluster.settle()
    assert origin.answers == []
    house.do(ROLE_REVOKE_PERMISSION, "a", b"a/", b"a0")
    origin.takes_answers = True
    house.leader.service.flush(house.cluster.now_ms)
    house.cluster.settle()
    assert [code(answer) for answers in origin.answers for answer in answers] == ["permission_denied"] * 3


def test_a_new_password_ends_the_login_at_once(house: House) -> None:
    house.do(USER_CHANGE_PASSWORD, "ann", HASH)
    assert house.write(house.ann, PUT, b"a/2", b"", 0, 0) == "auth_old_revision"
    assert house.read(house.ann, [GET, 0, b"a/1"]) == ["auth_old_revision"]
    again = Caller("ann", house.leader.storage.store.auth.revision)
    assert house.read(again, [GET, 0, b"a/1"]) == ["ok"]


def test_questions_about_leases(house: House) -> None:
    assert house.write(house.ann, LEASE_GRANT, 7, 60_000) == "ok"
    assert house.write(house.ann, PUT, b"a/leased", b"", 7, 0) == "ok"
    questions: list[list[Any]] = [[KEEP_ALIVE, [7]], [LEASE_TTL, WITH_KEYS, 7], [LEASE_TTL, 0, 7]]
    assert house.read(house.ann, *questions) == ["ok"] * 3
    house.do(PUT, b"b/leased", b"", 7, 0)
    assert house.read(house.ann, *questions) == ["permission_denied", "permission_denied", "ok"]
    assert house.read(ANYBODY, *questions) == ["user_empty"] * 3


def test_who_may_not_keep_a_lease_does_not_hold_up_its_end(house: House) -> None:
    house.write(house.root, LEASE_GRANT, 7, 5_000)
    house.do(PUT, b"b/leased", b"", 7, 0)
    for _ in range(400):
        origin = RecordingOrigin()
        house.leader.service.ask_leader(ReadGroup(origin, [0], [[KEEP_ALIVE, [7]]], deadline_ms=FAR_MS))
        house.cluster.pass_time(25)
    assert 7 not in house.leader.storage.leases


def test_watches_are_judged_when_they_begin(house: House) -> None:
    for caller, key, end, expected in (
        (house.ann, b"a/", b"a0", None),
        (house.ann, b"", b"\0", "permission_denied"),
        (house.root, b"", b"\0", None),
        (ANYBODY, b"a/", b"a0", "user_empty"),
    ):
        for member in (house.leader, house.follower):
            sink = house.watch(caller, key, end, member=member)
            assert (1 in sink.created) == (expected is None)
            assert [error.code for error in sink.canceled.values()] == ([] if expected is None else [expected])


@pytest.mark.parametrize("start", [0, 2], ids=["live", "from history"])
def test_a_watch_hears_nothing_more_once_its_permission_is_gone(house: House, start: int) -> None:
    sink = house.watch(house.ann, b"a/", b"a0", start)
    house.do(PUT, b"a/1", b"2", 0, 0)
    heard = sink.keys(1)
    assert heard[-1] == b"a/1"
    house.do(ROLE_GRANT_PERMISSION, "a", READ, b"c", b"")
    house.do(PUT, b"a/1", b"3", 0, 0)
    assert len(sink.keys(1)) == len(heard) + 1, "a change that does not matter to it does not end it"
    house.do(ROLE_REVOKE_PERMISSION, "a", b"a/", b"a0")
    assert not sink.canceled, "nothing to tell it yet"
    house.do(PUT, b"a/1", b"secret", 0, 0)
    assert len(sink.keys(1)) == len(heard) + 1
    assert sink.canceled[1].code == "permission_denied"
    assert house.leader.storage.watches.count == 0


def test_watches_from_before_authentication_end_when_there_is_something_to_hear() -> None:
    house = House()
    house.do(AUTH_DISABLE)
    sink = house.watch(ANYBODY, b"a/", b"a0")
    house.do(AUTH_ENABLE)
    house.root = Caller("root", house.leader.storage.store.auth.revision)
    house.do(PUT, b"a/1", b"secret", 0, 0)
    assert sink.canceled[1].code == "user_empty"
    assert sink.keys(1) == []


def test_waits(house: House) -> None:
    assert [code(answer) for answer in house.wait(house.ann, UNTIL_EXISTS, b"b/1")] == ["permission_denied"]
    assert [code(answer) for answer in house.wait(ANYBODY, UNTIL_EXISTS, b"a/1")] == ["user_empty"]
    assert [code(answer) for answer in house.wait(house.ann, UNTIL_EXISTS, b"a/1")] == ["ok"]
    answers = house.wait(house.ann, UNTIL_EXISTS, b"a/9")
    assert answers == []
    house.do(USER_DELETE, "ann")
    house.do(PUT, b"a/9", b"secret", 0, 0)
    assert [code(answer) for answer in answers] == ["permission_denied"]
    assert len(house.leader.storage.watches.waits) == 0
    assert house.wait(house.root, UNTIL_CHANGED, b"a/9") == []


def test_members_go_on_with_their_own_work(house: House) -> None:
    """Their own writes need no login: the books of leases, and what a member says of itself."""
    house.write(house.root, LEASE_GRANT, 7, 3_000)
    house.do(PUT, b"a/leased", b"", 7, 0)
    for _ in range(400):
        house.cluster.pass_time(25)
    assert 7 not in house.leader.storage.leases
    assert house.read(house.root, [GET, 0, b"a/leased"]) == ["ok"]
    assert isinstance(house.leader.storage.store.read([GET, 0, b"a/leased"])[2], type(None))


def test_after_a_failover_the_rules_are_the_same(house: House) -> None:
    house.cluster.cut = {house.leader.node_id}
    successor = house.cluster.elect()
    assert successor is not house.leader
    assert house.write(house.ann, PUT, b"b/2", b"", 0, 0, member=successor) == "permission_denied"
    assert house.write(house.ann, PUT, b"a/2", b"", 0, 0, member=successor) == "ok"
    assert house.write(ANYBODY, PUT, b"a/2", b"", 0, 0, member=successor) == "user_empty"

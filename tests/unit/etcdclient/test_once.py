"""Writes on etcd are done once, whatever the line loses and however late it delivers: drawn stories, several clients at a time."""

from typing import Any

import pytest

from raftkv.client import requests
from raftkv.errors import (
    AnswerDropped,
    DeadlineExceeded,
    FencingTokenStale,
    LeaseNotFound,
    NotANumber,
    OutcomeUnknown,
    RaftKVError,
    SessionExpired,
)
from raftkv.etcd.statuses import Status
from raftkv.etcdclient.course import Course, Send
from raftkv.etcdclient.marks import TTL_S
from raftkv.etcdclient.rpcs import LEASE_REVOKE, Rpc
from raftkv.etcdclient.rpcs import TXN as TXN_PATH
from raftkv.etcdclient.waits import Waiting
from raftkv.etcdpb import rpc_pb2 as rpc
from raftkv.wire.commands import OK, PREV_KV, PUT, RANGE, TXN
from raftkv.wire.protocol import WAIT
from raftkv.wire.watching import UNTIL_EXISTS

from .paper_etcd import LOST, Call, PaperClient, PaperEtcd

CLIENTS, CALLS = 4, 12


def value_of(etcd: PaperEtcd, key: bytes) -> bytes | None:
    kv = etcd.twin.store.read(requests.get(key))[2]
    return None if kv is None else bytes(kv[5])


def story(seed: int, *, expiries: float = 0.0) -> tuple[PaperEtcd, dict[str, list[tuple[int, Any]]]]:
    """Every client increments, appends its own letters, and claims keys, while late requests arrive; what became of each call."""
    etcd = PaperEtcd(seed)
    clients = [PaperClient(etcd) for _ in range(CLIENTS)]
    ended: dict[str, list[tuple[int, Any]]] = {"add": [], "append": [], "claim": []}
    waiting: list[tuple[PaperClient, Call, str, int]] = []
    plan = [(kind, number) for number in range(CALLS) for kind in ended for _ in range(2)]
    etcd.random.shuffle(plan)
    while plan or waiting:
        if plan and (len(waiting) < CLIENTS or etcd.random.random() < 0.1):
            kind, number = plan.pop()
            client = etcd.random.choice(clients)
            command = {
                "add": requests.increment(b"n", number),
                "append": requests.append(b"s", b"%c" % (65 + number)),
                "claim": requests.compare_and_set(b"claim/%d" % number, None, b"x"),
            }[kind]
            waiting.append((client, client.begin(command), kind, number))
        if etcd.random.random() < 0.2:
            etcd.deliver_late()
        if etcd.random.random() < expiries:
            session = etcd.random.choice(clients).sessions.current  # type: ignore[union-attr]
            if session is not None:
                etcd.do(Rpc(LEASE_REVOKE, rpc.LeaseRevokeRequest(ID=session.lease_id), safe=False))
        entry = etcd.random.choice(waiting)
        if entry[0].advance(entry[1]):
            waiting.remove(entry)
            ended[entry[2]].append((entry[3], entry[1].outcome))
    while etcd.late:
        etcd.deliver_late()
    return etcd, ended


@pytest.mark.parametrize("seed", range(15))
def test_nothing_is_lost_or_doubled(seed: int) -> None:
    etcd, ended = story(seed)
    assert all(outcome[0] == OK for calls in ended.values() for _, outcome in calls)
    assert value_of(etcd, b"n") == b"%d" % sum(number for number, _ in ended["add"])
    sums = sorted(outcome[2] for number, outcome in ended["add"] if number)
    assert len(set(sums)) == len(sums), "every answer is a number of its own"
    assert sorted(value_of(etcd, b"s") or b"") == sorted(65 + number for number, _ in ended["append"])
    won = sorted(number for number, outcome in ended["claim"] if outcome[2])
    assert won == list(range(CALLS)), "of two who claim a key exactly one gets it"


@pytest.mark.parametrize("seed", range(15))
def test_a_session_that_ends_makes_doubts_and_no_doubles(seed: int) -> None:
    etcd, ended = story(seed, expiries=0.05)
    doubts = 0
    for calls in ended.values():
        for _, outcome in calls:
            if isinstance(outcome, Exception):
                assert isinstance(outcome, SessionExpired), outcome
                doubts += outcome.may_have_happened
    letters = value_of(etcd, b"s") or b""
    for number in range(CALLS):
        outcomes = [outcome for n, outcome in ended["append"] if n == number]
        sure = sum(not isinstance(outcome, Exception) for outcome in outcomes)
        assert sure <= letters.count(b"%c" % (65 + number)) <= sum(map(may_be, outcomes))
        claims = [outcome for n, outcome in ended["claim"] if n == number]
        assert sum(not isinstance(claim, Exception) and claim[2] for claim in claims) <= 1
    assert doubts or seed, "the first story has some"


def may_be(outcome: Any) -> bool:
    """Whether a call with this outcome may have been done."""
    return not isinstance(outcome, RaftKVError) or outcome.may_have_happened


def lose_answer_once(client: PaperClient, call: Call) -> None:
    """The request is done, and its answer is lost."""
    step: Any = call.step
    client.etcd.do(step.rpc)
    call.step = call.course.on_failure(client.etcd.now, 14, "Socket closed")


def quiet() -> PaperClient:
    return PaperClient(PaperEtcd(1, losses=0.0))


def finish(client: PaperClient, call: Call) -> Any:
    while not client.advance(call):
        pass
    return call.outcome


def test_a_lost_answer_is_told_from_history() -> None:
    client = quiet()
    client.run(requests.put("k", "old"))
    client.run(requests.put("d/1", "x"))
    command = [TXN, 0, [], [[PUT, 0, b"k", b"new", 0, PREV_KV], requests.delete_prefix("d/", True)], []]
    call = client.begin(command)
    lose_answer_once(client, call)
    client.run(requests.put("k", "newer"))
    revision, succeeded, items = finish(client, call)[1:]
    assert succeeded
    put, deleted = items
    assert (put[0], put[1], put[2][5]) == (PUT, revision, b"old")
    assert (deleted[2], deleted[3][0][5]) == (1, b"x")
    assert value_of(client.etcd, b"k") == b"newer"


def test_reads_of_a_lost_answer_are_those_of_its_moment() -> None:
    client = quiet()
    client.run(requests.put("k", "old"))
    read = requests.range_("k")
    before, behind = [[*read], requests.put("k", "new")], [requests.put("k", "newer"), [*read]]
    for branch, seen in ((before, b"old"), (behind, b"newer")):
        call = client.begin([TXN, 0, [], branch, []])
        lose_answer_once(client, call)
        client.run(requests.put("k", "later"))
        items = next(items for items in finish(client, call)[3] if items[0] == RANGE)
        assert items[2][0][5] == seen
    call = client.begin([TXN, 0, [], [requests.put("a", "1"), [*read], requests.put("b", "1")], []])
    lose_answer_once(client, call)
    with pytest.raises(AnswerDropped):
        raise finish(client, call)


def test_an_attempt_that_comes_late_cannot_win_what_was_answered_as_lost() -> None:
    """The condition did not hold when it was asked again; it holds when the first attempt arrives, and that one must not count any more."""
    client = quiet()
    client.run(requests.put("k", "a"))
    client.run(requests.put("k", "c"))
    call = client.begin(requests.compare_and_set("k", "a", "mine"))
    late: Any = call.step
    call.step = call.course.on_failure(client.etcd.now, 4, "Deadline Exceeded")
    assert finish(client, call)[2] is False
    client.run(requests.put("k", "a"))
    client.etcd.do(late.rpc)
    assert value_of(client.etcd, b"k") == b"a"


def test_without_a_session_doubt_is_an_error() -> None:
    client = PaperClient(PaperEtcd(1, losses=0.0), session=False)
    for command in (requests.put("k", "v"), requests.increment("n", 1), requests.delete("k")):
        call = client.begin(command)
        if command[0] != PUT and command[0] != requests.delete("k")[0]:
            client.advance(call)  # the read before it
        with pytest.raises(OutcomeUnknown):
            call.course.on_failure(0.0, 14, "Socket closed")
    call = client.begin(requests.put("k", "v"))
    call.step = call.course.on_failure(0.0, 14, "etcdserver: no leader")
    assert finish(client, call)[0] == OK, "that was surely not done"


def test_what_has_no_room_for_a_mark_is_done_without() -> None:
    client = quiet()
    many = [requests.put(f"k{n}", "v") for n in range(128)]
    assert client.run([TXN, 0, [], many, []])[2] is True
    reads = [requests.range_(f"k{n}") for n in range(128)]
    assert [items[2][0][0] for items in client.run([TXN, 0, [], reads, []])[3]] == [b"k%d" % n for n in range(128)]
    condition = [[0, 3, b"k0", b"w", b""]]
    assert client.run([TXN, 0, condition, many, [requests.put("else", "")]])[2] is False
    assert client.run(requests.delete_prefix(""))[2] == 129
    call = client.begin(requests.delete_prefix(""))
    with pytest.raises(OutcomeUnknown):
        call.course.on_failure(client.etcd.now, 14, "Socket closed")


def test_guards() -> None:
    client = quiet()
    token = client.run(requests.put("lock", "me"))[1]
    assert client.run(requests.guarded([(b"lock", token)], requests.increment("n", 5)))[2] == 5
    assert client.run(requests.guarded([(b"lock", token)], requests.compare_and_set("k", None, "v")))[2] is True
    client.run(requests.delete("lock"))
    for command in (requests.put("k", "w"), requests.append("k", "w"), requests.compare_and_set("k", "v", "w")):
        with pytest.raises(FencingTokenStale) as refused:
            client.run(requests.guarded([(b"lock", token)], command))
        assert refused.value.details == {"key": b"lock", "create_revision": token, "actual": 0}
        assert not refused.value.may_have_happened
    assert value_of(client.etcd, b"k") == b"v"


def test_refusals() -> None:
    client = quiet()
    client.run(requests.put("word", "many"))
    with pytest.raises(NotANumber):
        client.run(requests.increment("word"))
    client.run(requests.put("n", str(2**63 - 1)))
    with pytest.raises(NotANumber):
        client.run(requests.increment("n"))
    with pytest.raises(LeaseNotFound):
        client.run(requests.put("k", "v", 12345))
    assert client.run(requests.put("k", "v"))[0] == OK, "the session is as it was"


def test_time_is_up() -> None:
    client = PaperClient(PaperEtcd(1, losses=0.0))
    client.run(requests.put("k", "v"))
    call = client.begin(requests.put("k", "w"), 5.0)
    client.etcd.send = lambda rpc: Status(*LOST)  # type: ignore[method-assign]
    late = finish(client, call)
    assert isinstance(late, DeadlineExceeded) and late.may_have_happened
    assert 4.5 < client.etcd.now < 6


def abandoned(client: PaperClient, commands: list[Any], *, cancelled: bool) -> list[Any]:
    """The requests of writes that were given up together; they are still under way."""
    calls = [client.begin(command) for command in commands]
    under_way = [call.step.rpc for call in calls if isinstance(call.step, Send)]
    assert [rpc_.path for rpc_ in under_way] == [TXN_PATH] * len(commands)
    for call in calls:
        if cancelled:
            call.course.abandon()
        else:
            with pytest.raises(DeadlineExceeded) as given_up:
                call.course.on_failure(client.etcd.now + 1e6, 4, "Deadline Exceeded")
            assert given_up.value.may_have_happened
    return under_way


@pytest.mark.parametrize("cancelled", [False, True])
def test_what_was_given_up_is_not_done_after_a_later_write(cancelled: bool) -> None:
    client = quiet()
    client.run(requests.put("k", "old"))  # the first of the marks has a version then
    late = abandoned(client, [requests.put("k", b"%d" % n) for n in range(3)], cancelled=cancelled)
    client.etcd.do(late[1])
    assert client.run(requests.put("k", "new"))[0] == OK
    for rpc_ in late:
        client.etcd.do(rpc_)
    assert value_of(client.etcd, b"k") == b"new"


def test_more_given_up_than_a_transaction_holds() -> None:
    client = quiet()
    client.run(requests.put("k", "old"))
    late = abandoned(client, [requests.put(f"k{n}", "late") for n in range(150)], cancelled=True)
    assert client.run(requests.put("k", "new"))[0] == OK
    for rpc_ in late:
        client.etcd.do(rpc_)
    assert [value_of(client.etcd, b"k%d" % n) for n in range(150)] == [None] * 150


def test_a_session_that_ended_with_what_was_given_up_is_replaced() -> None:
    client = quiet()
    client.run(requests.put("k", "old"))
    (late,) = abandoned(client, [requests.put("k", "late")], cancelled=False)
    session = client.sessions.current  # type: ignore[union-attr]
    assert session is not None
    client.etcd.do(Rpc(LEASE_REVOKE, rpc.LeaseRevokeRequest(ID=session.lease_id), safe=False))
    client.run(requests.put("k", "new"))
    client.etcd.do(late)
    assert value_of(client.etcd, b"k") == b"new"


def test_a_session_is_not_replaced_while_it_lets_in_what_was_given_up() -> None:
    """Its time is over here, not on etcd, where a new leader gives each lease its whole time again."""
    client = quiet()
    client.run(requests.put("k", "old"))
    (late,) = abandoned(client, [requests.put("k", "late")], cancelled=True)
    client.etcd.now += 10 * TTL_S
    assert client.run(requests.put("k", "new"))[0] == OK
    client.etcd.do(late)
    assert value_of(client.etcd, b"k") == b"new"


def test_what_has_no_room_for_a_mark_comes_after_what_was_given_up_too() -> None:
    client = quiet()
    client.run(requests.put("k0", "old"))
    (late,) = abandoned(client, [requests.put("k0", "late")], cancelled=False)
    assert client.run([TXN, 0, [], [requests.put(f"k{n}", "new") for n in range(128)], []])[2] is True
    client.etcd.do(late)
    assert value_of(client.etcd, b"k0") == b"new"


def takes_it_for_a_read(request: Any) -> bool:
    """etcd's rule: such a transaction is answered in its caller's time, and up to 3.5.4 the member panics when that is over."""
    return all(one.HasField("request_range") for one in (*request.success, *request.failure))


@pytest.mark.parametrize("session", [True, False])
def test_no_transaction_is_one_that_brings_old_members_down(session: bool) -> None:
    client = PaperClient(PaperEtcd(1, losses=0.0), session=session)
    token = client.run(requests.put("k", "v"))[1]
    sent: list[Any] = []
    do = client.etcd.do
    client.etcd.do = lambda rpc: sent.append(rpc) or do(rpc)  # type: ignore[method-assign,func-returns-value]
    read_only = [TXN, 0, [], [requests.range_("k")], []]
    conditional = [TXN, 0, [[0, 0, b"k", 7, b""]], [], [requests.range_("k")]]
    assert client.run(read_only)[3][0][2][0][5] == b"v"
    assert client.run(conditional)[2] is False
    assert client.run(requests.guarded([(b"k", token)], read_only))[3][0][2][0][5] == b"v"
    seen = Waiting([WAIT, UNTIL_EXISTS, True, [b"k", b"none"], 0]).look()
    course = Course(seen, client.places, client.etcd.now, 9.0, 1.0, client.etcd.random.random)
    assert finish(client, Call(course, course.start(client.etcd.now)))[2][1] is None
    transactions = [rpc.request for rpc in sent if rpc.path == TXN_PATH]
    assert len(transactions) == 3
    assert not any(map(takes_it_for_a_read, transactions))

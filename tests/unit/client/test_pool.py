"""The blocking pool: reuse, validation, lifetimes, exhaustion, and leaks that are named and cost no place."""

import gc
import threading
import time
import warnings
from typing import Any, Iterator

import pytest

from raftkv.client.blockingconn import BlockingConnection
from raftkv.client.options import Options
from raftkv.client.pool import Loan, Pool
from raftkv.client.session import Session
from raftkv.client.wireconn import WireConnection
from raftkv.errors import ClientClosed, DeadlineExceeded, Unreachable

from .fakeserver import FakeCluster, FakeMember

OPTIONS = Options(None, 5.0, 1.0, True, 600.0, 30.0, "test")


def new_wire(session: Session | None) -> WireConnection:
    return WireConnection(cluster_name=None, session=session, client_name="test")


class Clock:
    def __init__(self) -> None:
        self.now = time.monotonic()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def member(cluster: FakeCluster) -> FakeMember:
    return cluster.members[0]


@pytest.fixture
def pool() -> Iterator[Pool]:
    pool = Pool(OPTIONS, new_wire, connections_max=2)
    yield pool
    pool.close()


def borrow(pool: Pool, member: FakeMember, session: Session | None = None, seconds: float = 5.0) -> Loan:
    deadline = pool._clock() + seconds
    return pool.borrow(member.address, session, connect_timeout_s=1.0, deadline=deadline)


def test_a_returned_connection_is_used_again(pool: Pool, member: FakeMember) -> None:
    with borrow(pool, member) as first:
        assert first.is_new
    with borrow(pool, member) as second:
        assert not second.is_new
        assert second.connection is first.connection
    assert member.connections_seen == 1


def test_a_discarded_one_is_not(pool: Pool, member: FakeMember) -> None:
    with borrow(pool, member) as loan:
        loan.discard()
    with pytest.raises(ZeroDivisionError), borrow(pool, member):
        raise ZeroDivisionError
    with borrow(pool, member) as loan:
        assert loan.is_new
    assert member.connections_seen == 3


def test_a_connection_serves_the_session_that_it_was_greeted_with(pool: Pool, member: FakeMember) -> None:
    first, second = Session(b"1" * 16), Session(b"2" * 16)
    with borrow(pool, member, first):
        pass
    with borrow(pool, member, second) as loan:
        assert loan.is_new


def test_a_member_that_hung_up_is_noticed_before_reuse(pool: Pool, member: FakeMember) -> None:
    with borrow(pool, member) as loan:
        connection = loan.connection
    member.hang_up()
    deadline = time.monotonic() + 5
    while connection.is_open():
        assert time.monotonic() < deadline
    with borrow(pool, member) as loan:
        assert loan.is_new


def test_what_lay_idle_has_to_answer_first(cluster: FakeCluster, member: FakeMember) -> None:
    clock = Clock()
    pool = Pool(OPTIONS, new_wire, clock=clock)
    with borrow(pool, member) as loan:
        clock.now = loan.connection.heard_at + 29.0
    with borrow(pool, member) as loan:
        assert not loan.is_new
    assert member.pings == 0
    clock.now += 2.0
    with borrow(pool, member) as loan:
        assert not loan.is_new
    assert member.pings == 1
    clock.now = loan.connection.heard_at + 31.0
    member.answers_pings = False
    with borrow(pool, member) as loan:
        assert loan.is_new, "half open: replaced"
    pool.close()


def test_a_lifetime_has_an_end(member: FakeMember) -> None:
    clock = Clock()
    pool = Pool(OPTIONS, new_wire, clock=clock)
    with borrow(pool, member) as loan:
        assert 540.0 <= loan.connection.retire_at - clock.now <= 660.0
        clock.now = loan.connection.retire_at - 0.1
        loan.connection.heard_at = clock.now
    with borrow(pool, member) as loan:
        assert not loan.is_new
    clock.now += 0.2
    with borrow(pool, member) as loan:
        assert loan.is_new
    pool.close()


def test_one_waits_for_a_place_and_gets_it(pool: Pool, member: FakeMember) -> None:
    first, second = borrow(pool, member), borrow(pool, member)
    got: list[Loan] = []

    def wait() -> None:
        with borrow(pool, member) as loan:
            got.append(loan)

    thread = threading.Thread(target=wait)
    thread.start()
    first.__exit__(None, None, None)
    thread.join(timeout=5)
    assert got[0].connection is first.connection
    second.__exit__(None, None, None)


def test_who_holds_all_places_is_named(pool: Pool, member: FakeMember) -> None:
    first, second = borrow(pool, member), borrow(pool, member)
    with pytest.raises(DeadlineExceeded, match="all 2 connections") as raised:
        borrow(pool, member, seconds=0.05)
    assert "test_who_holds_all_places_is_named" in raised.value.message
    assert raised.value.may_have_happened is False
    for loan in (first, second):
        loan.__exit__(None, None, None)


def test_a_leak_is_named_and_costs_no_place(pool: Pool, member: FakeMember) -> None:
    def forget() -> None:
        borrow(pool, member)
        gc.collect()

    for _ in range(5):
        with pytest.warns(ResourceWarning, match="never returned") as caught:
            forget()
        assert "in forget" in str(caught[0].message)
    with borrow(pool, member) as loan:
        assert loan.is_new


def test_a_loan_that_outlives_the_pool_is_named(member: FakeMember) -> None:
    clock = Clock()
    pool = Pool(OPTIONS, new_wire, clock=clock, leak_age_s=60.0)
    loan = borrow(pool, member)
    clock.now += 61.0
    with pytest.warns(ResourceWarning, match="borrowed for 61 s"):
        pool.close()
    loan.__exit__(None, None, None)


def test_closing_with_young_loans_is_quiet_and_wakes_them(member: FakeMember) -> None:
    pool = Pool(OPTIONS, new_wire)
    loan = borrow(pool, member)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pool.close()
    assert loan.connection.is_open() is False
    loan.__exit__(None, None, None)
    with pytest.raises(ClientClosed):
        borrow(pool, member)


def test_a_connection_that_was_made_while_the_pool_closed_is_for_nobody(
    member: FakeMember, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, made, real = Pool(OPTIONS, new_wire), [], BlockingConnection.open

    def open_(*arguments: Any, **options: Any) -> BlockingConnection:
        made.append(real(*arguments, **options))
        pool.close()
        return made[-1]

    monkeypatch.setattr(BlockingConnection, "open", open_)
    with pytest.raises(ClientClosed):
        borrow(pool, member)
    assert made[0].is_open() is False


def test_a_failed_connect_frees_its_place(pool: Pool, member: FakeMember) -> None:
    member.stop()
    for _ in range(5):
        with pytest.raises(Unreachable, match="connection refused"):
            borrow(pool, member)

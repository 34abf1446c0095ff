"""Logins, tokens and certificates, on a store that is fed by hand."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from raftkv.daemon import authn, comparing
from raftkv.daemon.api.gate import caller_of, make_judge
from raftkv.daemon.authn import Authenticator
from raftkv.daemon.login_metrics import LoginMetrics
from raftkv.daemon.tokens import Tokens, digest_of, draw_token, index_of
from raftkv.errors import (
    AuthFailed,
    AuthNotEnabled,
    AuthOldRevision,
    InsecurePeers,
    InvalidAuthToken,
    InvalidRequest,
    NoPasswordUser,
    NoQuorum,
    Overloaded,
    PermissionDenied,
    RaftKVError,
    ShuttingDown,
    UserEmpty,
)
from raftkv.limits import Limits
from raftkv.store.auth import Issued
from raftkv.store.memory_keyspace import MemoryKeyspace
from raftkv.wire.identity import ANYBODY, Caller
from raftkv.wire.passwords import hash_password, is_password_hash, verify_password
from raftkv.wire.protocol import CHANGE_MEMBERS, STATUS
from raftkv.wire.users import (
    AUTH_DISABLE,
    AUTH_ENABLE,
    ROLE_ADD,
    USER_ADD,
    USER_CHANGE_PASSWORD,
    USER_DELETE,
    USER_GRANT_ROLE,
)
from tests.unit.store.stores import Driver

HASH = hash_password("secret", b"salt-of-16-bytes")
LIMITS = Limits(map_bytes=1 << 26, login_refusal_ms=1, logins_pending_max=2, tokens_max=3, token_ttl_ms=10_000)


class Service:
    """A member of its own: everything is acknowledged at once, unless it is cut off."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.refusal: RaftKVError | None = None
        self.proposed: list[Any] = []

    @property
    def access(self) -> Any:
        return self.driver.store.access

    def deadline(self, timeout_ms: int) -> int:
        return timeout_ms

    def submit_reads(self, group: Any) -> None:
        if self.refusal is not None:
            group.origin.on_refused(group, self.refusal)
        else:
            group.origin.on_answers(group, [[0, 1, None]])

    def forward(self, group: Any) -> None:
        self.proposed.append(group.commands[0])
        if self.refusal is not None:
            group.origin.on_refused(group, self.refusal)
        else:
            group.origin.on_answers(group, self.driver.apply_groups([group.items()])[0])


class House:
    """Users ann and cert, and root; authentication is on."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.driver = Driver(MemoryKeyspace())
        self.store = self.driver.store
        self.service = Service(self.driver)
        for command in (
            [USER_ADD, 0, "root", HASH, False],
            [USER_GRANT_ROLE, 0, "root", "root"],
            [USER_ADD, 0, "ann", HASH, False],
            [USER_ADD, 0, "cert", "", True],
            [AUTH_ENABLE, 0],
        ):
            self.do(command)
        self.authenticator = Authenticator(
            self,
            self.service,  # type: ignore[arg-type]
            limits,
            lambda: None,
            loop=asyncio.get_running_loop(),
            allow_insecure_peers=False,
        )

    def do(self, command: list[Any]) -> None:
        user = "root" if self.store.access.is_on else None
        group = [None, False, 0, user, self.store.auth.revision, [command]]
        assert self.driver.apply_groups([group])[0][0][0] == 0


@pytest_asyncio.fixture
async def house() -> AsyncIterator[House]:
    house = House()
    yield house
    house.authenticator.close()


async def test_a_login(house: House) -> None:
    caller = await house.authenticator.log_in("ann", "secret")
    assert caller == Caller("ann", house.store.auth.revision)
    assert (house.authenticator.logins, house.authenticator.logins_refused) == (1, 0)


@pytest.mark.parametrize(
    ("name", "password", "error"),
    [
        ("ann", "wrong", AuthFailed),
        ("ann", "", AuthFailed),
        ("bob", "secret", AuthFailed),
        ("", "", AuthFailed),
        ("cert", "", NoPasswordUser),
        ("cert", "secret", NoPasswordUser),
        ("ann", "x" * 5000, AuthFailed),
        ("\ud800", "\ud800", AuthFailed),
    ],
)
async def test_refused_logins_are_counted(house: House, name: str, password: str, error: type[RaftKVError]) -> None:
    with pytest.raises(error):
        await house.authenticator.log_in(name, password)
    assert (house.authenticator.logins, house.authenticator.logins_refused) == (0, 1)


async def test_a_name_that_does_not_exist_costs_as_much_as_one_that_does(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[str] = []

    def compare(password: str, text: str) -> bool:
        compared.append(text)
        return verify_password(password, text)

    monkeypatch.setattr(comparing, "verify_password", compare)
    for name in ("ann", "bob", "cert"):
        with pytest.raises((AuthFailed, NoPasswordUser)):
            await house.authenticator.log_in(name, "wrong")
    assert len(compared) == 3
    assert all(is_password_hash(text) for text in compared), "each is worth as much work"
    assert {text.split("$")[1] for text in compared} == {HASH.split("$")[1]}


async def test_a_refusal_takes_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    house = House(Limits(map_bytes=1 << 26, login_refusal_ms=60_000))
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(authn.asyncio, "sleep", sleep)  # type: ignore[attr-defined]
    with pytest.raises(AuthFailed):
        await house.authenticator.log_in("bob", "secret")
    await house.authenticator.log_in("ann", "secret")
    assert len(slept) == 1, "of the refused one"
    assert 30 < slept[0] <= 60
    house.authenticator.close()


async def test_nobody_logs_in_while_it_is_off(house: House) -> None:
    house.do([AUTH_DISABLE, 0])
    with pytest.raises(AuthNotEnabled):
        await house.authenticator.log_in("ann", "secret")
    assert house.authenticator.logins_refused == 0


async def test_a_member_that_is_cut_off_compares_with_what_it_has(house: House) -> None:
    house.service.refusal = NoQuorum()
    assert (await house.authenticator.log_in("ann", "secret")).user == "ann"
    with pytest.raises(NoQuorum):
        await house.authenticator.log_in("ann", "newer")
    assert house.authenticator.logins_refused == 0, "it may be right elsewhere"
    with pytest.raises(NoQuorum):
        await house.authenticator.authenticate("ann", "secret")


async def test_a_password_that_changes_during_the_login_ends_it(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def compare(password: str, text: str) -> bool:
        asyncio.run_coroutine_threadsafe(change(), loop).result()
        return True

    async def change() -> None:
        house.do([USER_CHANGE_PASSWORD, 0, "ann", HASH])

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(comparing, "verify_password", compare)
    with pytest.raises(AuthOldRevision):
        await house.authenticator.log_in("ann", "secret")


async def test_too_many_logins_are_turned_away(house: House) -> None:
    wrong = [house.authenticator.log_in("ann", f"wrong {number}") for number in range(5)]
    results = await asyncio.gather(*wrong, return_exceptions=True)
    assert [type(result) for result in results].count(Overloaded) == 3
    assert house.authenticator.logins_turned_away == 3
    assert (await house.authenticator.log_in("ann", "secret")).user == "ann", "there is room again"


async def test_many_clients_of_one_user_cost_one_comparison(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a failover all come at once."""
    compared: list[str] = []

    def compare(password: str, text: str) -> bool:
        compared.append(password)
        return verify_password(password, text)

    monkeypatch.setattr(comparing, "verify_password", compare)
    callers = await asyncio.gather(*(house.authenticator.log_in("ann", "secret") for _ in range(50)))
    assert {caller.user for caller in callers} == {"ann"}
    await house.authenticator.log_in("ann", "secret")
    assert compared == ["secret"]
    for _ in range(2):
        with pytest.raises(AuthFailed):
            await house.authenticator.log_in("ann", "wrong")
    assert compared == ["secret", "wrong", "wrong"], "what does not fit is not remembered"
    house.do([USER_CHANGE_PASSWORD, 0, "ann", hash_password("newer")])
    with pytest.raises(AuthFailed):
        await house.authenticator.log_in("ann", "secret")
    assert (await house.authenticator.log_in("ann", "newer")).user == "ann"


async def test_who_shares_a_comparison_shares_its_refusal(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.authenticator._comparing.close()
    results = await asyncio.gather(
        *(house.authenticator.log_in("ann", "secret") for _ in range(3)), return_exceptions=True
    )
    assert [type(result) for result in results] == [ShuttingDown] * 3


async def test_only_so_much_is_remembered(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "REMEMBERED_MAX", 1)
    for name in ("ann", "root", "ann"):
        house.do([USER_CHANGE_PASSWORD, 0, name, hash_password("secret")])
        assert (await house.authenticator.log_in(name, "secret")).user == name
    assert len(house.authenticator._comparing._fitting) == 1


async def test_a_token_is_of_its_user_and_in_the_log_only_as_a_digest(house: House) -> None:
    token = await house.authenticator.authenticate("ann", "secret")
    assert house.authenticator.caller(token) == Caller("ann", house.store.auth.revision)
    assert index_of(token) == house.store.applied_index
    letters = token.partition(".")[0].encode()
    assert len(letters) == 22
    assert not any(letters in entry.data for entry in house.driver.log)
    assert house.service.proposed[-1][-1] == digest_of(token)
    for bad in (token[1:], "x" + token, "nobody.5", "." + token, "x" * 5000, "\ud800.1"):
        with pytest.raises(InvalidAuthToken):
            house.authenticator.caller(bad)
    assert house.authenticator.caller(None) == house.authenticator.caller("") == ANYBODY
    other = token.partition(".")[0] + ".999"
    assert house.authenticator.caller(other).user == "ann", "the index is no secret"


async def test_what_ends_a_token(house: House) -> None:
    tokens = [await house.authenticator.authenticate(name, "secret") for name in ("ann", "root")]
    house.do([ROLE_ADD, 0, "r"])
    assert house.authenticator.caller(tokens[0]).user == "ann", "not the change of a role"
    house.do([USER_CHANGE_PASSWORD, 0, "ann", HASH])
    with pytest.raises(InvalidAuthToken):
        house.authenticator.caller(tokens[0])
    assert house.authenticator.caller(tokens[1]).user == "root"
    again = await house.authenticator.authenticate("ann", "secret")
    house.do([USER_DELETE, 0, "ann"])
    house.do([USER_ADD, 0, "ann", HASH, False])
    with pytest.raises(InvalidAuthToken):
        house.authenticator.caller(again)
    house.do([AUTH_DISABLE, 0])
    assert house.authenticator.caller("anything at all") == ANYBODY, "nobody looks at it"
    house.do([AUTH_ENABLE, 0])
    with pytest.raises(InvalidAuthToken):
        house.authenticator.caller(tokens[1])


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def tokens_of(house: House, clock: Callable[[], float]) -> Tokens:
    return Tokens(lambda: house.store.auth, clock, ttl_seconds=10, tokens_max=3)


async def test_a_token_lives_on_with_every_use(house: House) -> None:
    clock = Clock()
    tokens = tokens_of(house, clock)
    house.store.auth.issued.append(Issued(digest_of("a.1"), "ann", house.store.auth.revision))
    tokens.refresh()
    for _ in range(5):
        clock.now += 9
        assert tokens.use("a.1").user == "ann"
    clock.now += 11
    with pytest.raises(InvalidAuthToken):
        tokens.use("a.1")
    assert len(tokens) == 0


async def test_as_many_tokens_as_may_be(house: House) -> None:
    tokens = tokens_of(house, Clock())
    issued = [Issued(digest_of(name), "ann", house.store.auth.revision) for name in "abcd"]
    house.store.auth.issued.extend(issued[:3])
    assert tokens.use("a").user == "ann"
    house.store.auth.issued.append(issued[3])
    assert [tokens.use(name).user for name in "acd"] == ["ann"] * 3
    with pytest.raises(InvalidAuthToken):
        tokens.use("b")


async def test_a_token_that_is_told_twice_does_not_begin_anew(house: House) -> None:
    """After a defragmentation or a restart the log tells of it again."""
    clock = Clock()
    tokens = tokens_of(house, clock)
    issued = Issued(digest_of("a"), "ann", house.store.auth.revision)
    house.store.auth.issued.append(issued)
    tokens.refresh()
    clock.now = 9
    house.store.auth.issued.append(issued)
    tokens.refresh()
    clock.now = 11
    with pytest.raises(InvalidAuthToken):
        tokens.use("a")


async def test_a_token_from_elsewhere_is_waited_for(house: House) -> None:
    """It names the index at which it was known: a member that is not there yet cannot say that it is none."""
    token = f"{draw_token()}.{house.store.applied_index + 1}"
    found: list[Caller | RaftKVError] = []
    arrived = asyncio.Event()
    house.authenticator.look_up(token, lambda result: (found.append(result), arrived.set())[0])
    assert found == []
    house.do([ROLE_ADD, 0, "r"])
    house.store.auth.issued.append(Issued(digest_of(token), "ann", house.store.auth.revision))
    await asyncio.wait_for(arrived.wait(), 10)
    assert found == [Caller("ann", house.store.auth.revision)]
    house.authenticator.look_up("none.1", found.append)
    assert isinstance(found[-1], InvalidAuthToken), "that one would be known"
    house.authenticator.look_up(None, found.append)
    assert found[-1] == ANYBODY


async def test_certificates(house: House) -> None:
    caller = house.authenticator.caller_of_certificate("cert")
    assert caller.user == "cert"
    house.do([USER_CHANGE_PASSWORD, 0, "cert", HASH])
    house.do([AUTH_DISABLE, 0])
    house.do([AUTH_ENABLE, 0])
    house.store.access.check([STATUS], *caller)  # it does not end with passwords and tokens
    house.do([USER_DELETE, 0, "cert"])
    with pytest.raises(PermissionDenied):
        house.store.access.check([STATUS], *caller)
    assert house.authenticator.caller_of_certificate("") == ANYBODY, "and surely not a member"


async def test_passwords_are_hashed_for_doors_that_get_them_in_clear(house: House) -> None:
    assert verify_password("new", await house.authenticator.hash_password("new"))
    with pytest.raises(InvalidRequest):
        await house.authenticator.hash_password("x" * 5000)


async def test_insecure_peers(house: House) -> None:
    with pytest.raises(InsecurePeers):
        house.authenticator.check_peers()
    house.authenticator.peers_are_secure = lambda: True
    house.authenticator.check_peers()


async def test_a_member_warns_when_its_peers_are_not_what_they_were(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    """Authentication was enabled while they were secure; then somebody took the certificates away."""
    house.authenticator.start()
    assert "peer port is open" in caplog.text
    house.authenticator.close()
    caplog.clear()
    house.authenticator.peers_are_secure = lambda: True
    house.authenticator.start()
    assert not caplog.text


async def test_tokens_are_taken_note_of_without_anybody_asking(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else one that nobody used on this member for an hour would begin its time with its first use."""
    monkeypatch.setattr(authn, "REFRESH_SECONDS", 0.001)
    house.authenticator.start()
    house.store.auth.issued.append(Issued(digest_of("a"), "ann", house.store.auth.revision))
    async with asyncio.timeout(10):
        while not len(house.authenticator.tokens):
            await asyncio.sleep(0.001)


async def test_metrics(house: House) -> None:
    await house.authenticator.authenticate("ann", "secret")
    with pytest.raises(AuthFailed):
        await house.authenticator.log_in("ann", "wrong")
    house.authenticator.tokens.refresh()
    samples = {
        (sample.name, sample.labels.get("outcome")): sample.value
        for family in LoginMetrics(house.authenticator).collect()
        for sample in family.samples
    }
    assert samples["raftkv_logins_total", "ok"] == samples["raftkv_logins_total", "refused"] == 1
    assert samples["raftkv_tokens", None] == 1
    assert samples["etcd_debugging_auth_revision", None] == house.store.auth.revision


async def test_who_asks_over_http(house: House) -> None:
    token = await house.authenticator.authenticate("ann", "secret")
    for header in (token, f"Bearer {token}", "Basic YW5uOnNlY3JldA=="):
        assert (await caller_of(house.authenticator, header)).user == "ann"
    for header, error in (
        ("Basic YW5uOndyb25n", AuthFailed),
        ("Basic !", InvalidAuthToken),
        ("Bearer x", InvalidAuthToken),
    ):
        with pytest.raises(error):
            await caller_of(house.authenticator, header)
    judge = make_judge(house.authenticator, house.service)  # type: ignore[arg-type]
    assert await judge([STATUS], token, "") is None
    assert isinstance(await judge([STATUS], None, ""), UserEmpty)
    assert isinstance(await judge([CHANGE_MEMBERS, {}], token, ""), PermissionDenied)
    house.do([AUTH_DISABLE, 0])
    assert await judge([CHANGE_MEMBERS, {}], None, "") is None

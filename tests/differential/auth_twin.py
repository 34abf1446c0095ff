"""raftkv's end of the stories of users and roles without any door: procedures and commands on one store, as a member of its own would answer.

It tells at once whether rules differ from etcd's, and needs no daemon. What doors make of it is compared in tests/differential/doors.
"""

import asyncio
from typing import Any

from raftkv.daemon.authn import Authenticator
from raftkv.daemon.etcd import auth as procedures
from raftkv.daemon.etcd.house import House
from raftkv.errors import RaftKVError
from raftkv.etcd.auth import AUTH_METHODS
from raftkv.etcd.methods import BY_PATH, Method
from raftkv.etcd.responses import Origin
from raftkv.etcd.statuses import Status, status_of
from raftkv.limits import Limits
from raftkv.store.memory_keyspace import MemoryKeyspace
from raftkv.wire.commands import FAILED, READS, error_of, failure
from raftkv.wire.identity import ANYBODY, Caller
from raftkv.wire.validate import validate
from tests.differential.doors.ends import End
from tests.unit.store.stores import Driver

METHODS: dict[str, Method] = {**BY_PATH, **{method.path: method for method in AUTH_METHODS}}
ORIGIN = Origin(1, 2, 3)
LIMITS = Limits(map_bytes=1 << 26, login_refusal_ms=1)


class _Service:
    """A member that is alone: what is asked is done."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver

    @property
    def access(self) -> Any:
        return self.driver.store.access

    def deadline(self, timeout_ms: int) -> int:
        return timeout_ms

    def submit_reads(self, group: Any) -> None:
        answers = []
        for command in group.commands:
            try:
                self.access.check(command, group.user, group.auth_revision)
                answers.append(self.driver.store.read(command))
            except RaftKVError as error:
                answers.append(failure(error))
        group.origin.on_answers(group, answers)

    def forward(self, group: Any) -> None:
        group.origin.on_answers(group, self.driver.apply_groups([group.items()])[0])


class _Member:
    authenticator: Authenticator

    def schedule_pump(self) -> None: ...


class _View:
    header_ids = ORIGIN

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    @property
    def revision(self) -> int:
        return self._driver.store.revision


class _Call:
    timeout_ms = 0

    def __init__(self, caller: Caller) -> None:
        self.caller = caller


class _House(House):
    """What procedures use of it, without a daemon."""

    def __init__(self, driver: Driver) -> None:
        self.service = _Service(driver)  # type: ignore[assignment]
        self.member = _Member()  # type: ignore[assignment]
        self.view = _View(driver)  # type: ignore[assignment]
        self.limits = LIMITS
        self.request_timeout_ms = 5_000

    async def ask(self, command: Any, caller: Caller = ANYBODY, timeout_ms: int = 0) -> Any:
        answer = await _do(self, command, caller)
        if answer[0] == FAILED:
            raise error_of(answer)
        return answer


async def _do(house: Any, command: Any, caller: Caller) -> Any:
    validate(command, LIMITS)
    driver = house.service.driver
    if command[0] in READS:
        house.service.access.check(command, *caller)
        return driver.store.read(command)
    user, auth_revision = caller
    return driver.apply_groups([[None, False, 0, user, auth_revision, [command]]])[0][0]


class AuthTwin(End):
    """An end of a comparison (tests/differential/doors/ends.py)."""

    def __init__(self) -> None:
        super().__init__("")
        self._loop = asyncio.new_event_loop()
        self._driver = Driver(MemoryKeyspace(), LIMITS)
        self._house = _House(self._driver)
        self._authenticator = self._house.member.authenticator = Authenticator(
            self._driver,
            self._house.service,
            LIMITS,
            lambda: None,
            loop=self._loop,
            allow_insecure_peers=True,
        )

    def answer(
        self, path: str, gateway: str, request: Any, answered_by: Any, metadata: tuple[tuple[str, str], ...] = ()
    ) -> Any:
        token = dict(metadata).get("token")
        return self._loop.run_until_complete(self._answer(path, request, token))

    async def _answer(self, path: str, request: Any, token: str | None) -> Any:
        try:
            caller = self._authenticator.caller(token)
            name = path.rpartition("/")[2]
            if name in _PROCEDURES:
                return await _PROCEDURES[name](self._house, _Call(caller), request)
            method = METHODS[path]
            answer = await _do(self._house, method.command(request), caller)
            if answer[0] == FAILED:
                raise error_of(answer)
            return method.response(request, answer, ORIGIN)
        except RaftKVError as error:
            return status_of(error)

    def alarm(self, request: Any) -> None:
        """There is none."""

    def close(self) -> None:
        self._authenticator.close()
        self._loop.close()


_PROCEDURES: dict[str, Any] = {
    "AuthEnable": procedures.enable,
    "Authenticate": procedures.authenticate,
    "UserAdd": procedures.user_add,
    "UserChangePassword": procedures.change_password,
}

__all__ = ["AuthTwin", "Status"]

"""Users and roles that change while others come in through every door: what was taken back is taken back, everywhere, at once.

A subject is a user, a role and a key. Some clients are administrators, the others are that user, with the password of now or an older one, with logins and
tokens that are kept for as long as they are good, at the native protocol, the JSON gateway and gRPC. An access that is turned away for want of a
permission is an answer; one that found nobody to judge it says nothing.
"""

import asyncio
import random
from contextlib import aclosing
from typing import Any, Awaitable, Callable, ClassVar, Coroutine, Final, Sequence

from raftkv_jepsen.checkers import access as words
from raftkv_jepsen.checkers.access import ACCESS, ALLOWED, DENIED, OVERHEARD, ROOT_WRITE, check_access
from raftkv_jepsen.checkers.verdict import Verdict
from raftkv_jepsen.clients.base import Client, ClientError, Door
from raftkv_jepsen.history import FAIL, Operation
from raftkv_jepsen.workloads.base import Workload

DENIALS: Final = (
    *("permission_denied", "auth_failed"),
    *("permission denied", "authentication failed, invalid user ID or password"),
)
"""Words of raftkv and of etcd. A token that is none is no answer: members forget tokens when they start."""
DOORS_KEPT: Final = 3
LISTENED: Final = "native"
TAKEN: Final = (words.PASSWORD, words.USER_DELETE, words.REVOKE, words.FORBID, words.ROLE_DELETE)
"""From a listener, that hears nothing afterwards."""
WRITES_UNHEARD: Final = 20
WRITES_AFTER: Final = 3
BETWEEN_S: Final = 0.05
LAST_TRIES: Final = 3
"""A last look is repeated when its token had been forgotten."""
CHANGES: Final = (
    *(words.USER_ADD, words.USER_DELETE, words.PASSWORD, words.GRANT),
    *(words.REVOKE, words.REVOKE, words.ROLE_DELETE, words.PERMIT, words.PERMIT, words.FORBID),
)
REPAIRS: Final = {
    words.USER_DELETE: (words.USER_ADD, words.GRANT),
    words.ROLE_DELETE: (words.ROLE_ADD, words.GRANT, words.PERMIT),
    words.REVOKE: (words.GRANT,),
    words.FORBID: (words.PERMIT,),
    words.PERMIT: (words.PERMIT,),
}
"""Who could not get in at all most of the time would prove little."""


class Auth(Workload):
    """Every third client is an administrator."""

    name: ClassVar[str] = "auth"
    clients_min: ClassVar[int] = 5

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._passwords: dict[str, list[str]] = {}
        self._current: dict[str, str] = {}
        self._hearing: set[str] = set()
        self._broken: dict[str, list[str]] = {}
        self._open: dict[int, list[tuple[str, str, str, Door]]] = {}
        """By process: key, kind of door, password, and the door."""

    async def step(self, process: int, client: Client, draw: random.Random) -> None:
        key = self.object_key(draw)
        if key not in self._passwords:
            await self._begin(process, client, key)
        elif (process - self.first_process) % 3 == 0:
            await self._change_something(process, client, key, draw)
        else:
            await self._access(process, key, draw)

    # Administrators.

    async def _begin(self, process: int, client: Client, key: str) -> None:
        """A subject that may do everything; whatever of it fails, changes will meet."""
        self._passwords[key] = []
        draw = random.Random(key)
        for change in (words.ROLE_ADD, words.USER_ADD, words.GRANT):
            await self._change(process, client, key, change, draw)
        await self._perform(process, client, key, words.PERMIT, "readwrite")

    async def _change_something(self, process: int, client: Client, key: str, draw: random.Random) -> None:
        broken = self._broken.setdefault(key, [])
        if broken and draw.random() < 0.85:
            for repair in REPAIRS[broken.pop(0)]:
                await self._repair(process, client, key, repair, draw)
            return
        change = draw.choice(CHANGES)
        if change in REPAIRS:
            broken.append(change)
        await self._change(process, client, key, change, draw)

    async def _repair(self, process: int, client: Client, key: str, repair: str, draw: random.Random) -> None:
        if repair == words.PERMIT:
            await self._perform(process, client, key, repair, "readwrite")
        else:
            await self._change(process, client, key, repair, draw)

    async def _change(self, process: int, client: Client, key: str, change: str, draw: random.Random) -> None:
        argument = None
        if change in (words.USER_ADD, words.PASSWORD):
            argument = f"secret-{self.fresh_value()}"
            self._passwords[key].append(argument)
        elif change == words.PERMIT:
            argument = draw.choice(("readwrite", "readwrite", "read", "write"))
        await self._perform(process, client, key, change, argument)

    async def _perform(self, process: int, client: Client, key: str, change: str, argument: str | None) -> None:
        users, user, role = client.users, f"u-{key[5:]}", f"r-{key[5:]}"
        given = str(argument)
        calls: dict[str, Callable[[], Awaitable[str]]] = {
            words.USER_ADD: lambda: users.user_add(user, given),
            words.USER_DELETE: lambda: users.user_delete(user),
            words.PASSWORD: lambda: users.change_password(user, given),
            words.GRANT: lambda: users.grant_role(user, role),
            words.REVOKE: lambda: users.revoke_role(user, role),
            words.ROLE_ADD: lambda: users.role_add(role),
            words.ROLE_DELETE: lambda: users.role_delete(role),
            words.PERMIT: lambda: users.permit(role, given, key),
            words.FORBID: lambda: users.forbid(role, key),
        }
        operation = Operation(process, change, key, argument)
        await self.stage.recorder.perform(operation, calls[change]())
        if change in (words.USER_ADD, words.PASSWORD) and operation.outcome != FAIL and operation.result != words.NO:
            self._current[key] = given

    # Users.

    def loops(self) -> list[Coroutine[Any, Any, None]]:
        """The last ones listen, where a watch is judged again after it has begun; etcd does not promise that."""
        loops = super().loops()
        if LISTENED in self.stage.doors:
            for number in range(len(self.clients) - max(1, len(self.clients) // 4), len(self.clients)):
                loops[number].close()
                loops[number] = self._listen(self.first_process + number, self.clients[number])
        return loops

    async def _listen(self, process: int, client: Client) -> None:
        """Round after round, each with a subject of its own: it hears something, what it needs for that is taken back, and root writes on."""
        draw = random.Random(f"listener {self.draw.random()}")
        for number in range(1_000_000):
            await self.stage.pause(draw)
            if self.stage.stopping:
                return
            key = f"auth/heard-{process}-{number}"
            await self._begin(process, client, key)
            listening = asyncio.create_task(self._hear(process, key))
            try:
                for _ in range(WRITES_UNHEARD):
                    if listening.done() or key in self._hearing:
                        break
                    await self._write_as_root(process, client, key)
                await self._change(process, client, key, draw.choice(TAKEN), draw)
                for _ in range(WRITES_AFTER):
                    await self._write_as_root(process, client, key)
            finally:
                listening.cancel()
                await asyncio.wait([listening])

    async def _hear(self, process: int, key: str) -> None:
        password = self._passwords[key][0]
        door: Any = self.stage.doors[LISTENED](f"u-{key[5:]}", password)
        try:
            async with aclosing(door.listen(key)) as values:
                async for value in values:
                    self._hearing.add(key)
                    now_ns = self.stage.recorder.now_ns()
                    heard = Operation(process, OVERHEARD, key, [LISTENED, "read", password, value])
                    self.stage.recorder.happened(heard, now_ns, now_ns)
        except ClientError:
            pass  # it was sent away, or nobody served it
        finally:
            await door.close()

    async def _write_as_root(self, process: int, client: Client, key: str) -> None:
        value = str(self.fresh_value())
        written = Operation(process, ROOT_WRITE, key, [ROOT_WRITE, "write", "", value])
        await self.stage.recorder.perform(written, client.put(key, value), result=lambda _: None)
        await asyncio.sleep(BETWEEN_S)

    async def _access(self, process: int, key: str, draw: random.Random) -> None:
        kept = self._open.setdefault(process, [])
        fitting = [row for row in kept if row[0] == key]
        passwords = self._passwords[key]
        if not passwords:
            return
        current = self._current.get(key, passwords[-1])
        good = [row for row in fitting if row[2] == current]
        lot = draw.random()
        if (good and lot < 0.6) or (fitting and lot < 0.25):
            _, kind, password, door = draw.choice(good if lot >= 0.25 else fitting)
        else:
            kind = draw.choice(sorted(self.stage.doors))
            password = current if draw.random() < 0.85 else draw.choice(passwords)
            door = self.stage.doors[kind](f"u-{key[5:]}", password)
            kept.append((key, kind, password, door))
            if len(kept) > DOORS_KEPT:
                await kept.pop(0)[3].close()
        what = draw.choice(("read", "read", "write"))
        await self._try(process, key, (kind, what, password), door, draw.choice(self.stage.nodes))

    async def _try(self, process: int, key: str, how: tuple[str, str, str], door: Door, node: str) -> Operation:
        written = [] if how[1] == "read" else [str(self.fresh_value())]

        async def let_in() -> str:
            try:
                if written:
                    await door.put(key, written[0], node=node)
                else:
                    await door.get(key, node=node)
            except ClientError as error:
                if not error.may_have_happened and any(denial in str(error) for denial in DENIALS):
                    return DENIED
                raise
            return ALLOWED

        operation = Operation(process, ACCESS, key, [*how, *written], node=node)
        await self.stage.recorder.perform(operation, let_in())
        return operation

    async def finish(self) -> None:
        """At every member and through every door: let in, and after the role was taken, not any more."""
        client, process = self.clients[0], self.first_process
        draw = random.Random(0)
        for key in list(self._passwords)[-2:]:
            for change in (words.USER_ADD, words.PASSWORD, words.ROLE_ADD, words.GRANT):
                await self._change(process, client, key, change, draw)
            await self._perform(process, client, key, words.PERMIT, "readwrite")
            await self._look_everywhere(process, key)
            await self._perform(process, client, key, words.REVOKE, None)
            await self._look_everywhere(process, key)

    async def release(self) -> None:
        for rows in self._open.values():
            for row in rows:
                await row[3].close()

    async def _look_everywhere(self, process: int, key: str) -> None:
        password = self._current.get(key, self._passwords[key][-1])
        for kind, make in sorted(self.stage.doors.items()):
            door = make(f"u-{key[5:]}", password)
            for node in self.stage.nodes:
                for _ in range(LAST_TRIES):
                    if (await self._try(process, key, (kind, "read", password), door, node)).outcome != FAIL:
                        break
            await door.close()

    @classmethod
    def check(cls, operations: Sequence[Operation]) -> list[Verdict]:
        return check_access(operations)

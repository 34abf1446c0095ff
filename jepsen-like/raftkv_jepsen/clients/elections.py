"""Elections as the harness speaks of them: raftkv's recipe, and etcd's election service through the JSON gateway. Both may stand for one office.

Who stands through the gateway keeps its own lease alive, as etcd's clients do, and relies on its office for as long as the last answered renewal promised.
"""

import asyncio
import random
import time
from typing import Any, AsyncIterator, Final, Mapping, NamedTuple, Protocol, Sequence

from raftkv.errors import RaftKVError
from raftkv_jepsen.clients.base import ClientError
from raftkv_jepsen.clients.gateway import Gateway, plain, text_of
from raftkv_jepsen.clients.recipes import asked, error_of

NOBODY: Final = "election: no leader"


class Word(NamedTuple):
    """What a leader says, and when it said so."""

    token: int
    value: str
    revision: int


class Election(Protocol):
    """One candidate, or one who looks on."""

    async def campaign(self, value: str, timeout_s: float) -> int:
        """The token of the office. Raises ClientError when it was not to be had."""
        ...

    async def proclaim(self, value: str) -> None: ...

    async def resign(self) -> None: ...

    async def abandon(self) -> None:
        """As one that dies: the office is nobody's when its lease has ended."""
        ...

    @property
    def surely_held(self) -> bool: ...

    async def leader(self) -> Word | None: ...

    def observe(self) -> AsyncIterator[Word]: ...


class NativeElection:
    """raftkv.recipes.election."""

    def __init__(self, kv: Any, name: str, ttl_s: float) -> None:
        self._kv = kv
        self._election = kv.election(name, ttl=ttl_s)

    async def campaign(self, value: str, timeout_s: float) -> int:
        return int(await asked(self._election.campaign(value, timeout_s)))

    async def proclaim(self, value: str) -> None:
        await asked(self._election.proclaim(value))

    async def resign(self) -> None:
        await asked(self._election.resign())

    async def abandon(self) -> None:
        """Its lease ends behind its back, and it goes on believing for a moment."""
        key: bytes = self._election.key
        await asked(self._kv.lease_revoke(int(key.rsplit(b"/", 1)[1].split(b"-")[0], 16)))

    @property
    def surely_held(self) -> bool:
        return bool(self._election.held and self._election.valid_for > 0)

    async def leader(self) -> Word | None:
        found = await asked(self._election.leader())
        return None if found is None else Word(int(found.token), found.value.decode(), int(found.revision))

    async def observe(self) -> AsyncIterator[Word]:
        words = self._election.observe()
        try:
            async for found in words:
                yield Word(int(found.token), found.value.decode(), int(found.revision))
        except RaftKVError as error:
            raise error_of(error) from error
        finally:
            await words.aclose()


class GatewayElection:
    """etcd's election service, each call at a member that is drawn."""

    def __init__(self, gateway: Gateway, nodes: Sequence[str], name: str, ttl_s: float) -> None:
        self._gateway = gateway
        self._nodes = nodes
        self._draw = random.Random(f"{name} {id(self)}")
        self._name = name
        self._ttl_s = ttl_s
        self._lease = 0
        self._leader: Mapping[str, Any] | None = None
        self._sure_until_s = 0.0
        self._renewing: asyncio.Task[None] | None = None

    async def _ask(self, path: str, question: Mapping[str, Any], **options: Any) -> dict[str, Any]:
        return await self._gateway.call(self._draw.choice(self._nodes), path, question, **options)

    async def campaign(self, value: str, timeout_s: float) -> int:
        began_s = time.monotonic()
        granted = await self._ask("lease/grant", {"TTL": int(self._ttl_s)})
        self._lease = int(granted["ID"])
        self._sure_until_s = began_s + float(granted["TTL"])
        self._renewing = asyncio.create_task(self._renew())
        question = {"name": text_of(self._name), "lease": str(self._lease), "value": text_of(value)}
        try:
            answer = await self._ask("election/campaign", question, timeout_s=timeout_s)
        except BaseException:
            self._stop()
            raise
        self._leader = answer["leader"]
        return int(answer["leader"]["rev"])

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._ttl_s / 4)
            began_s = time.monotonic()
            try:
                answer = await self._ask("lease/keepalive", {"ID": str(self._lease)}, timeout_s=self._ttl_s / 2)
            except ClientError:
                continue
            ttl_s = float(answer.get("TTL", 0))
            if ttl_s <= 0:
                self._sure_until_s = 0.0
                return
            self._sure_until_s = max(self._sure_until_s, began_s + ttl_s)

    def _stop(self) -> None:
        if self._renewing is not None:
            self._renewing.cancel()
            self._renewing = None

    async def proclaim(self, value: str) -> None:
        await self._ask("election/proclaim", {"leader": self._leader, "value": text_of(value)})

    async def resign(self) -> None:
        self._stop()
        self._sure_until_s = 0.0
        await self._ask("election/resign", {"leader": self._leader})

    async def abandon(self) -> None:
        """Nobody keeps its lease alive any more."""
        self._stop()

    @property
    def surely_held(self) -> bool:
        return self._leader is not None and time.monotonic() < self._sure_until_s

    async def leader(self) -> Word | None:
        try:
            return _word(await self._ask("election/leader", {"name": text_of(self._name)}))
        except ClientError as error:
            if NOBODY in str(error):
                return None
            raise

    async def observe(self) -> AsyncIterator[Word]:
        question = {"name": text_of(self._name)}
        async for answer in self._gateway.lines(self._draw.choice(self._nodes), "election/observe", question):
            yield _word(answer)


def _word(answer: Mapping[str, Any]) -> Word:
    kv = answer["kv"]
    return Word(int(kv["create_revision"]), plain(kv.get("value", "")), int(kv["mod_revision"]))

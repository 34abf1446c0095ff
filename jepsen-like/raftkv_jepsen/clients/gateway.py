"""etcd's JSON gateway as a door of its own: the same calls on raftkv and on a real etcd, each to the one member that is named.

It is the third door beside the native protocol and gRPC, and the only one of etcd's that needs no grpcio. A login's token is kept until a member says that
it is none: such a call surely did nothing, and is made again once, after a new login, as etcd's own clients do it. Nothing else is repeated.
"""

import json
from base64 import b64decode, b64encode
from typing import Any, AsyncIterator, Final, Mapping

import aiohttp

from raftkv_jepsen.clients.base import ClientError, Held

TIMEOUT_S: Final = 4.0
UNKNOWN_CODES: Final = frozenset({1, 2, 4, 13, 14})
"""Of gRPC: cancelled, unknown, deadline exceeded, internal, unavailable."""
SURELY_NOT: Final = (
    "etcdserver: no leader",
    "connection refused",
    "revision of auth store is old",
    "revision in header is old",
    "election: not leader",
    "election: no leader",
)
TOKEN_IS_NONE: Final = ("invalid auth token", "revision of auth store is old", "revision in header is old")
"""The last one in the words of etcd 3.5.1: users have changed while it was on its way, and it was not done."""


def text_of(words: str) -> str:
    """As the gateway wants bytes."""
    return b64encode(words.encode()).decode()


def plain(text: str) -> str:
    """The words behind bytes of the gateway."""
    return b64decode(text).decode()


def error_of(answer: Mapping[str, Any]) -> ClientError:
    """Of an answer that has a code."""
    code, words = int(answer.get("code", 2)), str(answer.get("message") or answer.get("error") or answer)
    unknown = code in UNKNOWN_CODES and not any(known in words for known in SURELY_NOT)
    return ClientError(f"{code}: {words}"[:200], may_have_happened=unknown)


class Gateway:
    """One user at the gateways of all members. Without a login nothing is shown."""

    def __init__(self, addresses: Mapping[str, str], login: tuple[str, str] | None = None) -> None:
        self._addresses = addresses
        self._login = login
        self._token = ""
        self._http: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._http is not None:
            await self._http.close()

    async def call(
        self, node: str, path: str, question: Mapping[str, Any], *, timeout_s: float = TIMEOUT_S
    ) -> dict[str, Any]:
        """The answer of one member. Raises ClientError."""
        known = self._token
        try:
            return await self._call(node, path, question, timeout_s)
        except ClientError:
            if not known or self._token:
                raise
        return await self._call(node, path, question, timeout_s)

    async def _call(self, node: str, path: str, question: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        headers = await self._headers(node)
        answer = await self._post(node, path, question, headers, timeout_s)
        wrapped = answer.get("result")  # streams wrap theirs
        if isinstance(wrapped, dict):
            return wrapped
        if "code" in answer or "error" in answer:
            self._look_at(answer)
            raise error_of(answer)
        return answer

    async def lines(self, node: str, path: str, question: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """What a stream of answers says. Raises ClientError."""
        headers = await self._headers(node)
        url = f"http://{self._addresses[node]}/v3/{path}"
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=TIMEOUT_S)
        try:
            async with self._session().post(url, data=json.dumps(question), headers=headers, timeout=timeout) as said:
                async for line in said.content:
                    answer = json.loads(line)
                    if "result" not in answer:
                        self._look_at(answer)
                        raise error_of(answer.get("error", answer) if isinstance(answer.get("error"), dict) else answer)
                    yield answer["result"]
        except (TimeoutError, aiohttp.ClientError, ValueError, OSError) as error:
            raise ClientError(repr(error)[:200], may_have_happened=True) from error

    async def _headers(self, node: str) -> dict[str, str]:
        if self._login is None:
            return {}
        if not self._token:
            question = {"name": self._login[0], "password": self._login[1]}
            try:
                answer = await self._post(node, "auth/authenticate", question, {}, TIMEOUT_S)
            except ClientError as error:
                raise ClientError(str(error), may_have_happened=False) from error  # nothing was asked for yet
            if "token" not in answer:
                raise ClientError(str(error_of(answer)), may_have_happened=False)
            self._token = answer["token"]
        return {"Authorization": self._token}

    def _look_at(self, answer: Mapping[str, Any]) -> None:
        if any(words in str(answer) for words in TOKEN_IS_NONE):
            self._token = ""

    def _session(self) -> aiohttp.ClientSession:
        if self._http is None:
            self._http = aiohttp.ClientSession()
        return self._http

    async def _post(
        self, node: str, path: str, question: Mapping[str, Any], headers: Mapping[str, str], timeout_s: float
    ) -> dict[str, Any]:
        url = f"http://{self._addresses[node]}/v3/{path}"
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        try:
            async with self._session().post(url, data=json.dumps(question), headers=headers, timeout=timeout) as said:
                answer = json.loads(await said.read())
        except aiohttp.ClientConnectorError as error:
            raise ClientError(repr(error)[:200], may_have_happened=False) from error
        except (TimeoutError, aiohttp.ClientError, ValueError, OSError) as error:
            raise ClientError(repr(error)[:200], may_have_happened=True) from error
        if not isinstance(answer, dict):
            raise ClientError(f"no object: {answer}"[:200], may_have_happened=True)
        return answer


class GatewayDoor:
    """Reads and writes of one user through the gateway, at a member that is named."""

    def __init__(self, addresses: Mapping[str, str], login: tuple[str, str]) -> None:
        self._gateway = Gateway(addresses, login)

    async def get(self, key: str, *, node: str) -> Held | None:
        answer = await self._gateway.call(node, "kv/range", {"key": text_of(key)})
        if not answer.get("kvs"):
            return None
        kv = answer["kvs"][0]
        return Held(plain(kv.get("value", "")), int(kv["create_revision"]), int(kv["mod_revision"]))

    async def put(self, key: str, value: str, *, node: str) -> int:
        answer = await self._gateway.call(node, "kv/put", {"key": text_of(key), "value": text_of(value)})
        return int(answer["header"]["revision"])

    async def close(self) -> None:
        await self._gateway.close()

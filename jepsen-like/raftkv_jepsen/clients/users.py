"""Changes of users and roles as the harness asks for them: by raftkv's library, or by etcd's calls through the JSON gateway.

A change that could not be made because things are not so (no such user, a role that was not granted) ends with NO, which is an answer that a judge can
look at; every other refusal is a ClientError.
"""

import random
from typing import Any, Awaitable, Final, Mapping, Protocol, Sequence

from raftkv_jepsen.clients.base import ClientError
from raftkv_jepsen.clients.gateway import Gateway, text_of
from raftkv_jepsen.clients.recipes import asked

DONE: Final = "done"
NO: Final = "no"
NO_WORDS: Final = (
    *("user_exists", "user_not_found", "role_exists", "role_not_found", "role_not_granted", "permission_not_granted"),
    *("user name already exists", "user name not found", "role name already exists", "role name not found"),
    *("role is not granted to the user", "permission is not granted to the role"),
)
KINDS: Final = ("READ", "WRITE", "READWRITE")


class Users(Protocol):
    """An administrator. Each returns DONE or NO, or raises ClientError."""

    async def user_add(self, user: str, password: str) -> str: ...

    async def user_delete(self, user: str) -> str: ...

    async def change_password(self, user: str, password: str) -> str: ...

    async def grant_role(self, user: str, role: str) -> str: ...

    async def revoke_role(self, user: str, role: str) -> str: ...

    async def role_add(self, role: str) -> str: ...

    async def role_delete(self, role: str) -> str: ...

    async def permit(self, role: str, kind: str, key: str) -> str:
        """`kind`: read, write or readwrite, on one key."""
        ...

    async def forbid(self, role: str, key: str) -> str: ...


async def settled(call: Awaitable[object]) -> str:
    """DONE or NO. Raises ClientError for whatever says nothing about users."""
    try:
        await call
    except ClientError as error:
        if not error.may_have_happened and any(words in str(error) for words in NO_WORDS):
            return NO
        raise
    return DONE


class NativeUsers:
    """By raftkv's library."""

    def __init__(self, kv: Any) -> None:
        self._kv = kv

    async def user_add(self, user: str, password: str) -> str:
        return await settled(asked(self._kv.user_add(user, password)))

    async def user_delete(self, user: str) -> str:
        return await settled(asked(self._kv.user_delete(user)))

    async def change_password(self, user: str, password: str) -> str:
        return await settled(asked(self._kv.user_change_password(user, password)))

    async def grant_role(self, user: str, role: str) -> str:
        return await settled(asked(self._kv.user_grant_role(user, role)))

    async def revoke_role(self, user: str, role: str) -> str:
        return await settled(asked(self._kv.user_revoke_role(user, role)))

    async def role_add(self, role: str) -> str:
        return await settled(asked(self._kv.role_add(role)))

    async def role_delete(self, role: str) -> str:
        return await settled(asked(self._kv.role_delete(role)))

    async def permit(self, role: str, kind: str, key: str) -> str:
        return await settled(asked(self._kv.role_grant_permission(role, kind, key)))

    async def forbid(self, role: str, key: str) -> str:
        return await settled(asked(self._kv.role_revoke_permission(role, key)))


class GatewayUsers:
    """By etcd's calls, each at a member that is drawn."""

    def __init__(self, gateway: Gateway, nodes: Sequence[str]) -> None:
        self._gateway = gateway
        self._nodes = nodes
        self._draw = random.Random(f"users {id(self)}")

    async def _ask(self, path: str, question: Mapping[str, Any]) -> str:
        return await settled(self._gateway.call(self._draw.choice(self._nodes), f"auth/{path}", question))

    async def user_add(self, user: str, password: str) -> str:
        return await self._ask("user/add", {"name": user, "password": password})

    async def user_delete(self, user: str) -> str:
        return await self._ask("user/delete", {"name": user})

    async def change_password(self, user: str, password: str) -> str:
        return await self._ask("user/changepw", {"name": user, "password": password})

    async def grant_role(self, user: str, role: str) -> str:
        return await self._ask("user/grant", {"user": user, "role": role})

    async def revoke_role(self, user: str, role: str) -> str:
        return await self._ask("user/revoke", {"name": user, "role": role})

    async def role_add(self, role: str) -> str:
        return await self._ask("role/add", {"name": role})

    async def role_delete(self, role: str) -> str:
        return await self._ask("role/delete", {"role": role})

    async def permit(self, role: str, kind: str, key: str) -> str:
        permission = {"permType": kind.upper(), "key": text_of(key)}
        return await self._ask("role/grant", {"name": role, "perm": permission})

    async def forbid(self, role: str, key: str) -> str:
        return await self._ask("role/revoke", {"role": role, "key": text_of(key)})

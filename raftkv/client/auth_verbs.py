"""The verbs of users and roles, a mixin for each of the two clients (client.py, sync.py). docs/auth.md says what they mean.

Hashing a password takes tens of milliseconds: the asyncio client does it in a thread.
"""

from typing import Awaitable, overload

from raftkv.client import auth_requests
from raftkv.client.auth_requests import AuthStatus, Kind, Permission
from raftkv.client.requests import Bytes
from raftkv.wire.commands import Answer, Command
from raftkv.wire.users import (
    AUTH_DISABLE,
    AUTH_ENABLE,
    AUTH_LIST,
    AUTH_STATUS,
    LIST_ROLES,
    LIST_USERS,
    ROLE_ADD,
    ROLE_DELETE,
    ROLE_GET,
    USER_CHANGE_PASSWORD,
    USER_DELETE,
    USER_GET,
    USER_GRANT_ROLE,
    USER_REVOKE_ROLE,
)


class AuthVerbs:
    """Of the blocking client."""

    def _write(self, command: Command, timeout: float | None) -> Answer:
        raise NotImplementedError

    def _read(self, command: Command, stale: bool, timeout: float | None) -> Answer:
        raise NotImplementedError

    def auth_enable(self, *, timeout: float | None = None) -> None:
        """Have everybody log in from now on. Raises RootUserMissing, RootRoleMissing, InsecurePeers."""
        self._write([AUTH_ENABLE, 0], timeout)

    def auth_disable(self, *, timeout: float | None = None) -> None:
        """Let everybody do everything. Ends all logins."""
        self._write([AUTH_DISABLE, 0], timeout)

    def auth_status(self, *, timeout: float | None = None) -> AuthStatus:
        """Whether everybody has to log in, and the revision of users and roles."""
        return auth_requests.auth_status(self._read([AUTH_STATUS, 0], False, timeout))

    def user_add(self, name: str, password: str | None, *, timeout: float | None = None) -> None:
        """A new user; `password` None: it can never have one. Only a hash of it leaves this process. Raises UserExists."""
        password_hash = _hash(password)
        self._write(auth_requests.user_add(name, password_hash), timeout)

    def user_delete(self, name: str, *, timeout: float | None = None) -> None:
        """Ends its logins, too. Raises UserNotFound."""
        self._write([USER_DELETE, 0, name], timeout)

    def user_change_password(self, name: str, password: str, *, timeout: float | None = None) -> None:
        """Ends its logins. Raises UserNotFound."""
        password_hash = _hash(password)
        self._write([USER_CHANGE_PASSWORD, 0, name, password_hash], timeout)

    def user_get(self, name: str, *, timeout: float | None = None) -> list[str]:
        """The roles of a user. Raises UserNotFound."""
        return list(self._read([USER_GET, 0, name], False, timeout)[2])

    def user_list(self, *, timeout: float | None = None) -> list[str]:
        """The names of all users."""
        return list(self._read([AUTH_LIST, 0, LIST_USERS], False, timeout)[2])

    def user_grant_role(self, user: str, role: str, *, timeout: float | None = None) -> None:
        """Raises UserNotFound, RoleNotFound."""
        self._write([USER_GRANT_ROLE, 0, user, role], timeout)

    def user_revoke_role(self, user: str, role: str, *, timeout: float | None = None) -> None:
        """Raises UserNotFound, RoleNotGranted."""
        self._write([USER_REVOKE_ROLE, 0, user, role], timeout)

    def role_add(self, role: str, *, timeout: float | None = None) -> None:
        """A new role, which permits nothing yet. Raises RoleExists."""
        self._write([ROLE_ADD, 0, role], timeout)

    def role_delete(self, role: str, *, timeout: float | None = None) -> None:
        """Whoever had it has it no more. Raises RoleNotFound."""
        self._write([ROLE_DELETE, 0, role], timeout)

    def role_get(self, role: str, *, timeout: float | None = None) -> list[Permission]:
        """What a role permits. Raises RoleNotFound."""
        return auth_requests.permissions(self._read([ROLE_GET, 0, role], False, timeout))

    def role_list(self, *, timeout: float | None = None) -> list[str]:
        """The names of all roles."""
        return list(self._read([AUTH_LIST, 0, LIST_ROLES], False, timeout)[2])

    def role_grant_permission(
        self,
        role: str,
        kind: Kind,
        key: Bytes | None = None,
        range_end: Bytes | None = None,
        *,
        prefix: Bytes | None = None,
        timeout: float | None = None,
    ) -> None:
        """Permit `kind` on a key, on [key, range_end) or on a prefix; the same range gets the new kind. Raises RoleNotFound, InvalidRequest."""
        self._write(auth_requests.grant_permission(role, kind, key, range_end, prefix), timeout)

    def role_revoke_permission(
        self,
        role: str,
        key: Bytes | None = None,
        range_end: Bytes | None = None,
        *,
        prefix: Bytes | None = None,
        timeout: float | None = None,
    ) -> None:
        """Take back what was granted for exactly this range. Raises RoleNotFound, PermissionNotGranted."""
        self._write(auth_requests.revoke_permission(role, key, range_end, prefix), timeout)


class AsyncAuthVerbs:
    """Of the asyncio client."""

    def _write(self, command: Command, timeout: float | None) -> Awaitable[Answer]:
        raise NotImplementedError

    def _read(self, command: Command, stale: bool, timeout: float | None) -> Awaitable[Answer]:
        raise NotImplementedError

    async def auth_enable(self, *, timeout: float | None = None) -> None:
        """Have everybody log in from now on. Raises RootUserMissing, RootRoleMissing, InsecurePeers."""
        await self._write([AUTH_ENABLE, 0], timeout)

    async def auth_disable(self, *, timeout: float | None = None) -> None:
        """Let everybody do everything. Ends all logins."""
        await self._write([AUTH_DISABLE, 0], timeout)

    async def auth_status(self, *, timeout: float | None = None) -> AuthStatus:
        """Whether everybody has to log in, and the revision of users and roles."""
        return auth_requests.auth_status(await self._read([AUTH_STATUS, 0], False, timeout))

    async def user_add(self, name: str, password: str | None, *, timeout: float | None = None) -> None:
        """A new user; `password` None: it can never have one. Only a hash of it leaves this process. Raises UserExists."""
        password_hash = await _hash_beside(password)
        await self._write(auth_requests.user_add(name, password_hash), timeout)

    async def user_delete(self, name: str, *, timeout: float | None = None) -> None:
        """Ends its logins, too. Raises UserNotFound."""
        await self._write([USER_DELETE, 0, name], timeout)

    async def user_change_password(self, name: str, password: str, *, timeout: float | None = None) -> None:
        """Ends its logins. Raises UserNotFound."""
        password_hash = await _hash_beside(password)
        await self._write([USER_CHANGE_PASSWORD, 0, name, password_hash], timeout)

    async def user_get(self, name: str, *, timeout: float | None = None) -> list[str]:
        """The roles of a user. Raises UserNotFound."""
        return list((await self._read([USER_GET, 0, name], False, timeout))[2])

    async def user_list(self, *, timeout: float | None = None) -> list[str]:
        """The names of all users."""
        return list((await self._read([AUTH_LIST, 0, LIST_USERS], False, timeout))[2])

    async def user_grant_role(self, user: str, role: str, *, timeout: float | None = None) -> None:
        """Raises UserNotFound, RoleNotFound."""
        await self._write([USER_GRANT_ROLE, 0, user, role], timeout)

    async def user_revoke_role(self, user: str, role: str, *, timeout: float | None = None) -> None:
        """Raises UserNotFound, RoleNotGranted."""
        await self._write([USER_REVOKE_ROLE, 0, user, role], timeout)

    async def role_add(self, role: str, *, timeout: float | None = None) -> None:
        """A new role, which permits nothing yet. Raises RoleExists."""
        await self._write([ROLE_ADD, 0, role], timeout)

    async def role_delete(self, role: str, *, timeout: float | None = None) -> None:
        """Whoever had it has it no more. Raises RoleNotFound."""
        await self._write([ROLE_DELETE, 0, role], timeout)

    async def role_get(self, role: str, *, timeout: float | None = None) -> list[Permission]:
        """What a role permits. Raises RoleNotFound."""
        return auth_requests.permissions(await self._read([ROLE_GET, 0, role], False, timeout))

    async def role_list(self, *, timeout: float | None = None) -> list[str]:
        """The names of all roles."""
        return list((await self._read([AUTH_LIST, 0, LIST_ROLES], False, timeout))[2])

    async def role_grant_permission(
        self,
        role: str,
        kind: Kind,
        key: Bytes | None = None,
        range_end: Bytes | None = None,
        *,
        prefix: Bytes | None = None,
        timeout: float | None = None,
    ) -> None:
        """Permit `kind` on a key, on [key, range_end) or on a prefix; the same range gets the new kind. Raises RoleNotFound, InvalidRequest."""
        await self._write(auth_requests.grant_permission(role, kind, key, range_end, prefix), timeout)

    async def role_revoke_permission(
        self,
        role: str,
        key: Bytes | None = None,
        range_end: Bytes | None = None,
        *,
        prefix: Bytes | None = None,
        timeout: float | None = None,
    ) -> None:
        """Take back what was granted for exactly this range. Raises RoleNotFound, PermissionNotGranted."""
        await self._write(auth_requests.revoke_permission(role, key, range_end, prefix), timeout)


@overload
def _hash(password: str) -> str: ...


@overload
def _hash(password: str | None) -> str | None: ...


def _hash(password: str | None) -> str | None:
    """None stays None: no password at all."""
    from raftkv.wire.passwords import hash_password

    return None if password is None else hash_password(password)


@overload
async def _hash_beside(password: str) -> str: ...


@overload
async def _hash_beside(password: str | None) -> str | None: ...


async def _hash_beside(password: str | None) -> str | None:
    from asyncio import to_thread

    return await to_thread(_hash, password)

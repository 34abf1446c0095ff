"""The reads of users and roles. Names are in the order of their bytes, as etcd lists them; no answer has a password in it."""

from typing import Any, Sequence

from raftkv.errors import RoleNotFound, UserNotFound
from raftkv.store.auth import Auth
from raftkv.units import Revision
from raftkv.wire.commands import OK, Answer
from raftkv.wire.users import AUTH_STATUS, LIST_USERS, ROLE_GET, USER_GET


def read_auth(auth: Auth, revision: Revision, command: Sequence[Any]) -> Answer:
    """Answer a valid AUTH_STATUS, USER_GET, ROLE_GET or AUTH_LIST. Raises UserNotFound or RoleNotFound."""
    kind = command[0]
    if kind == AUTH_STATUS:
        return [OK, revision, auth.enabled, auth.revision]
    name = command[2]
    if kind == USER_GET:
        user = auth.users.get(name)
        if user is None:
            raise UserNotFound(f"there is no user {name!r}")
        return [OK, revision, list(user.roles)]
    if kind == ROLE_GET:
        permissions = auth.roles.get(name)
        if permissions is None:
            raise RoleNotFound(f"there is no role {name!r}")
        return [OK, revision, [list(permission) for permission in permissions]]
    return [OK, revision, sorted(auth.users if name == LIST_USERS else auth.roles)]

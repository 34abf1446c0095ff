"""Random stories of users, beside a model that is deliberately dumb: keys one by one, grants looked through in a list, no cache of anything.

Two stores follow each story, one in memory and one on LMDB that is committed and opened anew every now and then: they have to agree on every
answer and on the digest.
"""

from pathlib import Path
from random import Random
from typing import Any

from raftkv.store.keyspace import Keyspace
from raftkv.store.memory_keyspace import MemoryKeyspace
from raftkv.store.store import Store
from raftkv.wire.commands import (
    APPEND,
    DELETE_RANGE,
    GUARDED,
    INCREMENT,
    LEASE_GRANT,
    LEASE_REVOKE,
    PREV_KV,
    PUT,
    RANGE,
    TXN,
)
from raftkv.wire.passwords import hash_password
from raftkv.wire.users import (
    AUTH_DISABLE,
    AUTH_ENABLE,
    READ,
    READWRITE,
    ROLE_ADD,
    ROLE_DELETE,
    ROLE_GRANT_PERMISSION,
    ROLE_REVOKE_PERMISSION,
    USER_ADD,
    USER_CHANGE_PASSWORD,
    USER_DELETE,
    USER_GRANT_ROLE,
    USER_REVOKE_ROLE,
    WRITE,
)
from tests.unit.store.stores import LIMITS, Driver, keyspace_of

HASH = hash_password("secret", b"salt-of-16-bytes")
KEYS = [b"a", b"aa", b"b", b"c", b"d"]
ENDS = [b"", b"", b"b", b"c", b"z", b"\0"]
USERS = ["root", "ann", "bob"]
ROLES = ["root", "r", "s"]
LEASE = 7
STEPS = 250
SEEDS = 12


class Model:
    """What etcd's documentation says, and nothing clever."""

    def __init__(self) -> None:
        self.enabled = False
        self.revision = 1
        self.ended = 0  # logins below it, all users'
        self.users: dict[str, tuple[set[str], int]] = {}  # roles, and since when logins count
        self.roles: dict[str, dict[tuple[bytes, bytes], int]] = {}
        self.lease_keys: set[bytes] | None = None

    def may(self, user: str, key: bytes, kind: int) -> bool:
        for role in self.users[user][0]:
            for (start, end), granted in self.roles.get(role, {}).items():
                inside = key == start if not end else start <= key and (end == b"\0" or key < end)
                if inside and granted in (kind, READWRITE):
                    return True
        return False

    def may_range(self, user: str, start: bytes, end: bytes, kind: int) -> bool:
        """Every key that could be an edge of something, and one behind all."""
        if not end:
            return self.may(user, start, kind)
        if end != b"\0" and end <= start:
            return False
        edges = {start, b"\xff\xff"}
        for key in (*KEYS, *ENDS, *(edge for role in self.roles.values() for pair in role for edge in pair)):
            edges |= {key, key + b"\0", key + b"\xff"}
        inside = [key for key in edges if start <= key and (end == b"\0" or key < end)]
        return all(self.may(user, key, kind) for key in inside)

    def refusal(self, user: str | None, at: int, command: list[Any]) -> str | None:
        if not self.enabled:
            return None
        if user is None:
            return "user_empty"
        if user not in self.users:
            return "permission_denied"
        roles, since = self.users[user]
        if at < max(since, self.ended):
            return "auth_old_revision"
        return None if "root" in roles or self.permits(user, command) else "permission_denied"

    def permits(self, user: str, command: list[Any]) -> bool:
        kind = command[0]
        if kind == PUT:
            _, _, key, _, lease, flags = command
            ok = self.may(user, key, WRITE) and (not flags & PREV_KV or self.may(user, key, READ))
            return ok and (not lease or self.may_lease(user))
        if kind == DELETE_RANGE:
            _, _, key, end, flags = command
            ok = self.may_range(user, key, end, WRITE)
            return ok and (not flags & PREV_KV or self.may_range(user, key, end, READ))
        if kind == RANGE:
            return self.may_range(user, command[2], command[3], READ)
        if kind in (INCREMENT, APPEND):
            return self.may(user, command[2], READ) and self.may(user, command[2], WRITE)
        if kind == GUARDED:
            return all(self.may(user, key, READ) for key, _ in command[2]) and self.permits(user, command[3])
        if kind == TXN:
            compares = all(self.may_range(user, compare[2], compare[4], READ) for compare in command[2])
            return compares and all(self.permits(user, inner) for inner in (*command[3], *command[4]))
        if kind == LEASE_REVOKE:
            return self.may_lease(user)
        return bool(kind == LEASE_GRANT)

    def may_lease(self, user: str) -> bool:
        return all(self.may(user, key, WRITE) for key in self.lease_keys or ())

    def manage(self, command: list[Any]) -> str:
        """The outcome of a command that changes users or roles."""
        before = (self.enabled, repr(self.users), repr(self.roles))
        code = _MANAGE[command[0]](self, *command[2:])
        changed = before != (self.enabled, repr(self.users), repr(self.roles)) and command[0] != AUTH_ENABLE
        granted_again = command[0] in (ROLE_GRANT_PERMISSION, USER_CHANGE_PASSWORD) and code == "ok"
        self.revision += changed or granted_again
        return code

    def enable(self) -> str:
        if "root" not in self.users:
            return "root_user_missing"
        if "root" not in self.users["root"][0]:
            return "root_role_missing"
        self.enabled = True
        return "ok"

    def disable(self) -> str:
        if self.enabled:
            self.enabled, self.ended = False, self.revision + 1
        return "ok"

    def user_add(self, name: str, password: str, no_password: bool) -> str:
        if name in self.users:
            return "user_exists"
        self.users[name] = (set(), self.revision + 1)
        return "ok"

    def user_delete(self, name: str) -> str:
        if self.enabled and name == "root":
            return "invalid_auth_management"
        return "ok" if self.users.pop(name, None) is not None else "user_not_found"

    def change_password(self, name: str, password: str) -> str:
        if name not in self.users:
            return "user_not_found"
        self.users[name] = (self.users[name][0], self.revision + 1)
        return "ok"

    def grant_role(self, name: str, role: str) -> str:
        if name not in self.users:
            return "user_not_found"
        if role != "root" and role not in self.roles:
            return "role_not_found"
        self.users[name] = (self.users[name][0] | {role}, self.users[name][1])
        return "ok"

    def revoke_role(self, name: str, role: str) -> str:
        if self.enabled and name == role == "root":
            return "invalid_auth_management"
        if name not in self.users:
            return "user_not_found"
        if role not in self.users[name][0]:
            return "role_not_granted"
        self.users[name] = (self.users[name][0] - {role}, self.users[name][1])
        return "ok"

    def role_add(self, role: str) -> str:
        if role in self.roles:
            return "role_exists"
        self.roles[role] = {}
        return "ok"

    def role_delete(self, role: str) -> str:
        if self.enabled and role == "root":
            return "invalid_auth_management"
        if self.roles.pop(role, None) is None:
            return "role_not_found"
        self.users = {name: (roles - {role}, since) for name, (roles, since) in self.users.items()}
        return "ok"

    def grant_permission(self, role: str, kind: int, key: bytes, end: bytes) -> str:
        if end not in (b"", b"\0") and end <= key:
            return "invalid_auth_management"
        if role not in self.roles:
            return "role_not_found"
        self.roles[role][key, end] = kind
        return "ok"

    def revoke_permission(self, role: str, key: bytes, end: bytes) -> str:
        if role not in self.roles:
            return "role_not_found"
        return "ok" if self.roles[role].pop((key, end), None) is not None else "permission_not_granted"


_MANAGE: dict[int, Any] = {
    AUTH_ENABLE: Model.enable,
    AUTH_DISABLE: Model.disable,
    USER_ADD: Model.user_add,
    USER_DELETE: Model.user_delete,
    USER_CHANGE_PASSWORD: Model.change_password,
    USER_GRANT_ROLE: Model.grant_role,
    USER_REVOKE_ROLE: Model.revoke_role,
    ROLE_ADD: Model.role_add,
    ROLE_DELETE: Model.role_delete,
    ROLE_GRANT_PERMISSION: Model.grant_permission,
    ROLE_REVOKE_PERMISSION: Model.revoke_permission,
}


BEGINNING: list[list[Any]] = [
    [USER_ADD, 0, "root", HASH, False],
    [USER_GRANT_ROLE, 0, "root", "root"],
    [USER_ADD, 0, "ann", HASH, False],
    [ROLE_ADD, 0, "r"],
    [ROLE_GRANT_PERMISSION, 0, "r", READWRITE, b"a", b"c"],
    [USER_GRANT_ROLE, 0, "ann", "r"],
]


class Teller:
    """Draws commands and who gives them."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)

    def management(self) -> list[Any]:
        draw = self.random
        user, role = draw.choice([*USERS, "nobody"]), draw.choice(ROLES)
        key, end, kind = draw.choice(KEYS), draw.choice(ENDS), draw.randrange(3)
        return draw.choice(
            [
                [AUTH_ENABLE, 0],
                [AUTH_ENABLE, 0],
                [AUTH_DISABLE, 0] if draw.random() < 0.2 else [AUTH_ENABLE, 0],
                [USER_ADD, 0, user, HASH, False],
                [USER_DELETE, 0, user] if draw.random() < 0.4 else [USER_ADD, 0, user, HASH, False],
                [USER_CHANGE_PASSWORD, 0, user, HASH],
                *[[USER_GRANT_ROLE, 0, user, role]] * 3,
                [USER_REVOKE_ROLE, 0, user, role],
                [ROLE_ADD, 0, role],
                [ROLE_DELETE, 0, role] if draw.random() < 0.3 else [ROLE_ADD, 0, role],
                *[[ROLE_GRANT_PERMISSION, 0, role, kind, key, end]] * 5,
                [ROLE_REVOKE_PERMISSION, 0, role, key, end],
            ]
        )

    def data(self, depth: int = 2) -> list[Any]:
        draw = self.random
        key, end = draw.choice(KEYS), draw.choice(ENDS)
        put = [PUT, 0, key, b"1", LEASE if draw.random() < 0.4 else 0, PREV_KV if draw.random() < 0.3 else 0]
        delete = [DELETE_RANGE, 0, key, end, PREV_KV if draw.random() < 0.3 else 0]
        if depth < 2:
            choices: list[Any] = [put, delete, [RANGE, 0, key, end, *[0] * 8]]
        else:
            choices = [put, put, delete, [INCREMENT, 0, b"n" + key, 1], [APPEND, 0, key, b"x"]]
            choices += [*[[LEASE_GRANT, 0, LEASE, 60_000]] * 2, [LEASE_REVOKE, 0, LEASE], [GUARDED, 0, [[key, 3]], put]]
        if depth:
            compares = [[0, 0, draw.choice(KEYS), 0, draw.choice(ENDS)] for _ in range(draw.randrange(2))]
            branches = [[self.data(depth - 1)] if draw.random() < 0.7 else [] for _ in range(2)]
            choices += [[TXN, 0, compares, *branches]] * 2
        return list(draw.choice(choices))


def reopened(driver: Driver) -> None:
    """What a restart finds."""
    job = driver.store.freeze()
    if job is not None:
        job.run()
        driver.store.thaw(job)
    keyspace: Keyspace = driver.store.keyspace
    driver.store = Store.open(keyspace, LIMITS)


def test_stories(tmp_path: Path) -> None:
    outcomes: dict[str, int] = {}
    for seed in range(SEEDS):
        (tmp_path / str(seed)).mkdir()
        tell(seed, tmp_path / str(seed), outcomes)
    assert min(outcomes[code] for code in ("ok", "permission_denied", "user_empty", "auth_old_revision")) > 20, outcomes


def tell(seed: int, tmp_path: Path, outcomes: dict[str, int]) -> None:
    """One story; counts how its commands ended."""
    teller, model = Teller(seed), Model()
    here, there = Driver(MemoryKeyspace()), Driver(keyspace_of("lmdb", tmp_path))
    for step in range(STEPS):
        draw = teller.random
        is_management = step < 12 or draw.random() < 0.3
        command = list(BEGINNING[step]) if step < len(BEGINNING) else teller.data()
        if is_management and step >= len(BEGINNING):
            command = teller.management()
        user = draw.choice([None, *USERS, "root", "root", "ann"]) if model.enabled else draw.choice([None, None, "ann"])
        at = model.revision if draw.random() < 0.85 else draw.randint(1, model.revision)
        group = [None, False, 0, user, at, [command]]
        answer = here.apply_groups([group])[0][0]
        assert there.apply_groups([group])[0][0] == answer
        code = answer[1] if answer[0] else "ok"
        expected = model.refusal(user, at, command)
        if expected is None and is_management:
            expected = model.manage(command)
        if expected is None:
            assert code not in ("permission_denied", "user_empty", "auth_old_revision"), (seed, step, user, command)
        else:
            assert code == expected, (seed, step, user, command)
        lease = here.store.leases.get(LEASE)
        model.lease_keys = None if lease is None else set(lease.keys)
        auth = here.store.auth
        assert (auth.enabled, auth.revision) == (model.enabled, model.revision), (seed, step, command)
        outcomes[code] = outcomes.get(code, 0) + 1
        if draw.random() < 0.05:
            reopened(there)
        assert there.store.digest == here.store.digest
    there.store.close()

"""Who may do what: every operation that a door takes has its row here, and one without a row fails."""

from typing import Any

import pytest

from raftkv.errors import PermissionDenied, RaftKVError, UserEmpty
from raftkv.store.access import _RULES, Access
from raftkv.store.auth import Auth, User
from raftkv.store.leases import Leases
from raftkv.wire import commands, pools, protocol
from raftkv.wire import users as words
from raftkv.wire.commands import CLIENT_WRITES, PREV_KV, READS, SYSTEM_WRITES
from raftkv.wire.users import AUTH_READS, AUTH_WRITES, READ, READWRITE, WRITE

# One's own connection, and what says of itself what it needs: nothing here is judged by a rule of its own.
FREE = {"HELLO", "ACK", "PING", "FORWARD", "WATCH_EVENTS", "AUTHENTICATE"}
NO_OPERATIONS = {"PROTOCOL_VERSION", "SESSION_ID_BYTES"}

POOL_PERMISSIONS = [(WRITE, b"raftkv.pools/p/mine", b""), (WRITE, b"raftkv.pools/g/mine/", b"raftkv.pools/g/mine0")]
LEASE, OTHER_LEASE = 7, 8  # with the key b"rw" and with b"w" and b"none"


def access() -> Access:
    auth = Auth()
    auth.enabled = True
    auth.roles["all"] = [(READ, b"r", b""), (WRITE, b"w", b""), (READWRITE, b"rw", b"rx"), *POOL_PERMISSIONS]
    auth.users["ann"] = User("", True, ["all"], 0)
    auth.users["root"] = User("", True, ["root"], 0)
    auth.users["nobody"] = User("", True, [], 0)
    leases = Leases()
    for lease_id, keys in ((LEASE, [b"rw"]), (OTHER_LEASE, [b"w", b"none"])):
        leases.grant(lease_id, 1000)
        for key in keys:
            leases.attach(lease_id, key)
    return Access(auth, leases)


def put(key: bytes, lease: int = 0, flags: int = 0) -> list[Any]:
    return [commands.PUT, 0, key, b"", lease, flags]


def delete(key: bytes, end: bytes = b"", flags: int = 0) -> list[Any]:
    return [commands.DELETE_RANGE, 0, key, end, flags]


def ranged(key: bytes, end: bytes = b"") -> list[Any]:
    return [commands.RANGE, 0, key, end, *[0] * 8]


def txn(compares: list[Any], success: list[Any], failure: list[Any]) -> list[Any]:
    return [commands.TXN, 0, compares, success, failure]


def compare(key: bytes, end: bytes = b"") -> list[Any]:
    return [0, 0, key, 0, end]


ROOT_ONLY = [
    [commands.ALARM, 0, 1, 1, True],
    [commands.DOWNGRADE, 0, "3.4.0"],
    [commands.COMPACT, 0, 5],
    [protocol.MOVE_LEADER, "n1"],
    [protocol.CHANGE_MEMBERS, {}],
    [protocol.BACKUP_OPEN],
    [protocol.BACKUP_READ, 1, 0, 10],
    [protocol.BACKUP_CLOSE, 1],
    [protocol.DEFRAGMENT],
    [words.AUTH_ENABLE, 0],
    [words.AUTH_DISABLE, 0],
    [words.USER_ADD, 0, "ann", "", True],
    [words.USER_DELETE, 0, "ann"],
    [words.USER_CHANGE_PASSWORD, 0, "ann", ""],
    [words.USER_GRANT_ROLE, 0, "ann", "root"],
    [words.USER_REVOKE_ROLE, 0, "ann", "all"],
    [words.ROLE_ADD, 0, "r"],
    [words.ROLE_DELETE, 0, "all"],
    [words.ROLE_GRANT_PERMISSION, 0, "all", READ, b"a", b""],
    [words.ROLE_REVOKE_PERMISSION, 0, "all", b"a", b""],
    [words.AUTH_STATUS, 0],
    [words.AUTH_LIST, 0, 0],
]
ALLOWED = [
    put(b"w"),
    put(b"rw", flags=PREV_KV),
    put(b"w", LEASE),
    delete(b"w"),
    delete(b"rw", b"rx", PREV_KV),
    txn([compare(b"r")], [put(b"w"), ranged(b"rw", b"rx")], [delete(b"w")]),
    txn([], [txn([compare(b"rw", b"rx")], [put(b"w")], [])], []),
    [commands.INCREMENT, 0, b"rw", 1],
    [commands.INCREMENT, 0, b"rw", 1, LEASE],
    [commands.APPEND, 0, b"rw", b"x"],
    [commands.GUARDED, 0, [[b"r", 5]], put(b"w")],
    [commands.LEASE_GRANT, 0, 0, 1000],
    [commands.LEASE_REVOKE, 0, LEASE],
    [commands.LEASE_REVOKE, 0, 99],
    [commands.GET, 0, b"r"],
    ranged(b"rw", b"rx"),
    [commands.LEASES, 0],
    [commands.READ_TXN, 0, [compare(b"r")], [ranged(b"rw", b"rx")], []],
    [pools.POOL_SET, 0, "mine", 0, {}],
    [pools.POOL_DELETE, 0, "mine"],
    [pools.POOL_REQUEST, 0, "mine/1", LEASE, {"mine": {"gpu": 1}}, {}],
    [pools.POOL_RELEASE, 0, "mine/1", 0],
    [commands.LEASE_TTL, commands.WITH_KEYS, LEASE],
    [commands.LEASE_TTL, 0, OTHER_LEASE],
    [protocol.KEEP_ALIVE, [LEASE, 99]],
    [protocol.WATCH_CREATE, b"rw", b"rx", 0, 0],
    [protocol.WATCH_CANCEL, 1],
    [protocol.WATCH_PROGRESS],
    [protocol.WAIT, 0, True, [b"r", b"rw"], 0],
    [protocol.STATUS],
    [protocol.MEMBERS],
    [words.USER_GET, 0, "ann"],
    [words.ROLE_GET, 0, "all"],
]
DENIED = [
    put(b"r"),
    put(b"w", flags=PREV_KV),
    put(b"w", OTHER_LEASE),
    delete(b"r"),
    delete(b"w", b"z"),
    delete(b"w", flags=PREV_KV),
    txn([compare(b"w")], [], []),
    txn([compare(b"r", b"s")], [], []),
    txn([], [], [put(b"r")]),
    txn([], [ranged(b"w")], []),
    txn([], [delete(b"w", flags=PREV_KV)], []),
    txn([], [txn([], [], [txn([], [put(b"none")], [])])], []),
    txn([], [txn([compare(b"none")], [], [])], []),
    txn([], [put(b"w", OTHER_LEASE)], []),
    [commands.INCREMENT, 0, b"w", 1],
    [commands.INCREMENT, 0, b"r", 1],
    [commands.APPEND, 0, b"w", b"x"],
    [commands.INCREMENT, 0, b"rw", 1, OTHER_LEASE],
    [commands.APPEND, 0, b"rw", b"x", OTHER_LEASE],
    [commands.GUARDED, 0, [[b"none", 5]], put(b"w")],
    [commands.GUARDED, 0, [[b"r", 5]], put(b"r")],
    [commands.LEASE_REVOKE, 0, OTHER_LEASE],
    [pools.POOL_SET, 0, "other", 0, {}],
    [pools.POOL_DELETE, 0, "other"],
    [pools.POOL_REQUEST, 0, "other/1", LEASE, {"mine": {"gpu": 1}}, {}],
    [pools.POOL_REQUEST, 0, "mine/1", OTHER_LEASE, {"mine": {"gpu": 1}}, {}],
    [pools.POOL_RELEASE, 0, "other/1", 0],
    [pools.POOLS, 0],
    [pools.POOL_QUEUE, 0, ""],
    [pools.POOL_WHY, 0, "mine/1"],
    [commands.GET, 0, b"w"],
    ranged(b"\0", b"\0"),
    [commands.READ_TXN, 0, [compare(b"w")], [], []],
    [commands.READ_TXN, 0, [], [], [ranged(b"w")]],
    [commands.READ_TXN, 0, [], [txn([], [ranged(b"w")], [])], []],
    ranged(b"rx", b"rw"),
    [commands.LEASE_TTL, commands.WITH_KEYS, OTHER_LEASE],
    [protocol.KEEP_ALIVE, [LEASE, OTHER_LEASE]],
    [protocol.WATCH_CREATE, b"", b"\0", 0, 0],
    [protocol.WATCH_CREATE, b"r", b"rx", 0, 0],
    [protocol.WAIT, 0, False, [b"r", b"w"], 0],
    [words.USER_GET, 0, "root"],
    [words.ROLE_GET, 0, "root"],
    *ROOT_ONLY,
]


def operations() -> dict[str, int]:
    """Everything with a number of its own that a door may meet."""
    found = {
        name: value
        for name, value in vars(protocol).items()
        if name.isupper() and type(value) is int and name not in NO_OPERATIONS | FREE
    }
    known = CLIENT_WRITES | READS | AUTH_WRITES | AUTH_READS | {commands.LEASE_TTL}
    return found | {f"operation {operation}": operation for operation in known}


@pytest.mark.parametrize("name", sorted(operations()))
def test_every_operation_has_a_rule_and_rows_here(name: str) -> None:
    operation = operations()[name]
    assert operation in _RULES, "raftkv/store/access.py: say who may do it"
    assert any(command[0] == operation for command in DENIED + ALLOWED), "and show it here"


def test_what_members_propose_has_no_rule() -> None:
    assert not set(_RULES) & SYSTEM_WRITES, "no door takes it"
    assert not CLIENT_WRITES & SYSTEM_WRITES


@pytest.mark.parametrize("command", ALLOWED, ids=str)
def test_allowed(command: list[Any]) -> None:
    access().check(command, "ann", 1)
    access().check(command, "root", 1)


@pytest.mark.parametrize("command", DENIED, ids=str)
def test_denied(command: list[Any]) -> None:
    with pytest.raises(PermissionDenied):
        access().check(command, "ann", 1)
    access().check(command, "root", 1)


@pytest.mark.parametrize("command", ALLOWED + DENIED, ids=str)
def test_without_a_user_there_is_nothing(command: list[Any]) -> None:
    with pytest.raises(UserEmpty):
        access().check(command, None, 0)


def test_an_operation_without_a_rule_is_root_s() -> None:
    access().check([63, 0], "root", 1)
    with pytest.raises(PermissionDenied):
        access().check([63, 0], "ann", 1)


def test_while_it_is_off_nobody_is_asked() -> None:
    assert not Access(Auth(), Leases()).is_on
    for command in DENIED:
        Access(Auth(), Leases()).check(command, None, 0)


@pytest.mark.parametrize("user", [None, "gone", "nobody"])
def test_a_watch_of_everything_needs_everything(user: str | None) -> None:
    with pytest.raises(RaftKVError):
        access().check([protocol.WATCH_CREATE, b"", b"\0", 0, 0], user, 1)

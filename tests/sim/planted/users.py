"""Bugs of users and roles: store/access.py, store/auth.py, store/commit.py, replica/serving.py, replica/forwarding.py."""

from collections.abc import Iterator, Sequence
from typing import Any

from raftkv.replica import forwarding
from raftkv.replica.groups import WriteGroup
from raftkv.store import store as store_module
from raftkv.store.access import Access
from raftkv.store.auth import Auth, AuthChanges
from raftkv.store.keyspace import Keyspace
from raftkv.wire.commands import CLIENT_WRITES
from raftkv.wire.identity import AGELESS

from .registry import bug, swapped

USERS = {"users": True}
BREAKS = "who may do nothing is answered with nothing"


@bug(
    "reads that nobody judges",
    "only writes are judged, where they are applied",
    BREAKS,
    knobs=USERS,
    seeds_max=5,
)
def reads_that_nobody_judges() -> Iterator[None]:
    check = Access.check

    def lenient(self: Access, command: Sequence[Any], user: str | None, auth_revision: int) -> None:
        if command[0] in CLIENT_WRITES:
            check(self, command, user, auth_revision)

    with swapped(Access, "check", lenient):
        yield


@bug(
    "a forwarded write that loses its user",
    "the member that forwards is trusted, so the leader takes what it forwards as its own",
    BREAKS,
    knobs=USERS,
    seeds_max=10,
)
def a_forwarded_write_that_loses_its_user() -> Iterator[None]:
    receive = forwarding.Forwarding.receive

    def trusting(self: forwarding.Forwarding, request_id: int, source: int, payload: bytes, now_ms: int) -> WriteGroup:
        group = receive(self, request_id, source, payload, now_ms)
        group.user, group.auth_revision = "root", AGELESS
        return group

    with swapped(forwarding.Forwarding, "receive", trusting):
        yield


@bug(
    "users that a commit forgets",
    "changes of users are in the log and in memory, and not in what is committed",
    BREAKS,
    knobs={**USERS, "disasters": ("kill", "power_loss"), "nemesis_us": 400_000},
    seeds_max=60,
)
def users_that_a_commit_forgets() -> Iterator[None]:
    def forget(self: Auth) -> AuthChanges:
        self._changed.clear()
        return AuthChanges([], [])

    with swapped(Auth, "take_changes", forget):
        yield


@bug(
    "users that a snapshot forgets",
    "a store that is opened on a received snapshot begins without users",
    BREAKS,
    knobs={**USERS, "disasters": ("kill", "full_disk", "isolate_leader"), "nemesis_us": 300_000},
    limits={"log_retained_bytes_max": 1024, "log_retained_entries_max": 5},
    seeds_max=60,
)
def users_that_a_snapshot_forgets() -> Iterator[None]:
    def nobody(keyspace: Keyspace) -> Auth:
        return Auth()

    with swapped(store_module, "load_auth", nobody):
        yield

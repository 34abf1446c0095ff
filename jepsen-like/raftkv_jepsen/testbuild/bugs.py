"""Daemons (and one client) that are broken on purpose: the test of the harness. Each breaks one promise and leaves everything else as it is.

`python jepsen-like --self-test` runs each under the faults that bring it to light and demands INVALID, by the checker whose business it is.
"""

import time
from typing import Any, Callable, Final, Sequence

from raftkv.daemon.etcd import election
from raftkv.errors import LockLost
from raftkv.recipes import lock, semaphore
from raftkv.recipes.waiting import check_lease, wait_keys
from raftkv.replica.groups import ReadGroup
from raftkv.replica.leases import LeaseBooks
from raftkv.replica.service import LEADER, Service
from raftkv.replica.serving import Serving
from raftkv.store import apply, pool_schedule, transactions
from raftkv.store.auth import Auth
from raftkv.store.waits import Wait
from raftkv.store.watcher import Watcher
from raftkv.store.watches import WatchHub
from raftkv.wal.wal import Wal
from raftkv.wire.commands import GUARDED, INCREMENT, OK, Answer
from raftkv.wire.identity import AGELESS

PLANT: Final = "RAFTKV_JEPSEN_BUG"
LAZY_SYNCS: Final = 40
COPY_S: Final = 3.0


def stale_reads() -> None:
    """A follower answers linearizable reads from what it has applied, without asking the leader."""
    submit = Service.submit_reads

    def submit_reads(self: Service, group: ReadGroup) -> None:
        if self._raft.role == LEADER:
            submit(self, group)
        else:
            self.read_now(group)

    Service.submit_reads = submit_reads  # type: ignore[method-assign]


def early_acknowledgement() -> None:
    """The log says that it is durable, and writes its buffer out one time of many."""
    sync = Wal.sync
    calls = 0

    def lazy(self: Wal) -> int:
        nonlocal calls
        calls += 1
        return sync(self) if calls % LAZY_SYNCS == 0 else 0

    Wal.sync = lazy  # type: ignore[method-assign]


def dropped_sessions() -> None:
    """What a session has done before is not remembered: a retry is done again."""

    def run_every_time(state: Any, session: Any, commands: Sequence[Any]) -> list[Answer]:
        return [apply._run(state, command) for command in commands]

    apply._run_once = run_every_time


def unfenced() -> None:
    """Guarded writes are done, whatever became of the guard."""

    def unguarded(state: Any, command: Any) -> Answer:
        return apply._HANDLERS[command[3][0]](state, command[3])

    apply._HANDLERS[GUARDED] = unguarded


def skipping_watch() -> None:
    """A watch that comes back with a revision hears what is new from now on, not what it missed."""
    create = WatchHub.create

    def create_now(self: WatchHub, command: Sequence[Any], *rest: Any) -> Any:
        return create(self, [*command[:3], 0, *command[4:]], *rest)

    WatchHub.create = create_now  # type: ignore[assignment,method-assign]


def forgetful_leases() -> None:
    """The leader says that it has renewed a lease, and lets it run out as if it had not."""
    renew = LeaseBooks.renew

    def renew_in_words(self: LeaseBooks, lease_id: int, now_ms: int) -> Any:
        before = self._deadlines.get(lease_id)
        answer = renew(self, lease_id, now_ms)
        if before is not None and answer is not None:
            self._deadlines[lease_id] = before
        return answer

    LeaseBooks.renew = renew_in_words  # type: ignore[method-assign]


def generous_pool() -> None:
    """The scheduler finds that everything fits."""
    pool_schedule._Scene.shortage = lambda self, request: None  # type: ignore[method-assign]


def lock_without_recheck() -> None:
    """Whoever saw the place before its own go takes the lock for its own; that place may have been a waiter that gave up. In the client."""

    async def wait_turn(self: lock.AsyncLock, key: bytes, entries: Any, lease: Any, deadline: Any) -> bool:
        if entries is None:
            entries = (await self._kv.range(prefix=self._prefix, keys_only=True)).kvs
        ours, ahead = lock.standing(lock.places(entries, self._prefix), key, self._shared)
        if not ours:
            raise LockLost("the place in the queue is gone")
        check_lease(lease, "lock")
        if ahead is None:
            return True
        waited = await wait_keys(self._kv, [ahead], until="deleted", deadline=deadline, lease=lease, what="lock")
        return waited is not None

    lock.AsyncLock._wait_turn = wait_turn  # type: ignore[method-assign]


def stale_users() -> None:
    """A member answers reads by a copy of the users' rights that is some seconds old."""
    serve, grants_of = Serving._serve_portion, Auth.grants_of
    copies: dict[str, tuple[float, Any]] = {}
    serving = False

    def serve_portion(self: Serving, *arguments: Any) -> None:
        nonlocal serving
        serving = True
        try:
            serve(self, *arguments)
        finally:
            serving = False

    def copied(self: Auth, user: str | None, auth_revision: int) -> Any:
        if not serving or user is None:
            return grants_of(self, user, auth_revision)
        made_s, grants = copies.get(user, (0.0, None))
        if time.monotonic() - made_s > COPY_S:
            grants = grants_of(self, user, auth_revision)
            copies[user] = (time.monotonic(), grants)
        return grants

    Serving._serve_portion = serve_portion  # type: ignore[assignment,method-assign]
    Auth.grants_of = copied  # type: ignore[method-assign]


def old_passwords() -> None:
    """A login or a token goes on although its user has another password now."""
    grants_of = Auth.grants_of

    def grants_of_anybody(self: Auth, user: str | None, auth_revision: int) -> Any:
        return grants_of(self, user, AGELESS)

    Auth.grants_of = grants_of_anybody  # type: ignore[method-assign]
    Auth.is_current = lambda self, user, auth_revision: user in self.users  # type: ignore[method-assign]


def open_ears() -> None:
    """A watch is judged when it begins, and hears on when its permission is gone."""
    Watcher.judge = lambda self, access: None  # type: ignore[method-assign]


def crowded_office() -> None:
    """Whoever campaigns through etcd's election service is told at once that it is elected."""

    async def at_once(house: Any, caller: Any, name: bytes, place: Any, lost: Any) -> Any:
        return place.store_revision

    election.wait_turn = at_once  # type: ignore[attr-defined]


def hasty_waits() -> None:
    """Who waits for keys is answered at once, whether they are as wanted or not."""
    Wait.is_over = property(lambda self: True)  # type: ignore[assignment,method-assign]


def blind_compares() -> None:
    """The conditions of a transaction hold, whatever is there."""
    transactions._holds = lambda mvcc, compare: True


def uncounted_increments() -> None:
    """An increment that finds an even number answers the next one, and writes nothing."""
    run = apply._HANDLERS[INCREMENT]

    def increment(state: Any, command: Any) -> Answer:
        answer = run(state, command)
        if answer[0] == OK and answer[2] % 2 == 0:
            run(state, [INCREMENT, command[1], command[2], -command[3]])
        return answer

    apply._HANDLERS[INCREMENT] = increment


def weightless_semaphore() -> None:
    """Who is in is counted, whatever it weighs. In the client."""
    semaphore.Standing.used = property(lambda self: len(self.held))  # type: ignore[assignment,method-assign]


BUGS: Final[dict[str, Callable[[], None]]] = {
    "stale-reads": stale_reads,
    "early-acknowledgement": early_acknowledgement,
    "dropped-sessions": dropped_sessions,
    "unfenced": unfenced,
    "skipping-watch": skipping_watch,
    "forgetful-leases": forgetful_leases,
    "generous-pool": generous_pool,
    "stale-users": stale_users,
    "old-passwords": old_passwords,
    "open-ears": open_ears,
    "crowded-office": crowded_office,
    "hasty-waits": hasty_waits,
    "blind-compares": blind_compares,
    "uncounted-increments": uncounted_increments,
}
"""In the daemon."""

CLIENT_BUGS: Final[dict[str, Callable[[], None]]] = {
    "lock-without-recheck": lock_without_recheck,
    "weightless-semaphore": weightless_semaphore,
}
"""In the process of the harness."""


def plant(name: str) -> None:
    """Raises KeyError for a bug that is none."""
    BUGS[name]()


__all__ = ["BUGS", "CLIENT_BUGS", "PLANT", "plant"]

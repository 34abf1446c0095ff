"""Leases of the asyncio client that are kept alive: the object in the owner's hands, and the task behind all of them.

The task has a connection of its own, so that large writes and answers do not stand in its way. It never waits for an answer alone: a
lease comes into doubt and to its end on time, whether or not somebody answers. When to do what is decided in renewal.py.
"""

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING, Callable

from raftkv.client import requests
from raftkv.client.decisions import QUESTION
from raftkv.client.dispatch import Dispatcher
from raftkv.client.options import WITHDRAW_S, draw, draw_lease_id
from raftkv.client.renewal import NEVER, Plan, Renewal
from raftkv.errors import ClientClosed, LeaseExists, LeaseNotFound, RaftKVError
from raftkv.wire.commands import Answer

if TYPE_CHECKING:
    from raftkv.client.lease_verbs import AsyncLeaseVerbs


class AsyncKeptLease:
    """A lease that is kept alive while its `async with` block runs; made by `AsyncClient.lease`."""

    def __init__(
        self,
        client: "AsyncLeaseVerbs",
        keeper: "Callable[[], AsyncKeeper]",
        ttl: float,
        timeout: float | None = None,
        shared_id: int = 0,
        draw_id: Callable[[], int] = draw_lease_id,
    ) -> None:
        self.lost = asyncio.Event()
        """Set when the lease is gone, or when nobody can tell any more: its keys may be somebody else's. Never cleared."""
        self.doubt = asyncio.Event()
        """Set while a renewal is overdue: half of the time has passed. Cleared when one succeeds."""
        self._client = client
        self._get_keeper = keeper
        self._ttl = ttl
        self._timeout = timeout
        self._shared_id = shared_id
        self._draw_id = draw_id
        self._renewal: Renewal | None = None
        self._keeper: AsyncKeeper | None = None

    @property
    def id(self) -> int:
        """For `put(..., lease=lease.id)`."""
        return self._held().lease_id

    @property
    def ttl(self) -> float:
        """Seconds that the cluster grants it, with each renewal."""
        return self._held().ttl_s

    @property
    def valid_for(self) -> float:
        """For how many seconds from now it surely lives, whatever happens; 0 when it is lost. By the loop's monotonic clock."""
        renewal = self._held()
        return 0.0 if renewal.lost else max(0.0, renewal.valid_until - asyncio.get_running_loop().time())

    async def __aenter__(self) -> "AsyncKeptLease":
        assert self._renewal is None, "a lease is entered once: ask the client for another"
        sent_at = asyncio.get_running_loop().time()
        lease_id = self._shared_id or self._draw_id()
        try:
            ttl = await self._begin(lease_id)
            self._renewal = Renewal(lease_id, ttl, sent_at, draw, self._on_change, shared=bool(self._shared_id))
            self._keeper = self._get_keeper()
            self._keeper.add(self._renewal)
        except (Exception, asyncio.CancelledError) as error:
            if not self._shared_id and getattr(error, "may_have_happened", True):
                await self._withdraw(lease_id)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.revoke()

    async def _begin(self, lease_id: int) -> float:
        """Grant it, or come in to those who share it. The seconds that it has."""
        while True:
            try:
                return (await self._client.lease_grant(self._ttl, lease_id=lease_id, timeout=self._timeout)).ttl
            except LeaseExists:
                pass  # by those who share it; one that we have drawn: by an attempt of ours that was not answered
            try:
                return await self._client.lease_keep_alive_once(lease_id, timeout=self._timeout)
            except LeaseNotFound:
                pass  # it ended between the two

    async def _withdraw(self, lease_id: int) -> None:
        """Nobody will hear of it, and perhaps it was granted. That it is we who drew its id is what lets us end it."""
        try:
            await self._client.lease_revoke(lease_id, timeout=WITHDRAW_S)
        except RaftKVError:
            pass  # it was not granted, or it expires by itself

    async def revoke(self) -> None:
        """End it now, with its keys; a shared one only for us. When the cluster cannot be reached it expires by itself."""
        renewal, keeper = self._held(), self._keeper
        assert keeper is not None, "it was entered"
        keeper.remove(renewal)
        if self._shared_id:
            return  # the others need it
        if not renewal.lost:
            try:
                await self._client.lease_revoke(renewal.lease_id)
            except RaftKVError:
                pass  # it expires by itself
            renewal.lose()

    def _held(self) -> Renewal:
        assert self._renewal is not None, "a lease is granted when its block is entered"
        return self._renewal

    def _on_change(self) -> None:
        renewal = self._held()
        if renewal.lost:
            self.doubt.set()
            self.lost.set()
        elif renewal.in_doubt:
            self.doubt.set()
        else:
            self.doubt.clear()


class AsyncKeeper:
    """Renews the leases of one client. Driven by one timer and by answers; there is nothing that could hang."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._loop = dispatcher.loop
        self._plan = Plan()
        self._timer: asyncio.TimerHandle | None = None
        self._turn_at = NEVER
        self._closed = False

    def add(self, renewal: Renewal) -> None:
        """Keep it alive from now on. Raises ClientClosed."""
        if self._closed:
            raise ClientClosed()
        self._plan.add(renewal)
        self._arm(renewal.next_at)

    def remove(self, renewal: Renewal) -> None:
        """Keep it no longer."""
        self._plan.remove(renewal)

    async def close(self) -> None:
        """Keep nothing any more; owners who did not leave their blocks are told that their leases are lost."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._plan.lose_all()
        await self._dispatcher.close()

    def _turn(self) -> None:
        """Send what is due, and come back when the next thing is."""
        if self._closed:
            return
        now = self._loop.time()
        self._turn_at = NEVER
        self._plan.look(now)
        while due := self._plan.take_due(now):
            self._renew(due, now)
        self._arm(self._plan.next_at())

    def _arm(self, at: float) -> None:
        """A turn looks at every lease, so there is none before something is due."""
        if at >= self._turn_at or self._closed:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._turn_at = at
        self._timer = self._loop.call_at(at, self._turn)

    def _renew(self, due: list[Renewal], now: float) -> None:
        command = requests.keep_alive([renewal.lease_id for renewal in due])
        timeout_s = self._plan.request_timeout_s(due, now, self._dispatcher.timeout_s)
        future = self._dispatcher.submit(command, QUESTION, timeout_s)
        future.add_done_callback(lambda done: self._on_done(done, due, now))

    def _on_done(self, done: "asyncio.Future[Answer]", due: list[Renewal], sent_at: float) -> None:
        now = self._loop.time()
        if done.cancelled() or isinstance(done.exception(), RaftKVError):
            # Whatever it was: as long as there is time it is tried again, and then the owner is told.
            self._plan.on_failure(due, now)
        else:
            self._plan.on_answer(due, sent_at, now, done.result()[2])
        self._arm(min(renewal.next_at for renewal in due))

"""Leases of the blocking client that are kept alive: the object in the owner's hands, and the thread behind all of them.

The thread has a connection of its own, so that neither the calls of other threads nor large answers stand in its way, and no call
of its outlasts the moment at which an owner has to be told something. When to do what is decided in renewal.py.
"""

import os
import threading
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Callable

from raftkv.client import requests
from raftkv.client.blocking import Caller
from raftkv.client.decisions import QUESTION
from raftkv.client.options import WITHDRAW_S, draw, draw_lease_id
from raftkv.client.renewal import NEVER, Plan, Renewal
from raftkv.errors import ClientClosed, LeaseExists, LeaseNotFound, RaftKVError

if TYPE_CHECKING:
    from raftkv.client.lease_verbs import LeaseVerbs


class KeptLease:
    """A lease that is kept alive while its `with` block runs; made by `Client.lease`."""

    def __init__(
        self,
        client: "LeaseVerbs",
        keeper: "Callable[[], Keeper]",
        ttl: float,
        timeout: float | None = None,
        shared_id: int = 0,
        draw_id: Callable[[], int] = draw_lease_id,
    ) -> None:
        self.lost = threading.Event()
        """Set when the lease is gone, or when nobody can tell any more: its keys may be somebody else's. Never cleared."""
        self.doubt = threading.Event()
        """Set while a renewal is overdue: half of the time has passed. Cleared when one succeeds."""
        self._client = client
        self._get_keeper = keeper
        self._ttl = ttl
        self._timeout = timeout
        self._shared_id = shared_id
        self._draw_id = draw_id
        self._renewal: Renewal | None = None
        self._keeper: Keeper | None = None

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
        """For how many seconds from now it surely lives, whatever happens; 0 when it is lost. By this process's monotonic clock."""
        renewal = self._held()
        return 0.0 if renewal.lost else max(0.0, renewal.valid_until - monotonic())

    def __enter__(self) -> "KeptLease":
        assert self._renewal is None, "a lease is entered once: ask the client for another"
        sent_at = monotonic()
        lease_id = self._shared_id or self._draw_id()
        try:
            ttl = self._begin(lease_id)
            self._renewal = Renewal(lease_id, ttl, sent_at, draw, self._on_change, shared=bool(self._shared_id))
            self._keeper = self._get_keeper()
            self._keeper.add(self._renewal)
        except BaseException as error:
            if not self._shared_id and getattr(error, "may_have_happened", True):
                self._withdraw(lease_id)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.revoke()

    def _begin(self, lease_id: int) -> float:
        """Grant it, or come in to those who share it. The seconds that it has."""
        while True:
            try:
                return self._client.lease_grant(self._ttl, lease_id=lease_id, timeout=self._timeout).ttl
            except LeaseExists:
                pass  # by those who share it; one that we have drawn: by an attempt of ours that was not answered
            try:
                return self._client.lease_keep_alive_once(lease_id, timeout=self._timeout)
            except LeaseNotFound:
                pass  # it ended between the two

    def _withdraw(self, lease_id: int) -> None:
        """Nobody will hear of it, and perhaps it was granted. That it is we who drew its id is what lets us end it."""
        try:
            self._client.lease_revoke(lease_id, timeout=WITHDRAW_S)
        except RaftKVError:
            pass  # it was not granted, or it expires by itself

    def revoke(self) -> None:
        """End it now, with its keys; a shared one only for us. When the cluster cannot be reached it expires by itself."""
        renewal, keeper = self._held(), self._keeper
        assert keeper is not None, "it was entered"
        keeper.remove(renewal)
        if self._shared_id:
            return  # the others need it
        if not renewal.lost:
            try:
                self._client.lease_revoke(renewal.lease_id)
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


class Keeper:
    """The thread that renews the leases of one client. It starts with the first of them and ends with the client."""

    def __init__(self, caller: Caller, timeout_s: float) -> None:
        self._caller = caller
        self._timeout_s = timeout_s
        self._plan = Plan()
        self._changed = threading.Condition()
        self._closed = False
        self._look_at = NEVER
        self._process_id = os.getpid()
        self._thread = threading.Thread(target=self._run, name="raftkv-leases", daemon=True)
        self._thread.start()

    @property
    def is_of_another_process(self) -> bool:
        """This is a child of os.fork: the thread, and the leases, stayed with the parent."""
        return os.getpid() != self._process_id

    def add(self, renewal: Renewal) -> None:
        """Keep it alive from now on. Raises ClientClosed."""
        with self._changed:
            if self._closed:
                raise ClientClosed()
            self._plan.add(renewal)
            if renewal.next_at < self._look_at:  # a look goes through all leases: not for every new one
                self._changed.notify()

    def remove(self, renewal: Renewal) -> None:
        """Keep it no longer."""
        if not self.is_of_another_process:
            with self._changed:
                self._plan.remove(renewal)

    def ours(self) -> list[int]:
        """The ids of those that are kept alive now, and that nobody shares."""
        if self.is_of_another_process:
            return []
        with self._changed:
            return self._plan.ours()

    def close(self) -> None:
        """Keep nothing any more; owners who did not leave their blocks are told that their leases are lost."""
        if self.is_of_another_process:
            return
        with self._changed:
            self._closed = True
            self._plan.lose_all()
            self._changed.notify()
        self._caller.close()
        if threading.current_thread() is not self._thread:
            self._thread.join(self._timeout_s)

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._closed:
                    return
                now = monotonic()
                self._plan.look(now)
                due = self._plan.take_due(now)
                if not due:
                    self._look_at = self._plan.next_at()
                    wait_s = self._look_at - now
                    self._changed.wait(max(0.0, wait_s) if wait_s < threading.TIMEOUT_MAX else None)
                    continue
                timeout_s = self._plan.request_timeout_s(due, now, self._timeout_s)
            self._renew(due, timeout_s)

    def _renew(self, due: list[Renewal], timeout_s: float) -> None:
        sent_at = monotonic()
        ttls_ms: list[int] | None = None
        try:
            answer = self._caller.call(requests.keep_alive([renewal.lease_id for renewal in due]), QUESTION, timeout_s)
            ttls_ms = answer[2]
        except RaftKVError:
            pass  # whatever it was: as long as there is time it is tried again, and then the owner is told
        with self._changed:
            if ttls_ms is None:
                self._plan.on_failure(due, monotonic())
            else:
                self._plan.on_answer(due, sent_at, monotonic(), ttls_ms)

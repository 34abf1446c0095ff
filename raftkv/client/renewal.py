"""When leases are renewed, and what their owner may believe: plans and books of both keepers. SANS-IO: time is an argument.

Every time here is the owner's own monotonic clock, in seconds. A lease is surely valid for its TTL from *before* the request that granted
or renewed it was sent: the cluster counts from later. Renewals are planned from that end, not from the last renewal, at about two
thirds of the TTL before it, with jitter so that the leases of many clients spread (dynamo#4363). Half-way the lease is in doubt: a
renewal is overdue. At its end it is lost, whatever the cluster may still say: somebody else may own it by then.
"""

from typing import Callable, Final, Iterable, Sequence

RENEW_BEFORE_END_MIN: Final = 0.62  # of the TTL
RENEW_BEFORE_END_MAX: Final = 0.72
DOUBT_BEFORE_END: Final = 0.5
TOGETHER: Final = 0.05  # a request takes along what is due within so much of its TTL
LEASES_PER_REQUEST: Final = 1000
RETRY_S_MIN: Final = 0.05
RETRY_S_MAX: Final = 1.0
REQUEST_S_MIN: Final = 0.05
NEVER: Final = float("inf")


class Renewal:
    """One lease and its times. `on_change` is called when `in_doubt` or `lost` change."""

    __slots__ = (
        "_draw",
        "in_doubt",
        "in_flight",
        "lease_id",
        "lost",
        "on_change",
        "renew_at",
        "shared",
        "ttl_s",
        "valid_until",
    )

    def __init__(
        self,
        lease_id: int,
        ttl_s: float,
        sent_at: float,
        draw: Callable[[], float],
        on_change: Callable[[], None],
        shared: bool = False,
    ) -> None:
        self.lease_id = lease_id
        self.shared = shared
        """Others keep it alive, too: it is not ours to revoke."""
        self.in_flight = False
        self.in_doubt = False
        self.lost = False
        self.on_change = on_change
        self._draw = draw
        self.ttl_s = 0.0
        self.valid_until = 0.0
        self.renew_at = 0.0
        self.renewed(sent_at, ttl_s)

    @property
    def doubt_at(self) -> float:
        return self.valid_until - DOUBT_BEFORE_END * self.ttl_s

    def renewed(self, sent_at: float, ttl_s: float) -> None:
        """The cluster gave it its whole time, at some moment after `sent_at`."""
        if self.lost:
            return  # its owner was told so
        self.ttl_s = ttl_s
        self.valid_until = max(self.valid_until, sent_at + ttl_s)
        before_end = RENEW_BEFORE_END_MIN + (RENEW_BEFORE_END_MAX - RENEW_BEFORE_END_MIN) * self._draw()
        self.renew_at = self.valid_until - before_end * ttl_s
        if self.in_doubt:
            self.in_doubt = False
            self.on_change()

    def failed(self, now: float) -> None:
        """A request for it came to nothing: again soon."""
        pause_s = min(RETRY_S_MAX, max(RETRY_S_MIN, (self.valid_until - now) / 10))
        self.renew_at = now + pause_s * (0.5 + self._draw())

    def lose(self) -> None:
        """It is gone, or nobody can tell any more."""
        if not self.lost:
            self.lost = True
            self.on_change()

    def look(self, now: float) -> None:
        """Has the time come for doubt, or for the end?"""
        if now >= self.valid_until:
            self.lose()
        elif now >= self.doubt_at and not self.in_doubt:
            self.in_doubt = True
            self.on_change()

    @property
    def next_at(self) -> float:
        """When something has to be done about it; NEVER once it is lost."""
        if self.lost:
            return NEVER
        change_at = self.valid_until if self.in_doubt else self.doubt_at
        return change_at if self.in_flight else min(self.renew_at, change_at)


class Plan:
    """The leases that one keeper keeps alive."""

    __slots__ = ("_renewals",)

    def __init__(self) -> None:
        self._renewals: dict[int, Renewal] = {}

    def __len__(self) -> int:
        return len(self._renewals)

    def add(self, renewal: Renewal) -> None:
        self._renewals[id(renewal)] = renewal

    def remove(self, renewal: Renewal) -> None:
        """It is kept no longer; harmless when it is not there."""
        self._renewals.pop(id(renewal), None)

    def ours(self) -> list[int]:
        """The ids of those that are not shared."""
        return [renewal.lease_id for renewal in self._renewals.values() if not renewal.shared]

    def look(self, now: float) -> None:
        """Tell owners what time has done to their leases."""
        for renewal in list(self._renewals.values()):
            renewal.look(now)
            if renewal.lost:
                self.remove(renewal)

    def next_at(self) -> float:
        """When to look again; NEVER without leases."""
        return min((renewal.next_at for renewal in self._renewals.values()), default=NEVER)

    def take_due(self, now: float) -> list[Renewal]:
        """What the next request has to renew; it is in flight from now on."""
        waiting = [renewal for renewal in self._renewals.values() if not renewal.in_flight]
        if not any(renewal.renew_at <= now for renewal in waiting):
            return []
        due = [renewal for renewal in waiting if renewal.renew_at <= now + TOGETHER * renewal.ttl_s]
        due = sorted(due, key=lambda renewal: renewal.valid_until)[:LEASES_PER_REQUEST]
        for renewal in due:
            renewal.in_flight = True
        return due

    def request_timeout_s(self, due: Iterable[Renewal], now: float, timeout_max_s: float) -> float:
        """How long a request may take: until the first of its leases comes into doubt, or is at its end."""
        changes_at = min(r.valid_until if r.in_doubt or now >= r.doubt_at else r.doubt_at for r in due)
        return max(REQUEST_S_MIN, min(timeout_max_s, changes_at - now))

    def on_answer(self, due: Sequence[Renewal], sent_at: float, now: float, ttls_ms: Sequence[int]) -> None:
        """The cluster has answered; 0: there is no such lease."""
        for renewal, ttl_ms in zip(due, ttls_ms, strict=True):
            renewal.in_flight = False
            if ttl_ms:
                renewal.look(now)  # an answer that comes after the end comes too late
                renewal.renewed(sent_at, ttl_ms / 1000)
            else:
                renewal.lose()
            if renewal.lost:
                self.remove(renewal)

    def on_failure(self, due: Sequence[Renewal], now: float) -> None:
        """Nobody answered, or with an error."""
        for renewal in due:
            renewal.in_flight = False
            renewal.failed(now)

    def lose_all(self) -> None:
        """Nobody keeps them any more."""
        for renewal in list(self._renewals.values()):
            renewal.lose()
        self._renewals.clear()

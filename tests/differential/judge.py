"""Tells one story to both and compares: every answer, then the whole state at every revision that is left, then every event.

A difference is shrunk: steps are dropped, then parts of transactions, for as long as any difference is left.
"""

import time
from typing import Any

from raftkv.etcd.statuses import Status
from raftkv.etcdpb import rpc_pb2 as rpc
from tests.differential.real import Etcd, rpc_range
from tests.differential.stories import GRANT, LEASES, RANGE, REVOKE, TIME_TO_LIVE, TXN, Step, Teller, moved
from tests.differential.twin import Twin

SHORT_TTL_SECONDS = 100
STALL_SECONDS = 1.5
LENGTH = 60


class Difference(AssertionError):
    """The two do not agree."""


class Stalled(Exception):
    """This machine stood still for so long that a short lease may have run out."""


class Pair:
    """etcd and a store that starts where etcd is. `fresh`: etcd was never used, nothing was ever compacted."""

    def __init__(self, etcd: Etcd, *, fresh: bool = False) -> None:
        if not fresh:
            etcd.reset()
        self._etcd = etcd
        self._base = etcd.revision - 1
        self.twin = Twin(etcd.revision, etcd.compact_revision)
        self._first_event = etcd.revision + 1

    def tell(self, steps: list[Step]) -> None:
        """Raises Difference."""
        for number, (method, request) in enumerate(steps):
            if method is None:
                self.twin.settle()
                continue
            began = time.monotonic()
            real, ours = self.ask(method, moved(request, self._base), f"step {number}")
            if method is GRANT and not isinstance(real, Status) and _is_passing(request):
                self._revoke(real.ID, ours.ID, f"step {number}, revoked")
                if time.monotonic() - began > STALL_SECONDS:
                    raise Stalled()
        self.compare_state()

    def ask(self, method: Any, request: Any, where: str) -> tuple[Any, Any]:
        """Both answers, which are equal but for ids that were drawn."""
        real, ours = self._etcd.call(method, request), self.twin.call(method, request)
        self._compare(where, method, request, comparable(request, real), comparable(request, ours))
        return real, ours

    def _revoke(self, real_id: int, our_id: int, where: str) -> None:
        real = self._etcd.call(REVOKE, rpc.LeaseRevokeRequest(ID=real_id))
        ours = self.twin.call(REVOKE, rpc.LeaseRevokeRequest(ID=our_id))
        self._compare(where, REVOKE, None, comparable(None, real), comparable(None, ours))

    def _compare(self, where: str, method: Any, request: Any, real: Any, ours: Any) -> None:
        if real != ours:
            raise Difference(
                f"{where}: {method.path}\n{shown(request)}\n  etcd:\n{shown(real)}\n  raftkv:\n{shown(ours)}"
            )

    def compare_state(self) -> None:
        """Every revision that can be read, those around them that cannot, the leases with their keys, and the events."""
        current = self.twin.store.revision
        for revision in range(self.twin.store.compact_revision - 1, current + 2):
            self.ask(RANGE, rpc_range(revision=revision), f"state at revision {revision} of {current}")
        leases, _ = self.ask(LEASES, rpc.LeaseLeasesRequest(), "leases")
        for lease in leases.leases:
            self.ask(TIME_TO_LIVE, rpc.LeaseTimeToLiveRequest(ID=lease.ID, keys=True), "keys of a lease")
        first = max(self._first_event, self.twin.store.compact_revision + 1)
        real = self._etcd.events_since(first, current)
        ours = self.twin.events_since(first)
        if real != ours:
            both = ("\n".join(map(shown, events)) for events in (real, ours))
            raise Difference("events from {} to {}:\n  etcd:\n{}\n  raftkv:\n{}".format(first, current, *both))


def _is_passing(grant: rpc.LeaseGrantRequest) -> bool:
    return grant.ID == 0 or grant.TTL < SHORT_TTL_SECONDS


def comparable(request: Any, answer: Any) -> Any:
    """Without what is different by nature: who answered, ids that were drawn, seconds that have run off, an order that is open."""
    if isinstance(answer, Status):
        return answer
    copy = type(answer)()
    copy.CopyFrom(answer)
    revision = copy.header.revision
    copy.header.Clear()
    copy.header.revision = revision
    if isinstance(copy, rpc.LeaseGrantResponse) and request.ID == 0:
        assert copy.ID > 0, "an id that was drawn is positive"
        copy.ID = 0
    elif isinstance(copy, rpc.LeaseTimeToLiveResponse):
        assert copy.grantedTTL >= copy.TTL
        copy.TTL = min(copy.TTL, 0)
        keys = sorted(copy.keys)
        del copy.keys[:]
        copy.keys.extend(keys)
    elif isinstance(copy, rpc.LeaseLeasesResponse):
        ids = sorted(lease.ID for lease in copy.leases)
        del copy.leases[:]
        copy.leases.extend(rpc.LeaseStatus(ID=lease_id) for lease_id in ids)
    return copy


def shown(message: Any) -> str:
    if message is None or isinstance(message, Status):
        return f"    {message}"
    text = str(message) or "(empty)"
    for character, count in (("k", 480), ("v", 300)):
        text = text.replace(character * count, f"<{count} times {character}>")
    return "\n".join(f"    {line}" for line in text.splitlines())


def difference_in(etcd: Etcd, steps: list[Step]) -> Difference | None:
    """Tell the story on what etcd is now."""
    for _ in range(3):
        try:
            Pair(etcd).tell(steps)
        except Difference as error:
            return error
        except Stalled:
            continue
        return None
    raise Stalled("three times in a row: this machine is too slow for leases of two seconds")


def run_seed(etcd: Etcd, seed: int, length: int = LENGTH) -> None:
    """Raises Difference with the shortest story that still shows one, and how to run it again."""
    steps = Teller(seed).story(length)
    if difference_in(etcd, steps) is None:
        return
    steps = shrunk(etcd, steps)
    error = difference_in(etcd, steps)
    lines = [f"{'(commit)' if method is None else method.path}\n{shown(request)}" for method, request in steps]
    raise Difference("\n".join([f"{len(steps)} step(s):", *lines, str(error), f"replay: {replay_line(seed, length)}"]))


def replay_line(seed: int, length: int) -> str:
    return f"python -m tests.differential --seed {seed} --length {length}"


def shrunk(etcd: Etcd, steps: list[Step]) -> list[Step]:
    """Drop ever smaller pieces, then parts of transactions."""
    size = len(steps) // 2
    while size:
        start = 0
        while start < len(steps):
            fewer = steps[:start] + steps[start + size :]
            if difference_in(etcd, fewer) is not None:
                steps = fewer
            else:
                start += size
        size //= 2
    for number, (method, request) in enumerate(steps):
        if method is TXN:
            smaller = _shrunk_txn(etcd, steps, number, request)
            steps = [*steps[:number], (method, smaller), *steps[number + 1 :]]
    return steps


def _shrunk_txn(etcd: Etcd, steps: list[Step], number: int, request: rpc.TxnRequest) -> rpc.TxnRequest:
    for name in ("compare", "success", "failure"):
        for position in reversed(range(len(getattr(request, name)))):
            smaller = rpc.TxnRequest()
            smaller.CopyFrom(request)
            del getattr(smaller, name)[position]
            if difference_in(etcd, [*steps[:number], (TXN, smaller), *steps[number + 1 :]]) is not None:
                request = smaller
    return request

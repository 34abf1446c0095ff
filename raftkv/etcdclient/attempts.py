"""One conditional transaction on etcd, repeated until its outcome is known: the marks of marks.py at work.

The outer transaction asks for the mark as it is known, for the guards and for a key that must not have changed. What the user compares is a transaction
inside, so that a refusal by him and one by us are told apart in one call.
"""

from typing import Any, Final, NamedTuple, Sequence

from raftkv.errors import (
    AnswerDropped,
    Compacted,
    FencingTokenStale,
    LeaseNotFound,
    PermissionDenied,
    RaftKVError,
    SessionExpired,
)
from raftkv.etcdclient import rpcs
from raftkv.etcdclient.course import Uncertain
from raftkv.etcdclient.marks import MARKS_PREFIX, Mark, Session
from raftkv.etcdclient.messages import branch_items, equals, kv_items, operation, read, writes
from raftkv.etcdclient.rpcs import Rpc, Steps
from raftkv.etcdpb import rpc_pb2 as rpc
from raftkv.units import Revision
from raftkv.wire.commands import (
    COMPARE_CREATE,
    COMPARE_MOD,
    COMPARE_VERSION,
    DELETE_RANGE,
    PREV_KV,
    PUT,
    RANGE,
    Command,
    KeyValueItems,
)

PART = 64  # operations of a transaction within another count together with that one's
OPERATIONS_MAX: Final = 128  # in a transaction: etcd's default
_THEN, _ELSE, _SETTLED = b"1", b"0", b""


class Request(NamedTuple):
    """What is to be done, and under which conditions."""

    guards: Sequence[tuple[bytes, Revision]]
    compares: Sequence[Any]
    success: Sequence[Command]
    failure: Sequence[Command]
    unchanged: tuple[bytes, Revision] | None = None
    """A key and its mod revision: it must be what was seen of it."""


class Applied(NamedTuple):
    """Done, at this revision, now or by an attempt whose answer was lost."""

    revision: Revision
    succeeded: bool
    items: list[list[Any]]


class Changed(NamedTuple):
    """Not done: the key that had to be unchanged is this now."""

    kv: KeyValueItems | None


class SessionGone(Exception):
    """The lease of the marks has ended; nothing was done."""


def attempt(session: Session | None, mark: Mark | None, request: Request) -> Steps:
    """Applied or Changed. Raises FencingTokenStale, SessionGone, SessionExpired; Uncertain only without a mark."""
    again = False
    while True:
        try:
            response = yield Rpc(rpcs.TXN, _outer(session, mark, request, again), safe=not _writes(request))
        except Uncertain:
            if mark is None:
                raise
            again = True
            continue
        except LeaseNotFound as error:
            if mark is not None and session is not None:
                yield from _check_session(session, again)
            raise _of_all(error, again) from None
        except PermissionDenied as error:
            if mark is None:
                raise
            raise _denied(error, again) from None
        except RaftKVError as error:
            raise _of_all(error, again) from None
        if response.succeeded or _is_plain(mark, request):
            return _applied(mark, request, response)
        if mark is not None:
            found = response.responses[0].response_range.kvs
            if found and found[0].version == mark.version + 1:
                mark.version += 1
                succeeded = found[0].value == _THEN
                return (yield from _recall(request, succeeded, found[0].mod_revision))
            if mark.version and not found:
                raise _session_gone(again)
            if again and not found and session is not None:
                yield from _check_session(session, again)  # an attempt may have been done, and its mark be gone with it
        return _refused(request, response.responses[0 if mark is None else 1 :])


def settled(session: Session) -> Steps:
    """Whatever of this client was given up is done by now, or never. Raises SessionGone, PermissionDenied."""
    while marks := session.doubtful()[:OPERATIONS_MAX]:
        puts = [_put_mark(session, mark, _SETTLED, True)[0] for mark in marks]
        try:
            yield Rpc(rpcs.TXN, rpc.TxnRequest(success=puts), safe=True)
        except LeaseNotFound:
            raise SessionGone() from None
        except PermissionDenied as error:
            raise _denied(error, again=False) from None
        except RaftKVError as error:
            raise _of_all(error, again=False) from None
        session.settle(marks)


def _outer(session: Session | None, mark: Mark | None, request: Request, again: bool) -> Any:
    if _is_plain(mark, request):
        branches = [operation(one) for one in request.success], [operation(one) for one in request.failure]
        return rpc.TxnRequest(compare=request.compares, success=branches[0], failure=branches[1])
    compares = [equals(COMPARE_CREATE, key, revision) for key, revision in request.guards]
    failure = [rpc.RequestOp(request_range=rpc.RangeRequest(key=key, keys_only=True)) for key, _ in request.guards]
    if request.unchanged is not None:
        key, revision = request.unchanged
        compares.append(equals(COMPARE_MOD, key, revision))
        failure.append(rpc.RequestOp(request_range=rpc.RangeRequest(key=key)))
    if mark is not None:
        compares.insert(0, equals(COMPARE_VERSION, mark.key, mark.version))
        failure.insert(0, rpc.RequestOp(request_range=rpc.RangeRequest(key=mark.key)))
    then = [*_put_mark(session, mark, _THEN, again or writes(request.success)), *map(operation, request.success)]
    if not _writes(request) and not request.compares:
        parts = [then[start : start + PART] for start in range(0, len(then), PART)] or [[]]
        then = [rpc.RequestOp(request_txn=rpc.TxnRequest(success=part)) for part in parts]
    elif request.compares:
        other = [*_put_mark(session, mark, _ELSE, again or writes(request.failure)), *map(operation, request.failure)]
        inner = rpc.TxnRequest(compare=request.compares, success=then, failure=other)
        then = [rpc.RequestOp(request_txn=inner)]
    return rpc.TxnRequest(compare=compares, success=then, failure=failure)


def _put_mark(session: Session | None, mark: Mark | None, value: bytes, is_needed: bool) -> list[Any]:
    """A branch that changes nothing needs no mark, unless an earlier attempt is still under way, which must find it gone on."""
    if mark is None or session is None or not is_needed:
        return []
    return [rpc.RequestOp(request_put=rpc.PutRequest(key=mark.key, value=value, lease=session.lease_id))]


def _is_plain(mark: Mark | None, request: Request) -> bool:
    """It can go as it is, with all the operations that etcd allows.

    What only reads cannot: up to 3.5.4 etcd answers a transaction of nothing but reads in the caller's own time, and *panics* when that is over. One
    with a transaction in it goes through the log.
    """
    return mark is None and not request.guards and request.unchanged is None and _writes(request)


def _writes(request: Request) -> bool:
    return writes(request.success) or writes(request.failure)


def _applied(mark: Mark | None, request: Request, response: Any) -> Applied:
    revision = response.header.revision
    succeeded, responses = True, list(response.responses)
    if _is_plain(mark, request):
        succeeded = response.succeeded
    elif not _writes(request) and not request.compares:
        responses = [one for part in responses for one in part.response_txn.responses]
    elif request.compares:
        inner = responses[0].response_txn
        succeeded, responses = inner.succeeded, list(inner.responses)
    branch = request.success if succeeded else request.failure
    if len(responses) == len(branch) + 1:
        assert mark is not None, "nothing else is put in front"
        mark.version += 1
        del responses[0]
    return Applied(revision, succeeded, branch_items(branch, responses, revision))


def _refused(request: Request, responses: Sequence[Any]) -> Changed:
    """Raises FencingTokenStale, also when the key has changed as well."""
    for (key, wanted), response in zip(request.guards, responses, strict=False):
        kvs = response.response_range.kvs
        actual = kvs[0].create_revision if kvs else 0
        if actual != wanted:
            raise FencingTokenStale(
                f"the guard was created at revision {wanted}, "
                + (f"the key is of revision {actual} now" if actual else "the key is gone"),
                details={"key": key, "create_revision": wanted, "actual": actual},
            )
    assert request.unchanged is not None, "there is no other reason to refuse"
    kvs = responses[-1].response_range.kvs
    return Changed(kv_items(kvs[0]) if kvs else None)


def _check_session(session: Session, again: bool) -> Steps:
    """Which lease was not found: that of the marks, or the user's."""
    response = yield Rpc(rpcs.LEASE_TTL, rpc.LeaseTimeToLiveRequest(ID=session.lease_id), safe=True)
    if response.TTL < 0:
        raise _session_gone(again)


def _session_gone(again: bool) -> Exception:
    if again:
        return SessionExpired("the session ended while the write was repeated: it may have happened")
    return SessionGone()


def _denied(error: PermissionDenied, again: bool) -> PermissionDenied:
    return PermissionDenied(
        f"{error.message}: is it the key, or may the user not write under {MARKS_PREFIX.decode()}? (session=False needs no such right)",
        may_have_happened=again,
    )


def _of_all(error: RaftKVError, again: bool) -> RaftKVError:
    """A refusal stands for the last attempt; of an earlier one without an answer nobody knows."""
    error.may_have_happened = again
    return error


# An answer that was lost, from history.


def _recall(request: Request, succeeded: bool, revision: Revision) -> Steps:
    branch = request.success if succeeded else request.failure
    items: list[list[Any]] = []
    try:
        for position, command in enumerate(branch):
            items.append((yield from _recall_one(branch, position, command, revision)))
    except Compacted:
        raise AnswerDropped("the write was applied, but its answer is compacted history") from None
    return Applied(revision, succeeded, items)


def _recall_one(branch: Sequence[Command], position: int, command: Command, revision: Revision) -> Steps:
    kind = command[0]
    if kind == PUT:
        previous = None
        if command[5] & PREV_KV:
            response = yield read(rpc.RangeRequest(key=command[2], revision=revision - 1))
            previous = kv_items(response.kvs[0]) if response.kvs else None
        return [PUT, revision, previous]
    if kind == DELETE_RANGE:
        response = yield read(rpc.RangeRequest(key=command[2], range_end=command[3], revision=revision - 1))
        kvs = [kv_items(kv) for kv in response.kvs]
        return [DELETE_RANGE, revision, len(kvs), kvs if command[4] & PREV_KV else []]
    before, behind = writes(branch[:position]), writes(branch[position + 1 :])
    if kind == RANGE and not (before and behind):
        request = operation(command).request_range
        request.revision = request.revision or (revision if before else revision - 1)
        response = yield read(request)
        return [RANGE, revision, [kv_items(kv) for kv in response.kvs], response.more, response.count]
    raise AnswerDropped("the transaction was applied, but its answer was lost and cannot be told from history")

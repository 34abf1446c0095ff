"""The writes of keys: PUT, DELETE_RANGE, TXN, INCREMENT, APPEND, and each of them under guards.

INCREMENT and APPEND are read, computed here, and written if the key is unchanged, over and over; whoever loses has the new value already, in the refusal.
"""

import re
from typing import Callable, Final, Sequence

from raftkv.errors import (
    DeadlineExceeded,
    InvalidRequest,
    LeaseExists,
    NotANumber,
    RaftKVError,
    SessionExpired,
    Unreachable,
)
from raftkv.etcdclient import rpcs
from raftkv.etcdclient.attempts import OPERATIONS_MAX, Applied, Request, SessionGone, attempt, settled
from raftkv.etcdclient.marks import MARKS_PREFIX, TTL_S, Mark, Session, Sessions, covers_marks
from raftkv.etcdclient.messages import compare, kv_items, read, writes
from raftkv.etcdclient.rpcs import Pause, Program, Rpc, Steps
from raftkv.etcdpb import rpc_pb2 as rpc
from raftkv.units import Revision
from raftkv.wire.commands import (
    APPEND,
    DELETE_RANGE,
    GUARDED,
    INCREMENT,
    OK,
    PUT,
    TXN,
    Command,
    KeyValueItems,
)

RIVALS_PATIENCE: Final = 3  # so many lost races, then pauses between the tries
PAUSE_S_MAX: Final = 0.1
SESSIONS_MAX: Final = 3  # ended under our hands in one call
_DECIMAL: Final = re.compile(rb"-?[0-9]{1,19}\Z")
_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1


def write(sessions: Sessions | None, command: Command, draw: Callable[[], float]) -> Program:
    """A write of keys. Without sessions, or where a mark has no room, an attempt without an answer ends it.

    Where there is a session, what was given up before comes first, whether this one has room for a mark or not.
    """
    guards: Sequence[tuple[bytes, Revision]] = ()
    inner = command
    if command[0] == GUARDED:
        guards, inner = [(key, revision) for key, revision in command[2]], command[3]
    if sessions is None:
        return (yield from _do(None, None, guards, inner, draw))
    for _ in range(SESSIONS_MAX):
        session = (yield from opened(sessions)) if sessions.is_due else sessions.current
        assert session is not None, "it is open"
        try:
            yield from settled(session)
            if not _has_room(inner, len(guards)):
                return (yield from _do(None, None, guards, inner, draw))
            return (yield from _marked(session, guards, inner, draw))
        except SessionGone:
            session.gone = True
    raise SessionExpired("the sessions of this client end as soon as they begin", may_have_happened=False)


def _marked(
    session: Session, guards: Sequence[tuple[bytes, Revision]], command: Command, draw: Callable[[], float]
) -> Program:
    """Raises SessionGone."""
    mark = session.take()
    try:
        answer = yield from _do(session, mark, guards, command, draw)
    except BaseException as error:  # the end of its time is a GeneratorExit
        if isinstance(error, RaftKVError) and not error.may_have_happened:
            session.give_back(mark)
        else:
            session.doubt(mark)
        raise
    session.give_back(mark)
    return answer


def opened(sessions: Sessions) -> Steps:
    """The session, with time to live: renewed, or another one.

    Another one only when etcd says that the first has ended: until then it lets in what was given up in it.
    """
    session, sent_at = sessions.current, sessions.now()
    if session is not None and not session.gone:
        request = rpc.LeaseKeepAliveRequest(ID=session.lease_id)
        (response,) = yield Rpc(rpcs.LEASE_KEEP_ALIVE, [request], safe=True, streams=True)
        if response.TTL > 0:
            session.renewed(sent_at, response.TTL)
            return session
        session.gone = True
    lease_id, ttl_s = sessions.draw_id(), TTL_S
    try:
        ttl_s = (yield Rpc(rpcs.LEASE_GRANT, rpc.LeaseGrantRequest(ID=lease_id, TTL=TTL_S), safe=True)).TTL
    except LeaseExists:
        pass  # by an attempt that was not answered: the number is drawn from 63 bits
    sessions.current = Session(lease_id, sent_at, ttl_s)
    return sessions.current


def _do(
    session: Session | None,
    mark: Mark | None,
    guards: Sequence[tuple[bytes, Revision]],
    command: Command,
    draw: Callable[[], float],
) -> Program:
    kind = command[0]
    if kind in (INCREMENT, APPEND):
        return (yield from _change(session, mark, guards, command, draw))
    if kind == TXN:
        compares = [compare(*items) for items in command[2]]
        done = yield from attempt(session, mark, Request(guards, compares, command[3], command[4]))
        return [OK, done.revision, done.succeeded, done.items]
    assert kind in (PUT, DELETE_RANGE), "calls.py sends nothing else here"
    done = yield from attempt(session, mark, Request(guards, (), [command], ()))
    return [OK, *done.items[0][1:]]


def _change(
    session: Session | None,
    mark: Mark | None,
    guards: Sequence[tuple[bytes, Revision]],
    command: Command,
    draw: Callable[[], float],
) -> Program:
    """INCREMENT and APPEND. The key keeps its lease; a new one gets the command's."""
    key, lease_of_new = command[2], command[4] if len(command) > 4 else 0
    response = yield read(rpc.RangeRequest(key=key))
    kv: KeyValueItems | None = kv_items(response.kvs[0]) if response.kvs else None
    lost_races = 0
    while True:
        value = _changed(command, b"" if kv is None else kv[5], kv is not None)
        put = [PUT, 0, key, value, lease_of_new if kv is None else kv[4], 0]
        done = yield from attempt(session, mark, Request(guards, (), [put], (), (key, 0 if kv is None else kv[2])))
        if isinstance(done, Applied):
            # Of an attempt whose answer was lost it is the same value: it, too, was done only on what was seen.
            return [OK, done.revision, int(value) if command[0] == INCREMENT else len(value)]
        kv = done.kv
        lost_races += 1
        if lost_races > RIVALS_PATIENCE:
            yield Pause(min(PAUSE_S_MAX, 0.002 * 2 ** min(lost_races - RIVALS_PATIENCE, 8)) * draw())


def _changed(command: Command, old: bytes, exists: bool) -> bytes:
    """Raises NotANumber."""
    if command[0] == APPEND:
        return old + bytes(command[3])
    delta = command[3]
    if type(delta) is not int or not _INT64_MIN <= delta <= _INT64_MAX:
        raise InvalidRequest(f"what is added is an integer of 64 bits, not {delta!r}")
    if exists and _DECIMAL.match(old) is None:
        raise NotANumber()
    number = int(old) if exists else 0
    total = number + delta
    if not (_INT64_MIN <= number <= _INT64_MAX and _INT64_MIN <= total <= _INT64_MAX):
        raise NotANumber("the value or the sum is outside of 64 bits")
    return b"%d" % total


def _has_room(command: Command, guards: int) -> bool:
    """Whether a mark may stand in its transaction: it must not be deleted by it, nor be one too many."""
    if command[0] == DELETE_RANGE:
        return not covers_marks(command[2], command[3])
    if command[0] != TXN:
        return guards < OPERATIONS_MAX - 2
    sizes = len(command[2]), len(command[3]), len(command[4])
    if not writes(command[3]) and not writes(command[4]):
        return bool(guards)
    return max(sizes) + 1 + max(1, guards + 1) <= OPERATIONS_MAX and not any(
        map(_touches_marks, (*command[3], *command[4]))
    )


def _touches_marks(operation: Command) -> bool:
    if operation[0] == TXN:
        return any(map(_touches_marks, (*operation[3], *operation[4])))
    if operation[0] == DELETE_RANGE:
        return covers_marks(operation[2], operation[3])
    return operation[0] == PUT and bytes(operation[2]).startswith(MARKS_PREFIX)


def contended_key(command: Command) -> bytes | None:
    """The key whose value a write has to read first; whoever else of this client wants it waits for its turn."""
    inner = command[3] if command[0] == GUARDED else command
    return bytes(inner[2]) if inner[0] in (INCREMENT, APPEND) else None


def no_session(timeout_s: float) -> Unreachable:
    """Others of this client have tried all that time, in vain."""
    return Unreachable(f"no member could be reached within {timeout_s:.3g} s: no session could be opened for the write")


def not_our_turn(timeout_s: float) -> DeadlineExceeded:
    return DeadlineExceeded(
        f"not sent within {timeout_s:.3g} s: others of this client change the same key", may_have_happened=False
    )


def is_write_of_keys(command: Command) -> bool:
    return command[0] in (PUT, DELETE_RANGE, TXN, INCREMENT, APPEND, GUARDED)

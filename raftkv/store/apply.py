"""Apply: one committed batch of commands, group by group, command by command, in order.

Deterministic: it reads the batch and the state, never a clock, a random source or the order of a set, and it never raises
for anything a client can send: a refused command has a failure for an answer and has changed nothing. Each command is atomic
and, if it changes anything, one revision. The table of handlers is the list of what can be in the log.
"""

import re
import struct
from typing import Any, Callable, Final

from raftkv.errors import (
    AnswerDropped,
    Corruption,
    FencingTokenStale,
    FutureRevision,
    InvalidRequest,
    NotANumber,
    RaftKVError,
    SessionExpired,
    SessionWindow,
    TooManySessions,
    ValueTooLarge,
)
from raftkv.store import lease_commands, operations
from raftkv.store.auth_commands import AUTH_HANDLERS
from raftkv.store.callers import check_access, is_of_member, refusal_of_caller
from raftkv.store.mvcc import Mvcc
from raftkv.store.pool_commands import POOL_HANDLERS, settle
from raftkv.store.quota import check_alarms
from raftkv.store.ranges import compacted
from raftkv.store.records import create_revision_of, lease_of, value_of
from raftkv.store.sessions import Session
from raftkv.store.state import State
from raftkv.store.transactions import apply_txn
from raftkv.units import Milliseconds
from raftkv.wire.commands import (
    ALARM,
    APPEND,
    CHECKPOINT_LEASES,
    COMPACT,
    CREATE_CLUSTER,
    DELETE_RANGE,
    DOWNGRADE,
    EXPIRE_LEASES,
    EXPIRE_SESSIONS,
    FORGET_MEMBER,
    GUARDED,
    INCREMENT,
    LEASE_GRANT,
    LEASE_REVOKE,
    OK,
    PUBLISH_MEMBER,
    PUT,
    READS,
    RECORD_MEMBER,
    SET_ALARM,
    TXN,
    Answer,
    Command,
    failure,
)
from raftkv.wire.protocol import SESSION_ID_BYTES
from raftkv.wire.validate import is_plain_put, validate

_INT64_MIN: Final = -(2**63)
_INT64_MAX: Final = 2**63 - 1
_DECIMAL: Final = re.compile(rb"-?[0-9]{1,19}\Z")
_COMPACT_EFFECT: Final = struct.Struct(">7sq")
_SESSION_EFFECT: Final = struct.Struct(">16sQQI")


def apply_batch(state: State, time_ms: Milliseconds, groups: list[Any]) -> list[list[Answer]]:
    """The answers, one list per group."""
    state.clock_ms = max(state.clock_ms, time_ms)
    pools = state.pools
    pools.seen = 0
    answers = [_apply_group(state, group) for group in groups]
    if pools.requests or pools.dirty:
        settle(state)  # what came free in this entry is given on in it
    return answers


def _apply_group(state: State, group: Any) -> list[Answer]:
    if type(group) is not list or len(group) != 6 or type(group[5]) is not list:
        return []
    session_id, register, ack_below, user, auth_revision, commands = group
    state.user, state.auth_revision = user, auth_revision
    if state.is_guarded:
        refusal = refusal_of_caller(state)
        if refusal is not None:  # before the session: what it is refused now it may do after another login
            return [_run(state, command) if is_of_member(command) else refusal for command in commands]
    if session_id is None:
        return [_run(state, command) for command in commands]
    try:
        session = _open_session(state, session_id, bool(register), ack_below, user)
    except RaftKVError as error:
        refusal = failure(error)
        return [_run(state, command) if _sequence_of(command) == 0 else refusal for command in commands]
    answers = _run_once(state, session, commands)
    state.effects.append(_SESSION_EFFECT.pack(session_id, session.ack_below, session.deadline_ms, len(session.answers)))
    return answers


def _open_session(state: State, session_id: Any, register: bool, ack_below: Any, user: Any) -> Session:
    """Raises InvalidRequest, SessionExpired or TooManySessions."""
    if type(session_id) is not bytes or len(session_id) != SESSION_ID_BYTES:
        raise InvalidRequest(f"a session id has {SESSION_ID_BYTES} bytes")
    if type(ack_below) is not int or not 0 <= ack_below <= _INT64_MAX or not (user is None or type(user) is str):
        raise InvalidRequest("ack_below or user of a group are malformed")
    settings = state.cluster.settings
    session = state.sessions.get(session_id)
    if session is None:
        if not register:
            raise SessionExpired()
        if len(state.sessions) >= settings.sessions_max:
            raise TooManySessions(f"the cluster keeps at most {settings.sessions_max} sessions")
        session = state.sessions.create(session_id, user)
    elif session.user != user:
        _check_owner(state, session, user)
    session.acknowledge(ack_below)
    state.sessions.use(session_id, session, state.clock_ms, settings)
    return session


def _check_owner(state: State, session: Session, user: Any) -> None:
    """A session that began while nobody had to log in belongs to whoever first goes on with it as a user.

    Raises InvalidRequest. While authentication is off, whoever knows the id may use it: there are no users then.
    """
    if session.user is None:
        session.user = user
    elif state.is_guarded or user is not None:
        raise InvalidRequest("the session belongs to another user")


def _run_once(state: State, session: Session, commands: list[Any]) -> list[Answer]:
    """Run the commands that were not run before; of those that were, the first answer stands and nothing changes."""
    settings = state.cluster.settings
    kept = session.answers
    window_start = session.ack_below
    window_end = window_start + settings.session_window
    answers: list[Answer] = []
    for command in commands:
        sequence = _sequence_of(command)
        if sequence <= 0:
            answer = _run(state, command)
        elif sequence in kept:
            answer = kept[sequence] or failure(AnswerDropped())
        elif window_start <= sequence < window_end:
            answer = _run(state, command)
            session.keep(sequence, answer, settings)
        else:
            details = {"ack_below": window_start, "window": settings.session_window}
            answer = failure(SessionWindow(details=details, may_have_happened=sequence < window_start))
        answers.append(answer)
    return answers


def _sequence_of(command: Any) -> int:
    """The session sequence; -1 for what is no command, so that `_run` refuses it and nothing is kept."""
    if type(command) is list and len(command) > 1 and type(command[1]) is int:
        sequence: int = command[1]
        return sequence
    return -1


def _run(state: State, command: Any) -> Answer:
    try:
        if type(command) is not list or not command or type(command[0]) is not int:
            raise InvalidRequest("a command is a list that starts with its operation")
        handler = _HANDLERS.get(command[0])
        if handler is None:
            raise _stranger(command[0])
        if state.is_guarded:
            check_access(state, command)
        cluster = state.cluster
        if cluster.full or cluster.alarms:
            check_alarms(command, cluster)
        return handler(state, command)
    except Corruption:
        raise
    except RaftKVError as error:
        assert not state.mvcc.sub, "a refused command changes nothing"
        return failure(error)


def _stranger(operation: int) -> RaftKVError:
    """A newer version has written it, and carries it out: whoever answers it with an error has another store from then on.

    Leaders propose nothing that a member does not know (replica/versions.py); this is for one that is older than it said.
    """
    if operation in READS:
        return InvalidRequest(f"operation {operation} is no write")
    return Corruption(
        f"the log holds operation {operation}, which this version of raftkv does not know: upgrade this member, its data is whole"
    )


def _put(state: State, command: Command) -> Answer:
    mvcc = state.mvcc
    if is_plain_put(command, state.key_bytes_max, state.fast_value_bytes_max):  # the hot path
        mvcc.put(command[2], command[3])
        return [OK, mvcc.revision, None]
    validate(command, state.cluster.settings)
    mvcc.leases.check(command[4], command[2])
    previous = operations.put(mvcc, command)
    return [OK, mvcc.finish(), previous]


def _delete_range(state: State, command: Command) -> Answer:
    validate(command, state.cluster.settings)
    count, previous = operations.delete_range(state.mvcc, command)
    return [OK, state.mvcc.finish(), count, previous]


def _txn(state: State, command: Command) -> Answer:
    settings = state.cluster.settings
    validate(command, settings)
    return apply_txn(state.mvcc, command, settings.range_reply_bytes_max)


def _increment(state: State, command: Command) -> Answer:
    """The key keeps its lease: a counter that dies with its owner goes on doing so. A new one gets the command's."""
    validate(command, state.cluster.settings)
    mvcc = state.mvcc
    key = command[2]
    old = mvcc.get(key)
    number = 0
    if old is not None:
        text = value_of(old)
        if _DECIMAL.match(text) is None:
            raise NotANumber()
        number = int(text)
    total = number + command[3]
    if not (_INT64_MIN <= number <= _INT64_MAX and _INT64_MIN <= total <= _INT64_MAX):
        raise NotANumber("the value or the sum is outside of 64 bits")
    mvcc.put_over(old, key, b"%d" % total, _lease_after(mvcc, old, command))
    return [OK, mvcc.finish(), total]


def _append(state: State, command: Command) -> Answer:
    """As INCREMENT, about leases."""
    settings = state.cluster.settings
    validate(command, settings)
    mvcc = state.mvcc
    key, tail = command[2], command[3]
    old = mvcc.get(key)
    value = tail if old is None else value_of(old) + tail
    if len(value) > settings.value_bytes_max:
        raise ValueTooLarge(f"the value would have {len(value)} bytes, at most {settings.value_bytes_max} are accepted")
    mvcc.put_over(old, key, value, _lease_after(mvcc, old, command))
    return [OK, mvcc.finish(), len(value)]


def _lease_after(mvcc: Mvcc, old: bytes | None, command: Command) -> int:
    """Of a key that is changed in place. Raises LeaseNotFound, or what speaks against one more key on it."""
    if old is not None:
        return lease_of(old)
    lease_id: int = command[4] if len(command) > 4 else 0
    mvcc.leases.check(lease_id, command[2])
    return lease_id


def _guarded(state: State, command: Command) -> Answer:
    """The write inside is done iff every guard holds: the key still exists as it was created at that revision."""
    validate(command, state.cluster.settings)
    _, _, guards, inner = command
    for key, create_revision in guards:
        record = state.mvcc.get(key)
        actual = 0 if record is None else create_revision_of(record)
        if actual != create_revision:
            raise FencingTokenStale(
                f"the guard was created at revision {create_revision}, "
                + (f"the key is of revision {actual} now" if actual else "the key is gone"),
                details={"key": key, "create_revision": create_revision, "actual": actual},
            )
    return _HANDLERS[inner[0]](state, inner)


def _compact(state: State, command: Command) -> Answer:
    """History below the revision is refused from now on; compaction.py makes the room. Not a revision of its own."""
    validate(command, state.cluster.settings)
    mvcc = state.mvcc
    revision = command[2]
    if revision <= mvcc.compact_revision:
        raise compacted(revision, mvcc.compact_revision)
    if revision > mvcc.revision:
        raise FutureRevision(f"revision {revision} has not been reached, the store is at {mvcc.revision}")
    mvcc.compact_revision = revision
    state.effects.append(_COMPACT_EFFECT.pack(b"compact", revision))
    return [OK, mvcc.revision]


def _publish_member(state: State, command: Command) -> Answer:
    state.cluster.publish(command)
    state.change_cluster()
    return [OK, state.mvcc.revision]


def _create_cluster(state: State, command: Command) -> Answer:
    state.cluster.create(command)
    state.change_cluster()
    return [OK, state.mvcc.revision]


def _set_alarm(state: State, command: Command) -> Answer:
    state.cluster.set_alarm(command)
    state.change_cluster()
    return [OK, state.mvcc.revision]


def _record_member(state: State, command: Command) -> Answer:
    state.cluster.record(command)
    state.change_cluster()
    return [OK, state.mvcc.revision]


def _forget_member(state: State, command: Command) -> Answer:
    state.cluster.forget(command)
    state.change_cluster()
    return [OK, state.mvcc.revision]


def _alarm(state: State, command: Command) -> Answer:
    validate(command, state.cluster.settings)
    member, kind, on = command[2:]
    if not state.cluster.raise_alarm(member, kind, on):
        return [OK, state.mvcc.revision, []]
    state.change_cluster()
    return [OK, state.mvcc.revision, [[member, kind]]]


def _downgrade(state: State, command: Command) -> Answer:
    validate(command, state.cluster.settings)
    changed = state.cluster.announce_downgrade(command[2])
    if changed:
        state.change_cluster()
    return [OK, state.mvcc.revision, changed]


def _expire_sessions(state: State, command: Command) -> Answer:
    expired = state.sessions.expire(state.clock_ms)
    state.effects += expired
    return [OK, state.mvcc.revision, len(expired)]


_HANDLERS: Final[dict[int, Callable[[State, Command], Answer]]] = {
    PUT: _put,
    DELETE_RANGE: _delete_range,
    TXN: _txn,
    INCREMENT: _increment,
    APPEND: _append,
    COMPACT: _compact,
    LEASE_GRANT: lease_commands.grant,
    LEASE_REVOKE: lease_commands.revoke,
    GUARDED: _guarded,
    PUBLISH_MEMBER: _publish_member,
    CREATE_CLUSTER: _create_cluster,
    EXPIRE_SESSIONS: _expire_sessions,
    EXPIRE_LEASES: lease_commands.expire,
    CHECKPOINT_LEASES: lease_commands.checkpoint,
    SET_ALARM: _set_alarm,
    RECORD_MEMBER: _record_member,
    FORGET_MEMBER: _forget_member,
    **AUTH_HANDLERS,
    **POOL_HANDLERS,
    ALARM: _alarm,
    DOWNGRADE: _downgrade,
}

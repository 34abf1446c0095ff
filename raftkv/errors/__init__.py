"""The error tree: every error has a stable code and says whether the write may have happened.

`may_have_happened` is what a caller needs to decide about a retry: False means that the request surely changed nothing and
never will, True means that nobody on this side knows. Front doors carry the code, never the class; `from_code` gives the
class back. Two classes with one code fail at import.
"""

from typing import Any, ClassVar, Mapping

_BY_CODE: dict[str, type["RaftKVError"]] = {}


class RaftKVError(Exception):
    """Base of all errors of raftkv.

    `details` is a mapping of plain values (str, int, bytes, list, dict, None) that travels with the error, for example the
    leader hint of `not_leader`.
    """

    code: ClassVar[str] = "error"
    may_have_happened: bool = False

    def __init__(
        self, message: str = "", *, details: Mapping[str, Any] | None = None, may_have_happened: bool | None = None
    ) -> None:
        super().__init__(message or (self.__doc__ or self.code).strip().splitlines()[0])
        self.details: dict[str, Any] = dict(details or {})
        if may_have_happened is not None:
            self.may_have_happened = may_have_happened

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        assert "code" in cls.__dict__, f"{cls.__name__} needs a code of its own"
        assert cls.code not in _BY_CODE, f"error code {cls.code} is taken by {_BY_CODE[cls.code].__name__}"
        _BY_CODE[cls.code] = cls

    @property
    def message(self) -> str:
        """The text without code and details."""
        return str(self.args[0])


# Where to go instead: refused before anything happened.


class NotLeader(RaftKVError):
    """This member is not the leader."""

    # details: leader {id, name, address} or None while an election runs; members [{id, name, address}]
    code = "not_leader"


class NoQuorum(RaftKVError):
    """This member cannot reach a majority of the cluster."""

    # details: members [{id, name, address}]. Pending writes end with may_have_happened=True, new ones with False.
    code = "no_quorum"


class ShuttingDown(RaftKVError):
    """This member is shutting down."""

    code = "shutting_down"


class Overloaded(RaftKVError):
    """Too many requests are waiting; try again later."""

    code = "overloaded"


# The outcome is not known.


class OutcomeUnknown(RaftKVError):
    """The write may have happened or not: the connection, the leader or the time was lost before its answer came."""

    code = "outcome_unknown"
    may_have_happened = True


class LeadershipLost(RaftKVError):
    """The leader lost its office before the write was committed; it may still be committed by the next leader."""

    code = "leadership_lost"
    may_have_happened = True


class DeadlineExceeded(RaftKVError):
    """The deadline passed; see may_have_happened."""

    code = "deadline_exceeded"


class SessionExpired(RaftKVError):
    """The session is not known: it expired, so it is unknown whether the write was applied earlier."""

    code = "session_expired"
    may_have_happened = True


class SessionWindow(RaftKVError):
    """The sequence is outside the session's window: an answer that old is no longer kept."""

    code = "session_window"
    may_have_happened = True


class AnswerDropped(RaftKVError):
    """The write was applied before, but its answer was too large to keep."""

    code = "answer_dropped"
    may_have_happened = True


# Refused for good: nothing changed.


class TooManySessions(RaftKVError):
    """The cluster keeps as many sessions as it may."""

    code = "too_many_sessions"


class InvalidRequest(RaftKVError):
    """The request is malformed."""

    code = "invalid_request"


class KeyEmpty(InvalidRequest):
    """The key is empty."""

    code = "key_empty"


class KeyTooLarge(InvalidRequest):
    """The key is larger than the limit."""

    code = "key_too_large"


class ValueTooLarge(InvalidRequest):
    """The value is larger than the limit."""

    code = "value_too_large"


class RequestTooLarge(InvalidRequest):
    """The request is larger than the limit."""

    code = "request_too_large"


class TooManyOperations(InvalidRequest):
    """The transaction has more operations than the limit."""

    code = "too_many_operations"


class DuplicateKey(InvalidRequest):
    """The transaction changes a key twice."""

    code = "duplicate_key"


class ValueProvided(InvalidRequest):
    """A value was given together with ignore_value."""

    code = "value_provided"


class LeaseProvided(InvalidRequest):
    """A lease was given together with ignore_lease."""

    code = "lease_provided"


class KeyNotFound(RaftKVError):
    """The key does not exist, and the request needs it to."""

    code = "key_not_found"


class NotANumber(RaftKVError):
    """The value is not a decimal integer within 64 bits, so it cannot be incremented."""

    code = "not_a_number"


class LeaseNotFound(RaftKVError):
    """The lease does not exist."""

    code = "lease_not_found"


class LeaseExists(RaftKVError):
    """A lease with this id exists already."""

    code = "lease_exists"


class LeaseTtlTooLarge(InvalidRequest):
    """The time to live of a lease is larger than can be."""

    code = "lease_ttl_too_large"


class TooManyLeases(RaftKVError):
    """The cluster keeps as many leases as it may."""

    code = "too_many_leases"


class TooManyKeys(RaftKVError):
    """As many keys hang on the lease as may."""

    code = "too_many_keys"


class FencingTokenStale(RaftKVError):
    """The guard of the write does not hold any more: the lock belongs to somebody else, or is gone."""

    # details: key, create_revision (that was asked for), actual (0: the key does not exist)
    code = "fencing_token_stale"


class Compacted(RaftKVError):
    """The revision asked for has been compacted."""

    code = "compacted"


class WatchCompacted(Compacted):
    """What the watch has not heard yet has been compacted."""

    # details: compact_revision, from which on history is kept; wanted_revision
    code = "watch_compacted"

    @property
    def compact_revision(self) -> int:
        """The oldest revision that can be watched from."""
        return int(self.details.get("compact_revision", 0))


class FutureRevision(RaftKVError):
    """The revision asked for has not been reached."""

    code = "future_revision"


class NoSpace(RaftKVError):
    """The disk or the quota is full: writes are refused, reads go on."""

    code = "no_space"


class CorruptAlarm(RaftKVError):
    """Somebody has raised the alarm that data is corrupt: nothing is changed until it is taken back."""

    # details: members, that it was raised for
    code = "corrupt_alarm"


class Unsupported(RaftKVError):
    """This member or this cluster version does not know the operation."""

    code = "unsupported"


class TransferRefused(RaftKVError):
    """Leadership cannot be transferred as asked."""

    code = "transfer_refused"


class MembershipRefused(RaftKVError):
    """The membership cannot be changed as asked; nothing has changed."""

    code = "membership_refused"


class MembershipBusy(RaftKVError):
    """Another change of the membership is not finished; try again in a moment."""

    code = "membership_busy"


# Talking to the wrong place, or in the wrong words.


class ClusterMismatch(RaftKVError):
    """The other side belongs to another cluster."""

    code = "cluster_mismatch"


class IncarnationMismatch(RaftKVError):
    """The member's data directory was replaced: remove the member, then add it anew."""

    code = "incarnation_mismatch"


class ProtocolError(RaftKVError):
    """The bytes received are not of this protocol."""

    code = "protocol_error"


class Unreachable(RaftKVError):
    """No member of the cluster could be reached; nothing was sent."""

    code = "unreachable"


class ClientClosed(RaftKVError):
    """The client was closed."""

    code = "client_closed"


# This process and its disk.


class ConfigError(RaftKVError):
    """A setting has a bad value."""

    code = "config"


class DataDirectoryInUse(RaftKVError):
    """Another process uses this data directory."""

    code = "data_directory_in_use"


class WrongDataDirectory(RaftKVError):
    """The data directory belongs to another cluster or another member."""

    code = "wrong_data_directory"


class Corruption(RaftKVError):
    """Stored data is damaged."""

    # details: file, offset. The message says what to do.
    code = "corruption"


class DiskFailure(RaftKVError):
    """The disk refused a write that must not be lost; the process has to end."""

    code = "disk_failure"


class Diverged(RaftKVError):
    """The store of this member is not what a quorum of the members has; the process has to end."""

    # details: index, digest (of this member), agreed_digest (of a quorum). The message says what to do.
    code = "diverged"


class MissingExtra(RaftKVError):
    """An optional part of raftkv is not installed."""

    code = "missing_extra"


class Internal(RaftKVError):
    """A bug in raftkv. Please report it with the logs."""

    code = "internal"
    may_have_happened = True


def from_code(
    code: str, message: str, *, may_have_happened: bool, details: Mapping[str, Any] | None = None
) -> RaftKVError:
    """The error that another member sent, as its class; an unknown code (a newer server) becomes a plain RaftKVError."""
    cls = _BY_CODE.get(code, RaftKVError)
    return cls(message, details=details, may_have_happened=may_have_happened)


def all_codes() -> Mapping[str, type[RaftKVError]]:
    """Every code and its class; front doors check their tables against it."""
    return dict(_BY_CODE)


from raftkv.errors.auth import *  # noqa: E402,F403 - their base classes are above
from raftkv.errors.coordination import *  # noqa: E402,F403 - their base classes are above
from raftkv.errors.membership import *  # noqa: E402,F403 - their base classes are above

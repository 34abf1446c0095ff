"""Which error a call ends with, and the words of it: short, naming every member that was asked and what it said last.

Pure functions over what a Retry has seen. The rule they keep: `may_have_happened` is True only for a write of which some attempt was
sent and never answered for certain.
"""

import os
from typing import Final, Mapping

from raftkv.errors import (
    ClusterMismatch,
    Compacted,
    DeadlineExceeded,
    FutureRevision,
    InvalidRequest,
    KeyNotFound,
    LeaseNotFound,
    MembershipBusy,
    NoQuorum,
    NotANumber,
    OutcomeUnknown,
    RaftKVError,
    Unreachable,
)

# Decided by what the request says, or by apply, which answers a repeated write as it answered it first: such a refusal
# stands for all attempts of the write.
_CERTAIN: Final = (InvalidRequest, KeyNotFound, LeaseNotFound, NotANumber, Compacted, FutureRevision)


def lost(reason: BaseException | str | None) -> RaftKVError:
    """A connection broke under a request."""
    return Unreachable(f"connection lost: {_reason(reason)}" if reason else "connection closed by the member")


def not_greeted(reason: BaseException | None, is_encrypted: bool) -> RaftKVError:
    """A connection broke before it was greeted. A port that wants TLS, or a certificate, ends it without a word."""
    if reason is not None:
        return lost(reason)
    hint = "does it want a client certificate?" if is_encrypted else "does it want TLS, https://?"
    return Unreachable(f"connection closed by the member before its greeting ({hint})")


def not_connected(reason: BaseException | str) -> RaftKVError:
    """A connection could not be opened."""
    return Unreachable(_reason(reason))


def silence(heard: bool) -> RaftKVError:
    """An attempt's deadline passed."""
    return Unreachable("alive, but no answer in time" if heard else "no answer in time")


def mismatch(address: str, error: ClusterMismatch) -> ClusterMismatch:
    """A greeting was refused because of the cluster; the message names both, and now the address too."""
    text = error.message if error.message.startswith(address) else f"{address}: {error.message}"
    return ClusterMismatch(text, details=error.details)


def outcome_unknown(address: str, error: RaftKVError) -> OutcomeUnknown:
    """A write without a session was sent and not answered."""
    return OutcomeUnknown(
        f"the write may have happened: {address}: {error.message} (without a session it cannot be repeated safely)",
        details={**error.details, "endpoint": address},
    )


def window_full(timeout_s: float, window: int) -> DeadlineExceeded:
    """A write never got its turn: the session's answers are not kept beyond its window."""
    return DeadlineExceeded(
        f"not sent within {timeout_s:.3g} s: {window} earlier writes of this client are outstanding",
        may_have_happened=False,
    )


def refusal(error: RaftKVError, *, is_write: bool, uncertain: bool) -> RaftKVError:
    """A member's last word, with an honest outcome for the whole call rather than for its last attempt."""
    if not is_write:
        error.may_have_happened = False
    elif uncertain and not isinstance(error, _CERTAIN):
        error.may_have_happened = True
    elif error.code == "session_expired":
        error.may_have_happened = False  # the only attempt ever sent was refused
    return error


def expired(
    tried: Mapping[str, RaftKVError],
    *,
    timeout_s: float,
    is_write: bool,
    uncertain: bool,
    reached: bool,
    mismatches: Mapping[str, ClusterMismatch],
) -> RaftKVError:
    """The call's time is over."""
    seen = ", ".join(f"{address} ({_short(error)})" for address, error in tried.items())
    said = f": {seen}" if seen else ""  # a member that was reached and has not answered yet has said nothing
    details = {"endpoints": {address: error.message for address, error in tried.items()}}
    within = f"within {timeout_s:.3g} s"
    if uncertain:
        text = f"no answer {within}, the write may have happened{said}"
        return DeadlineExceeded(text, details=details, may_have_happened=True)
    if not reached and mismatches:
        return ClusterMismatch(f"no member of the cluster answered {within}{said}", details=details)
    if not reached:
        return Unreachable(f"no member could be reached {within}: {seen or 'none was tried'}", details=details)
    codes = {error.code for error in tried.values()}
    if "no_quorum" in codes and codes <= {"no_quorum", "unreachable"}:
        return NoQuorum(f"no member had a quorum {within}{said}", details=details, may_have_happened=False)
    if "membership_busy" in codes and codes <= {"membership_busy", "not_leader"}:
        return MembershipBusy(
            f"the membership is still being changed, or unsettled, after {timeout_s:.3g} s{said}", details=details
        )
    outcome = ", nothing was changed" if is_write else ""
    return DeadlineExceeded(f"no answer {within}{outcome}{said}", details=details, may_have_happened=False)


def _short(error: RaftKVError) -> str:
    return _WORDS.get(error.code) or error.message


_WORDS: Final = {
    "no_quorum": "no quorum",
    "not_leader": "not the leader",
    "overloaded": "overloaded",
    "shutting_down": "shutting down",
    "leadership_lost": "lost its leadership",
}


def _reason(reason: BaseException | str) -> str:
    """The operating system's words without its numbers: "connection refused", "timed out"."""
    if isinstance(reason, str):
        return reason
    if isinstance(reason, RaftKVError):
        return reason.message
    if isinstance(reason, TimeoutError):
        return "timed out"
    text = str(reason) or type(reason).__name__
    if (said := getattr(reason, "verify_message", "")) or type(reason).__module__ == "ssl":
        return f"no TLS: {(said or _without_numbers(text)).lower()}"
    if isinstance(reason, OSError):
        # asyncio puts its own words in front, and joins the failures of a name's addresses ("Multiple exceptions: [Errno 111] ...").
        number = text.partition("[Errno ")[2].partition("]")[0]
        return os.strerror(int(number)).lower() if number.isdecimal() else (reason.strerror or text).lower()
    return text


def _without_numbers(text: str) -> str:
    """OpenSSL's words: "[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1006)" is "wrong version number"."""
    words = text.rpartition("] ")[2].partition(" (_ssl.c")[0]
    return "connection closed during the handshake" if words.lower().startswith("eof occurred") else words

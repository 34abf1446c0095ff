"""What a failed call of etcd says: the error of ours that it is, and whether the call may have been done all the same.

etcd's rule decides: `Unavailable` means that another try may succeed, and the text tells whether this one was given to the log before. Whatever
cannot be told apart counts as perhaps done.
"""

from enum import Enum
from typing import Final, NamedTuple

from raftkv.errors import RaftKVError, from_code

CANCELLED, UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE = 1, 2, 4, 13, 14
UNIMPLEMENTED: Final = 12
RESOURCE_EXHAUSTED: Final = 8


class Outcome(Enum):
    """What can be done about a failure."""

    FINAL = "it was refused, and would be again"
    PASSING = "it surely was not done; another member, or another time"
    UNCERTAIN = "it may have been done"
    LOGIN = "it was not done: the login is over"


class Failure(NamedTuple):
    """A call that failed."""

    error: RaftKVError
    outcome: Outcome


_TEXTS: Final = {
    "key is not provided": "key_empty",
    "key not found": "key_not_found",
    "value is provided": "value_provided",
    "lease is provided": "lease_provided",
    "too many operations in txn request": "too_many_operations",
    "duplicate key given in txn request": "duplicate_key",
    "request is too large": "request_too_large",
    "requested lease not found": "lease_not_found",
    "lease already exists": "lease_exists",
    "too large lease TTL": "lease_ttl_too_large",
    "mvcc: required revision has been compacted": "compacted",
    "mvcc: required revision is a future revision": "future_revision",
    "mvcc: database space exceeded": "no_space",
    "permission denied": "permission_denied",
    "user name is empty": "user_empty",
    "role name is empty": "role_empty",
    "authentication failed, invalid user ID or password": "auth_failed",
    "authentication failed, password was given for no password user": "no_password_user",
    "authentication is not enabled": "auth_not_enabled",
    "permission not given": "permission_not_given",
    "invalid auth management": "invalid_auth_management",
    "root user does not exist": "root_user_missing",
    "root user does not have root role": "root_role_missing",
    "user name already exists": "user_exists",
    "user name not found": "user_not_found",
    "role name already exists": "role_exists",
    "role name not found": "role_not_found",
    "role is not granted to the user": "role_not_granted",
    "permission is not granted to the role": "permission_not_granted",
    "member not found": "member_not_found",
    "Peer URLs already exists": "peer_address_taken",
    "can only promote a learner member": "not_a_learner",
    "can only promote a learner member which is in sync with leader": "learner_not_ready",
    "re-configuration failed due to not enough started members": "quorum_would_be_lost",
    "bad leader transferee": "transfer_refused",
    "cluster ID mismatch": "cluster_mismatch",
    "corrupt cluster": "corrupt_alarm",
    "not capable": "unsupported",
}
_LOGIN: Final = {"invalid auth token": "invalid_auth_token", "revision of auth store is old": "auth_old_revision"}
_NOT_DONE: Final = {
    "no leader": "no_quorum",
    "not leader": "not_leader",
    "too many requests": "overloaded",
    "unhealthy cluster": "membership_busy",
    "rpc not supported for learner": "not_leader",
    "rpc not supported for non-voter": "not_leader",
}
_GIVEN_TO_THE_LOG: Final = {"server stopped": "shutting_down"}  # said also to those who wait for what was proposed
_NOT_SENT: Final = ("failed to connect", "dns resolution failed", "connection refused", "name resolution")


def judge(number: int, text: str) -> Failure:
    """gRPC's status as one of our errors."""
    words = text.removeprefix("etcdserver: ").removeprefix("auth: ")
    if words in _TEXTS:
        return Failure(_error(_TEXTS[words], words), Outcome.FINAL)
    if words in _LOGIN:
        return Failure(_error(_LOGIN[words], words), Outcome.LOGIN)
    if words in _NOT_DONE:
        return Failure(_error(_NOT_DONE[words], words), Outcome.PASSING)
    if words in _GIVEN_TO_THE_LOG:
        return Failure(_error(_GIVEN_TO_THE_LOG[words], words), Outcome.UNCERTAIN)
    if number == UNAVAILABLE and any(sign in text.lower() for sign in _NOT_SENT):
        return Failure(_error("unreachable", _reason(text)), Outcome.PASSING)
    if number == RESOURCE_EXHAUSTED and "larger than max" in words:
        return Failure(_error("request_too_large", words), Outcome.FINAL)
    if number == DEADLINE_EXCEEDED:
        return Failure(_error("unreachable", "no answer in time"), Outcome.UNCERTAIN)
    if number == UNAVAILABLE:
        hint = " (does it want TLS, etcds://?)" if words == "Socket closed" else ""
        return Failure(_error("unreachable", words + hint), Outcome.UNCERTAIN)
    if number in (CANCELLED, UNKNOWN, INTERNAL):
        return Failure(_error("unreachable", words or f"gRPC status {number}"), Outcome.UNCERTAIN)
    if number == UNIMPLEMENTED:
        return Failure(_error("unsupported", f"this etcd does not know it: {words}"), Outcome.FINAL)
    return Failure(_error("invalid_request", words or f"gRPC status {number}"), Outcome.FINAL)


def _error(code: str, message: str) -> RaftKVError:
    return from_code(code, message, may_have_happened=False)


def _reason(text: str) -> str:
    """gRPC's last words about a connection: "Connection refused (111)" of a long line."""
    return text.rpartition(": ")[2] or text

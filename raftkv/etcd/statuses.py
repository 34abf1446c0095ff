"""Every error of raftkv as a gRPC status: the number and the text that clients of etcd compare with, letter by letter.

Two rules of etcd's clients decide what fits: `Unavailable` may be tried again, so nothing that is refused for good has it; and a write
whose outcome nobody knows gets one of the `request timed out` texts, which no client repeats. A test compares this table with all codes.
"""

from typing import Final, NamedTuple

from raftkv.errors import RaftKVError

UNKNOWN: Final = 2
INVALID_ARGUMENT: Final = 3
DEADLINE_EXCEEDED: Final = 4
NOT_FOUND: Final = 5
PERMISSION_DENIED: Final = 7
RESOURCE_EXHAUSTED: Final = 8
FAILED_PRECONDITION: Final = 9
OUT_OF_RANGE: Final = 11
UNIMPLEMENTED: Final = 12
INTERNAL: Final = 13
UNAVAILABLE: Final = 14
DATA_LOSS: Final = 15
UNAUTHENTICATED: Final = 16


class Status(NamedTuple):
    """What the client sees: gRPC's number and etcd's text."""

    number: int
    text: str


_NO_LEADER: Final = Status(UNAVAILABLE, "etcdserver: no leader")
_OUTCOME_UNKNOWN: Final = Status(UNAVAILABLE, "etcdserver: request timed out, possibly due to previous leader failure")
_TOO_LARGE: Final = Status(INVALID_ARGUMENT, "etcdserver: request is too large")
_TOO_MANY: Final = Status(RESOURCE_EXHAUSTED, "etcdserver: too many requests")

# Errors for which etcd has words of its own.
_STATUSES: Final[dict[str, Status]] = {
    "key_empty": Status(INVALID_ARGUMENT, "etcdserver: key is not provided"),
    "key_not_found": Status(INVALID_ARGUMENT, "etcdserver: key not found"),
    "value_provided": Status(INVALID_ARGUMENT, "etcdserver: value is provided"),
    "lease_provided": Status(INVALID_ARGUMENT, "etcdserver: lease is provided"),
    "too_many_operations": Status(INVALID_ARGUMENT, "etcdserver: too many operations in txn request"),
    "duplicate_key": Status(INVALID_ARGUMENT, "etcdserver: duplicate key given in txn request"),
    "key_too_large": _TOO_LARGE,
    "value_too_large": _TOO_LARGE,
    "request_too_large": _TOO_LARGE,
    "lease_not_found": Status(NOT_FOUND, "etcdserver: requested lease not found"),
    "lease_exists": Status(FAILED_PRECONDITION, "etcdserver: lease already exists"),
    "lease_ttl_too_large": Status(OUT_OF_RANGE, "etcdserver: too large lease TTL"),
    "too_many_leases": _TOO_MANY,
    "too_many_keys": _TOO_MANY,
    "overloaded": _TOO_MANY,
    "compacted": Status(OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted"),
    "future_revision": Status(OUT_OF_RANGE, "etcdserver: mvcc: required revision is a future revision"),
    "no_space": Status(RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded"),
    "not_leader": _NO_LEADER,
    "no_quorum": _NO_LEADER,
    "unreachable": _NO_LEADER,
    "shutting_down": Status(UNAVAILABLE, "etcdserver: server stopped"),
    "outcome_unknown": _OUTCOME_UNKNOWN,
    "leadership_lost": _OUTCOME_UNKNOWN,
    "deadline_exceeded": Status(UNAVAILABLE, "etcdserver: request timed out"),
    "unsupported": Status(FAILED_PRECONDITION, "etcdserver: not capable"),
    "transfer_refused": Status(FAILED_PRECONDITION, "etcdserver: bad leader transferee"),
    "member_not_found": Status(NOT_FOUND, "etcdserver: member not found"),
    "peer_address_taken": Status(FAILED_PRECONDITION, "etcdserver: Peer URLs already exists"),
    "not_a_learner": Status(FAILED_PRECONDITION, "etcdserver: can only promote a learner member"),
    "learner_not_ready": Status(
        FAILED_PRECONDITION, "etcdserver: can only promote a learner member which is in sync with leader"
    ),
    "quorum_would_be_lost": Status(
        FAILED_PRECONDITION, "etcdserver: re-configuration failed due to not enough started members"
    ),
    "membership_busy": Status(UNAVAILABLE, "etcdserver: unhealthy cluster"),
    "cluster_mismatch": Status(FAILED_PRECONDITION, "etcdserver: cluster ID mismatch"),
    "corruption": Status(DATA_LOSS, "etcdserver: corrupt cluster"),
    "diverged": Status(DATA_LOSS, "etcdserver: corrupt cluster"),
    "permission_denied": Status(PERMISSION_DENIED, "etcdserver: permission denied"),
    "invalid_auth_token": Status(UNAUTHENTICATED, "etcdserver: invalid auth token"),
    "user_empty": Status(INVALID_ARGUMENT, "etcdserver: user name is empty"),
    "role_empty": Status(INVALID_ARGUMENT, "etcdserver: role name is empty"),
    "auth_failed": Status(INVALID_ARGUMENT, "etcdserver: authentication failed, invalid user ID or password"),
    "auth_old_revision": Status(INVALID_ARGUMENT, "etcdserver: revision of auth store is old"),
    "permission_not_given": Status(INVALID_ARGUMENT, "etcdserver: permission not given"),
    "invalid_auth_management": Status(INVALID_ARGUMENT, "etcdserver: invalid auth management"),
    "no_password_user": Status(UNKNOWN, "auth: authentication failed, password was given for no password user"),
    "root_user_missing": Status(FAILED_PRECONDITION, "etcdserver: root user does not exist"),
    "root_role_missing": Status(FAILED_PRECONDITION, "etcdserver: root user does not have root role"),
    "user_exists": Status(FAILED_PRECONDITION, "etcdserver: user name already exists"),
    "user_not_found": Status(FAILED_PRECONDITION, "etcdserver: user name not found"),
    "role_exists": Status(FAILED_PRECONDITION, "etcdserver: role name already exists"),
    "role_not_found": Status(FAILED_PRECONDITION, "etcdserver: role name not found"),
    "role_not_granted": Status(FAILED_PRECONDITION, "etcdserver: role is not granted to the user"),
    "permission_not_granted": Status(FAILED_PRECONDITION, "etcdserver: permission is not granted to the role"),
    "auth_not_enabled": Status(FAILED_PRECONDITION, "etcdserver: authentication is not enabled"),
    "auth_full": _TOO_MANY,
    "corrupt_alarm": Status(DATA_LOSS, "etcdserver: corrupt cluster"),
}

# Errors that etcd does not have: the number, and the text of the error itself.
_NUMBERS: Final[dict[str, int]] = {
    "invalid_request": INVALID_ARGUMENT,
    "not_a_number": INVALID_ARGUMENT,
    "protocol_error": INVALID_ARGUMENT,
    "fencing_token_stale": FAILED_PRECONDITION,
    "not_acquired": FAILED_PRECONDITION,
    "lock_lost": FAILED_PRECONDITION,
    "not_held": FAILED_PRECONDITION,
    "pool_not_found": NOT_FOUND,
    "job_not_found": NOT_FOUND,
    "queue_empty": FAILED_PRECONDITION,
    "job_state": FAILED_PRECONDITION,
    "pool_exists": FAILED_PRECONDITION,
    "pool_busy": FAILED_PRECONDITION,
    "demand_too_large": INVALID_ARGUMENT,
    "pool_request_exists": FAILED_PRECONDITION,
    "pool_request_not_found": NOT_FOUND,
    "too_many_pool_requests": RESOURCE_EXHAUSTED,
    "membership_refused": FAILED_PRECONDITION,
    "insecure_peers": FAILED_PRECONDITION,
}


def status_of(error: RaftKVError) -> Status:
    """What a client of etcd is told. An error without a row of its own or of a parent is `Unknown`, with its text as it is."""
    if error.may_have_happened and error.code == "no_quorum":
        return _OUTCOME_UNKNOWN
    for cls in type(error).__mro__:
        code = getattr(cls, "code", "")
        status = _STATUSES.get(code)
        if status is not None:
            return status
        if code in _NUMBERS:
            return Status(_NUMBERS[code], f"etcdserver: {error.message}")
    return Status(UNKNOWN, error.message)

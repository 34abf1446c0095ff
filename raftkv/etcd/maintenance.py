"""Status, alarms and downgrades in etcd's words."""

import re
from typing import Final, Iterable, Protocol, Sequence

from raftkv.etcd.responses import Origin, header
from raftkv.etcd.statuses import FAILED_PRECONDITION, INVALID_ARGUMENT, Status
from raftkv.etcd.versions import CLUSTER_VERSION, SERVER_VERSION, STORAGE_VERSION
from raftkv.etcdpb import rpc_pb2 as rpc
from raftkv.wire.alarms import ALARM_KINDS

NOT_LEADER: Final = Status(FAILED_PRECONDITION, "etcdserver: not leader")
BAD_TRANSFEREE: Final = Status(FAILED_PRECONDITION, "etcdserver: bad leader transferee")
WRONG_FORMAT: Final = Status(INVALID_ARGUMENT, "etcdserver: wrong downgrade target version format")
INVALID_TARGET: Final = Status(INVALID_ARGUMENT, "etcdserver: invalid downgrade target version")
DOWNGRADE_RUNS: Final = Status(FAILED_PRECONDITION, "etcdserver: cluster has a downgrade job in progress")
NO_DOWNGRADE: Final = Status(FAILED_PRECONDITION, "etcdserver: no inflight downgrade job")
UNKNOWN_ACTION: Final = Status(INVALID_ARGUMENT, "etcdserver: unknown action")
UNKNOWN_ALARM: Final = Status(INVALID_ARGUMENT, "etcdserver: unknown alarm")

_VERSION: Final = re.compile(
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)(?:\.(?:0|[1-9]\d*)(?:-[0-9A-Za-z.-]+)?(?:\+[0-9A-Za-z.-]+)?)?\Z"
)


class Standing(Protocol):
    """What Status tells of a member (daemon/facts.py)."""

    @property
    def leader(self) -> int: ...

    @property
    def term(self) -> int: ...

    @property
    def commit_index(self) -> int: ...

    @property
    def applied_index(self) -> int: ...

    @property
    def revision(self) -> int: ...

    @property
    def is_learner(self) -> bool: ...

    @property
    def db_size_bytes(self) -> int: ...

    @property
    def db_size_in_use_bytes(self) -> int: ...

    @property
    def quota_bytes(self) -> int: ...

    @property
    def alarms(self) -> Sequence[tuple[int, int]]: ...

    @property
    def downgrade_target(self) -> str: ...

    @property
    def errors(self) -> Sequence[str]: ...


def status_response(standing: Standing, origin: Origin) -> rpc.StatusResponse:
    """`errors` begins with what etcd says; what raftkv knows besides comes after it."""
    errors = [] if standing.leader else ["etcdserver: no leader"]
    errors += [alarm_text(number, kind) for number, kind in standing.alarms]
    return rpc.StatusResponse(
        header=header(origin, standing.revision),
        version=SERVER_VERSION,
        dbSize=standing.db_size_bytes,
        dbSizeInUse=standing.db_size_in_use_bytes,
        dbSizeQuota=standing.quota_bytes,
        leader=standing.leader,
        raftIndex=standing.commit_index,
        raftTerm=standing.term,
        raftAppliedIndex=standing.applied_index,
        isLearner=standing.is_learner,
        errors=[*errors, *standing.errors],
        storageVersion=STORAGE_VERSION,
        downgradeInfo=rpc.DowngradeInfo(
            enabled=bool(standing.downgrade_target), targetVersion=standing.downgrade_target
        ),
    )


def alarm_text(number: int, kind: int) -> str:
    """As Go prints the message: what is zero is not there, and a space is left at the end."""
    return (f"memberID:{number} " if number else "") + f"alarm:{rpc.AlarmType.Name(kind)} "


def is_alarm(kind: int) -> bool:
    """Whether it can be raised; NONE cannot, and a number that etcd does not know ends its process."""
    return kind in ALARM_KINDS


def alarm_response(alarms: Iterable[Sequence[int]], origin: Origin, revision: int) -> rpc.AlarmResponse:
    """`alarms`: number of a member and kind of each."""
    return rpc.AlarmResponse(
        header=header(origin, revision),
        alarms=[rpc.AlarmMember(memberID=number, alarm=rpc.AlarmType.Name(kind)) for number, kind in alarms],
    )


def refusal_of_target(version: str) -> Status | None:
    """What speaks against a downgrade to this version: it has to be one minor version below that of the cluster."""
    if (found := _VERSION.match(version)) is None:
        return WRONG_FORMAT
    major, minor = map(int, CLUSTER_VERSION.split(".")[:2])
    return None if (int(found[1]), int(found[2])) == (major, minor - 1) else INVALID_TARGET


def target_of(version: str) -> str:
    """As it is kept and shown: without a patch."""
    return ".".join((*version.split(".")[:2], "0"))

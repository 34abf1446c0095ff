"""etcd's Maintenance service: status, alarms, downgrades, hashes, leadership, defragmentation, and a backup as a stream."""

from typing import Any, AsyncGenerator, Final

from raftkv.daemon.etcd.asking import barrier, control, permit
from raftkv.daemon.etcd.calls import Call, Procedure, Refused
from raftkv.daemon.etcd.house import House
from raftkv.daemon.etcd.tasks import answered_by, streamed_by
from raftkv.etcd import maintenance
from raftkv.etcd.responses import header
from raftkv.etcd.snapshots import SnapshotStream
from raftkv.etcd.versions import CLUSTER_VERSION
from raftkv.etcdpb import rpc_pb2 as rpc
from raftkv.store.backup import TRAILER_BYTES, trailer
from raftkv.wire.commands import ALARM, DOWNGRADE
from raftkv.wire.protocol import BACKUP_OPEN, BACKUP_READ, DEFRAGMENT, MOVE_LEADER, STATUS

_ROOTS_OWN: Final = [BACKUP_OPEN]  # as for a backup: a hash tells of all data
PIECE_BYTES: Final = 256 * 1024  # hashed in one go: well below a millisecond


async def status(house: House, call: Call, request: rpc.StatusRequest) -> rpc.StatusResponse:
    """As this member sees it, also without a leader."""
    permit(house, [STATUS], call.caller)
    return maintenance.status_response(house.view.facts(), house.origin())


async def alarm(house: House, call: Call, request: rpc.AlarmRequest) -> rpc.AlarmResponse:
    action, number, kind = request.action, request.memberID, int(request.alarm)
    permit(house, [STATUS] if action == rpc.AlarmRequest.GET else [ALARM], call.caller)
    if action == rpc.AlarmRequest.GET:
        await barrier(house, call.timeout_ms)
        alarms = [item for item in house.view.facts().alarms if kind in (rpc.NONE, item[1])]
        return maintenance.alarm_response(alarms, house.origin(), house.view.revision)
    if action not in (rpc.AlarmRequest.ACTIVATE, rpc.AlarmRequest.DEACTIVATE):
        raise Refused(*maintenance.UNKNOWN_ACTION)
    if kind == rpc.NONE:
        await barrier(house, call.timeout_ms)
        return maintenance.alarm_response([], house.origin(), house.view.revision)
    if not maintenance.is_alarm(kind):
        raise Refused(*maintenance.UNKNOWN_ALARM)
    command = [ALARM, 0, number, kind, action == rpc.AlarmRequest.ACTIVATE]
    _, revision, alarms = await house.ask(command, call.caller, call.timeout_ms)
    return maintenance.alarm_response(alarms, house.origin(), revision)


async def downgrade(house: House, call: Call, request: rpc.DowngradeRequest) -> rpc.DowngradeResponse:
    """It is announced, and that is all: there is no older raftkv to go back to."""
    action = request.action
    permit(house, [DOWNGRADE], call.caller)
    if action == rpc.DowngradeRequest.CANCEL:
        _, revision, changed = await house.ask([DOWNGRADE, 0, ""], call.caller, call.timeout_ms)
        if not changed:
            raise Refused(*maintenance.NO_DOWNGRADE)
    elif action in (rpc.DowngradeRequest.VALIDATE, rpc.DowngradeRequest.ENABLE):
        refusal = maintenance.refusal_of_target(request.version)
        if refusal is not None:
            raise Refused(*refusal)
        await barrier(house, call.timeout_ms)
        revision, changed = house.view.revision, not house.view.facts().downgrade_target
        if action == rpc.DowngradeRequest.ENABLE and changed:
            command = [DOWNGRADE, 0, maintenance.target_of(request.version)]
            _, revision, changed = await house.ask(command, call.caller, call.timeout_ms)
        if not changed:
            raise Refused(*maintenance.DOWNGRADE_RUNS)
    else:
        raise Refused(*maintenance.UNKNOWN_ACTION)
    return rpc.DowngradeResponse(header=header(house.origin(), revision), version=CLUSTER_VERSION)


async def defragment(house: House, call: Call, request: rpc.DefragmentRequest) -> rpc.DefragmentResponse:
    """Of this member, which goes on meanwhile."""
    await control(house, [DEFRAGMENT], call.caller)
    return rpc.DefragmentResponse()


async def hash_of_everything(house: House, call: Call, request: rpc.HashRequest) -> rpc.HashResponse:
    """The running digest of all that was ever applied: equal on members that have applied the same."""
    permit(house, _ROOTS_OWN, call.caller)
    return rpc.HashResponse(header=header(house.origin(), house.view.revision), hash=house.view.facts().digest)


async def hash_kv(house: House, call: Call, request: rpc.HashKVRequest) -> rpc.HashKVResponse:
    permit(house, _ROOTS_OWN, call.caller)
    made = await house.view.hash_content(request.revision)
    return rpc.HashKVResponse(
        header=header(house.origin(), house.view.revision),
        hash=made.checksum,
        compact_revision=made.compact_revision,
        hash_revision=made.revision,
    )


async def move_leader(house: House, call: Call, request: rpc.MoveLeaderRequest) -> rpc.MoveLeaderResponse:
    permit(house, [MOVE_LEADER], call.caller)
    facts = house.view.facts()
    if not facts.is_leader:
        raise Refused(*maintenance.NOT_LEADER)
    member = next((one for one in house.view.member_facts() if one.node_id == request.targetID), None)
    if member is None or member.is_learner:
        raise Refused(*maintenance.BAD_TRANSFEREE)
    await control(house, [MOVE_LEADER, str(request.targetID)], call.caller)
    return rpc.MoveLeaderResponse()


async def snapshot(
    house: House, call: Call, request: rpc.SnapshotRequest
) -> AsyncGenerator[rpc.SnapshotResponse, None]:
    """Of this member's store as of now; held while the client takes nothing."""
    _, made = await control(house, [BACKUP_OPEN], call.caller)
    stream = SnapshotStream(made["size_bytes"], TRAILER_BYTES, trailer)
    try:
        for offset in range(0, made["size_bytes"], PIECE_BYTES):
            _, data = await control(house, [BACKUP_READ, made["id"], offset, PIECE_BYTES], call.caller)
            for message in stream.feed(data):
                yield message
        for message in stream.finish():
            yield message
    finally:
        house.member.backups.close(made["id"])


def _procedure(
    name: str, gateway: str, request: Any, response: Any, opened: Any, *, streams: bool = False
) -> Procedure:
    path = f"/etcdserverpb.Maintenance/{name}"
    return Procedure(path, (f"/maintenance/{gateway}",), request, response, opened, server_streaming=streams)


PROCEDURES: Final = (
    _procedure("Alarm", "alarm", rpc.AlarmRequest, rpc.AlarmResponse, answered_by(alarm)),
    _procedure("Status", "status", rpc.StatusRequest, rpc.StatusResponse, answered_by(status)),
    _procedure("Defragment", "defragment", rpc.DefragmentRequest, rpc.DefragmentResponse, answered_by(defragment)),
    _procedure("Hash", "hash", rpc.HashRequest, rpc.HashResponse, answered_by(hash_of_everything)),
    _procedure("HashKV", "hashkv", rpc.HashKVRequest, rpc.HashKVResponse, answered_by(hash_kv)),
    _procedure("Snapshot", "snapshot", rpc.SnapshotRequest, rpc.SnapshotResponse, streamed_by(snapshot), streams=True),
    _procedure(
        "MoveLeader", "transfer-leadership", rpc.MoveLeaderRequest, rpc.MoveLeaderResponse, answered_by(move_leader)
    ),
    _procedure("Downgrade", "downgrade", rpc.DowngradeRequest, rpc.DowngradeResponse, answered_by(downgrade)),
)

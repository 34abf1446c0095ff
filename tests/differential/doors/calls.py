"""Every call of the etcd API: its path in gRPC and in the JSON gateway, what is asked and what answers. Written from etcd's contract, not from raftkv."""

from typing import Any, Final, NamedTuple

from raftkv.etcdpb import election_pb2 as election
from raftkv.etcdpb import lock_pb2 as lock
from raftkv.etcdpb import rpc_pb2 as rpc
from raftkv.etcdpb.pool import message


class Call(NamedTuple):
    """`gateway` is the path behind /v3."""

    path: str
    gateway: str
    request: Any
    answered_by: Any


_GATEWAY: Final = {
    "KV": {"Range": "range", "Put": "put", "DeleteRange": "deleterange", "Txn": "txn", "Compact": "compaction"},
    "Lease": {
        "LeaseGrant": "grant",
        "LeaseRevoke": "revoke",
        "LeaseKeepAlive": "keepalive",
        "LeaseTimeToLive": "timetolive",
        "LeaseLeases": "leases",
    },
    "Cluster": {
        "MemberAdd": "member/add",
        "MemberRemove": "member/remove",
        "MemberUpdate": "member/update",
        "MemberList": "member/list",
        "MemberPromote": "member/promote",
    },
    "Maintenance": {
        "Alarm": "alarm",
        "Status": "status",
        "Defragment": "defragment",
        "Hash": "hash",
        "HashKV": "hashkv",
        "MoveLeader": "transfer-leadership",
        "Downgrade": "downgrade",
    },
    "Auth": {
        "AuthEnable": "enable",
        "AuthDisable": "disable",
        "AuthStatus": "status",
        "Authenticate": "authenticate",
        "UserAdd": "user/add",
        "UserGet": "user/get",
        "UserList": "user/list",
        "UserDelete": "user/delete",
        "UserChangePassword": "user/changepw",
        "UserGrantRole": "user/grant",
        "UserRevokeRole": "user/revoke",
        "RoleAdd": "role/add",
        "RoleGet": "role/get",
        "RoleList": "role/list",
        "RoleDelete": "role/delete",
        "RoleGrantPermission": "role/grant",
        "RoleRevokePermission": "role/revoke",
    },
    "Lock": {"Lock": "lock", "Unlock": "unlock"},
    "Election": {"Campaign": "campaign", "Proclaim": "proclaim", "Leader": "leader", "Resign": "resign"},
}
_FILES: Final = {"Lock": (lock, "v3lockpb"), "Election": (election, "v3electionpb")}


def _calls() -> dict[str, Call]:
    found = {}
    for service, paths in _GATEWAY.items():
        module, package = _FILES.get(service, (rpc, "etcdserverpb"))
        for method in module.DESCRIPTOR.services_by_name[service].methods:
            if method.name in paths:
                path = f"/{package}.{service}/{method.name}"
                types = (message(kind.full_name) for kind in (method.input_type, method.output_type))
                found[method.name] = Call(path, f"/{service.lower()}/{paths[method.name]}", *types)
    return found


CALLS: Final = _calls()
"""By the name of the method: no two services have one of the same name."""

assert len(CALLS) == sum(len(paths) for paths in _GATEWAY.values())

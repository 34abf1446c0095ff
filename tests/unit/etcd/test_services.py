"""Every remote procedure of etcd is served, on its path and on its gateway's paths, with its messages: compared with the .proto files."""

import pytest
from google.protobuf.descriptor import MethodDescriptor

from raftkv.daemon.etcd.calls import Procedure
from raftkv.daemon.etcd.procedures import GATEWAY, PROCEDURES
from raftkv.etcdpb import election_pb2, health_pb2, lock_pb2, reflection_pb2, reflection_v1alpha_pb2, rpc_pb2

FILES = (rpc_pb2, lock_pb2, election_pb2, health_pb2, reflection_pb2, reflection_v1alpha_pb2)
NOT_THERE_YET: frozenset[str] = frozenset()
"""Services that others are building: a row goes when the service comes."""

GATEWAY_PATHS = {
    "KV": ["/kv/range", "/kv/put", "/kv/deleterange", "/kv/txn", "/kv/compaction"],
    "Watch": ["/watch"],
    "Lease": [
        *("/lease/grant", "/lease/keepalive"),
        *(f"{prefix}/lease/{name}" for prefix in ("", "/kv") for name in ("revoke", "timetolive", "leases")),
    ],
    "Cluster": [f"/cluster/member/{name}" for name in ("add", "remove", "update", "list", "promote")],
    "Maintenance": [
        f"/maintenance/{name}"
        for name in (
            *("alarm", "status", "defragment", "hash", "hashkv", "snapshot", "transfer-leadership", "downgrade"),
        )
    ],
    "Auth": [
        *(f"/auth/{name}" for name in ("enable", "disable", "status", "authenticate")),
        *(f"/auth/user/{name}" for name in ("add", "get", "list", "delete", "changepw", "grant", "revoke")),
        *(f"/auth/role/{name}" for name in ("add", "get", "list", "delete", "grant", "revoke")),
    ],
    "Lock": ["/lock/lock", "/lock/unlock"],
    "Election": [f"/election/{name}" for name in ("campaign", "proclaim", "leader", "observe", "resign")],
}


def methods() -> list[MethodDescriptor]:
    return [
        method
        for file in FILES
        for service in file.DESCRIPTOR.services_by_name.values()
        if service.full_name not in NOT_THERE_YET
        for method in service.methods
    ]


def path_of(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


@pytest.mark.parametrize("method", methods(), ids=path_of)
def test_a_procedure_is_served_with_its_messages(method: MethodDescriptor) -> None:
    served = PROCEDURES.get(path_of(method))
    assert served is not None, f"{path_of(method)} is not served"
    assert served.request.DESCRIPTOR is method.input_type
    assert served.answered_by.DESCRIPTOR is method.output_type
    streams = (served.client_streaming, served.server_streaming) if isinstance(served, Procedure) else (False, False)
    assert streams == (method.client_streaming, method.server_streaming)


def test_nothing_else_is_served() -> None:
    known = {
        f"/{service.full_name}/{method.name}"
        for file in FILES
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    assert set(PROCEDURES) <= known


def test_the_gateway_has_etcds_paths() -> None:
    missing_services = {name.rpartition(".")[2] for name in NOT_THERE_YET}
    wanted = {path for name, paths in GATEWAY_PATHS.items() if name not in missing_services for path in paths}
    assert set(GATEWAY) == wanted


def test_a_service_that_has_come_is_not_excused_any_more() -> None:
    served = {path.split("/")[1] for path in PROCEDURES}
    assert not served & NOT_THERE_YET

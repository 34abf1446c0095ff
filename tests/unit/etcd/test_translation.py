"""Requests of etcd as commands, and answers as responses: field by field, without any store."""

import pytest

from raftkv.errors import InvalidRequest, KeyNotFound, LeaseTtlTooLarge
from raftkv.etcd.methods import BY_GATEWAY_PATH, BY_PATH, METHODS
from raftkv.etcd.requests import (
    compact_command,
    delete_range_command,
    lease_grant_command,
    lease_keep_alive_command,
    lease_time_to_live_command,
    put_command,
    range_command,
    txn_command,
)
from raftkv.etcd.responses import (
    Origin,
    delete_range_response,
    lease_grant_response,
    lease_keep_alive_response,
    lease_leases_response,
    lease_time_to_live_response,
    put_response,
    range_response,
    txn_response,
)
from raftkv.etcdpb import kv_pb2 as kv
from raftkv.etcdpb import rpc_pb2 as rpc
from raftkv.limits import DEFAULT_LIMITS
from raftkv.wire.commands import (
    COMPACT,
    COUNT_ONLY,
    DELETE_RANGE,
    GREATER,
    IGNORE_LEASE,
    IGNORE_VALUE,
    KEYS_ONLY,
    LEASE_GRANT,
    LEASE_TTL,
    OK,
    PREV_KV,
    PUT,
    RANGE,
    SERIALIZABLE,
    SORT_DESCEND,
    SORT_VALUE,
    TXN,
    WITH_KEYS,
)
from raftkv.wire.protocol import KEEP_ALIVE
from raftkv.wire.validate import validate

ORIGIN = Origin(cluster_id=2**64 - 1, member_id=7, raft_term=3)
ITEMS = [b"k", 2, 5, 3, -9, b"v"]
KEY_VALUE = kv.KeyValue(key=b"k", create_revision=2, mod_revision=5, version=3, lease=-9, value=b"v")


def test_a_put() -> None:
    assert put_command(rpc.PutRequest(key=b"k", value=b"v", lease=-1)) == [PUT, 0, b"k", b"v", -1, 0]
    flags = rpc.PutRequest(key=b"k", prev_kv=True, ignore_value=True, ignore_lease=True)
    assert put_command(flags) == [PUT, 0, b"k", b"", 0, PREV_KV | IGNORE_VALUE | IGNORE_LEASE]


def test_a_range() -> None:
    request = rpc.RangeRequest(
        key=b"a",
        range_end=b"\0",
        limit=-4,
        revision=5,
        sort_order=rpc.RangeRequest.DESCEND,
        sort_target=rpc.RangeRequest.VALUE,
        min_mod_revision=6,
        max_mod_revision=7,
        min_create_revision=8,
        max_create_revision=9,
    )
    assert range_command(request) == [RANGE, 0, b"a", b"\0", -4, 5, SORT_DESCEND, SORT_VALUE, 6, 7, 8, 9]
    for field, flag in (("serializable", SERIALIZABLE), ("keys_only", KEYS_ONLY), ("count_only", COUNT_ONLY)):
        assert range_command(rpc.RangeRequest(**{field: True}))[1] == flag  # type: ignore[arg-type]


def test_sort_options_that_are_not_known_are_refused_by_name() -> None:
    for request in (rpc.RangeRequest(key=b"k", sort_order=3), rpc.RangeRequest(key=b"k", sort_target=-1)):  # type: ignore[arg-type]
        with pytest.raises(InvalidRequest, match=r"^invalid sort option$"):
            validate(range_command(request), DEFAULT_LIMITS)


def test_deletes_compactions_and_leases() -> None:
    request = rpc.DeleteRangeRequest(key=b"a", range_end=b"b", prev_kv=True)
    assert delete_range_command(request) == [DELETE_RANGE, 0, b"a", b"b", PREV_KV]
    assert compact_command(rpc.CompactionRequest(revision=9, physical=True)) == [COMPACT, 0, 9]
    assert lease_time_to_live_command(rpc.LeaseTimeToLiveRequest(ID=4, keys=True)) == [LEASE_TTL, WITH_KEYS, 4]
    assert lease_keep_alive_command(rpc.LeaseKeepAliveRequest(ID=4)) == [KEEP_ALIVE, [4]]


@pytest.mark.parametrize(("seconds", "ttl_ms"), [(60, 60_000), (0, 0), (-5, 0), (-(2**63), 0), (9 * 10**9, 9 * 10**12)])
def test_a_grant_counts_in_seconds(seconds: int, ttl_ms: int) -> None:
    command = lease_grant_command(rpc.LeaseGrantRequest(ID=4, TTL=seconds))
    assert command == [LEASE_GRANT, 0, 4, ttl_ms]
    validate(command, DEFAULT_LIMITS)


@pytest.mark.parametrize("seconds", [9 * 10**9 + 1, 2**63 - 1])
def test_a_grant_for_too_long_is_refused_as_that(seconds: int) -> None:
    with pytest.raises(LeaseTtlTooLarge):
        validate(lease_grant_command(rpc.LeaseGrantRequest(TTL=seconds)), DEFAULT_LIMITS)


def test_a_transaction_with_all_kinds_of_operations() -> None:
    inner = rpc.TxnRequest(failure=[rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=b"d"))])
    request = rpc.TxnRequest(
        compare=[rpc.Compare(result=rpc.Compare.GREATER, target=rpc.Compare.LEASE, key=b"a", lease=5, range_end=b"b")],
        success=[
            rpc.RequestOp(request_put=rpc.PutRequest(key=b"p", value=b"v")),
            rpc.RequestOp(request_range=rpc.RangeRequest(key=b"r", serializable=True)),
            rpc.RequestOp(request_txn=inner),
        ],
    )
    command = txn_command(request)
    assert command == [
        TXN,
        0,
        [[GREATER, 4, b"a", 5, b"b"]],
        [
            [PUT, 0, b"p", b"v", 0, 0],
            [RANGE, SERIALIZABLE, b"r", b"", *[0] * 8],
            [TXN, 0, [], [], [[DELETE_RANGE, 0, b"d", b"", 0]]],
        ],
        [],
    ]
    validate(command, DEFAULT_LIMITS)


def test_an_operand_of_another_kind_is_none() -> None:
    for compare, operand in (
        (rpc.Compare(target=rpc.Compare.MOD, key=b"k", mod_revision=0), 0),
        (rpc.Compare(target=rpc.Compare.MOD, key=b"k", create_revision=3), None),
        (rpc.Compare(target=rpc.Compare.VALUE, key=b"k", value=b""), b""),
        (rpc.Compare(target=rpc.Compare.VALUE, key=b"k", version=1), None),
        (rpc.Compare(key=b"k"), None),
    ):
        command = txn_command(rpc.TxnRequest(compare=[compare]))
        assert command[2][0][3] == operand
        validate(command, DEFAULT_LIMITS)


def test_what_is_not_known_of_a_compare_or_operation_is_refused() -> None:
    for compare in (rpc.Compare(key=b"k", result=4), rpc.Compare(key=b"k", target=5)):  # type: ignore[arg-type]
        with pytest.raises(InvalidRequest, match="of a compare is not known"):
            validate(txn_command(rpc.TxnRequest(compare=[compare])), DEFAULT_LIMITS)
    with pytest.raises(KeyNotFound):
        validate(txn_command(rpc.TxnRequest(success=[rpc.RequestOp()])), DEFAULT_LIMITS)


def test_answers_of_reads_and_writes() -> None:
    header = rpc.ResponseHeader(cluster_id=2**64 - 1, member_id=7, revision=8, raft_term=3)
    ranged = range_response(rpc.RangeRequest(), [OK, 8, [ITEMS, ITEMS], True, 5], ORIGIN)
    assert ranged == rpc.RangeResponse(header=header, kvs=[KEY_VALUE] * 2, more=True, count=5)
    assert put_response(rpc.PutRequest(), [OK, 8, ITEMS], ORIGIN) == rpc.PutResponse(header=header, prev_kv=KEY_VALUE)
    assert not put_response(rpc.PutRequest(), [OK, 8, None], ORIGIN).HasField("prev_kv")
    deleted = delete_range_response(rpc.DeleteRangeRequest(), [OK, 8, 2, [ITEMS]], ORIGIN)
    assert deleted == rpc.DeleteRangeResponse(header=header, deleted=2, prev_kvs=[KEY_VALUE])


def test_headers_within_a_transaction() -> None:
    """Only the revision, and for a nested transaction a header that is there but empty."""
    nested = [TXN, 9, True, [[PUT, 9, None]]]
    answer = [OK, 9, False, [[RANGE, 8, [], False, 0], [DELETE_RANGE, 9, 1, []], nested]]
    response = txn_response(rpc.TxnRequest(), answer, ORIGIN)
    assert (response.header.revision, response.header.member_id, response.succeeded) == (9, 7, False)
    first, second, third = response.responses
    assert first.response_range == rpc.RangeResponse(header=rpc.ResponseHeader(revision=8))
    assert second.response_delete_range == rpc.DeleteRangeResponse(header=rpc.ResponseHeader(revision=9), deleted=1)
    assert third.response_txn.HasField("header")
    assert third.response_txn.header == rpc.ResponseHeader()
    assert third.response_txn.responses[0].response_put.header == rpc.ResponseHeader(revision=9)


def test_answers_about_leases() -> None:
    granted = lease_grant_response(rpc.LeaseGrantRequest(ID=4), [OK, 8, 4, 2500], ORIGIN)
    assert (granted.ID, granted.TTL, granted.header.revision) == (4, 2, 8)
    asked = rpc.LeaseTimeToLiveRequest(ID=4)
    left = lease_time_to_live_response(asked, [OK, 8, 99_999, 100_000, [b"a", b"b"]], ORIGIN)
    assert (left.ID, left.TTL, left.grantedTTL, list(left.keys)) == (4, 99, 100, [b"a", b"b"])
    gone = lease_time_to_live_response(asked, [OK, 8, -1, 0, []], ORIGIN)
    assert (gone.ID, gone.TTL, gone.grantedTTL) == (4, -1, 0)
    kept = lease_keep_alive_response(rpc.LeaseKeepAliveRequest(ID=4), [OK, 8, [0]], ORIGIN)
    assert (kept.ID, kept.TTL) == (4, 0)
    listed = lease_leases_response(rpc.LeaseLeasesRequest(), [OK, 8, [7, -7]], ORIGIN)
    assert [lease.ID for lease in listed.leases] == [7, -7]


def test_the_table_of_methods_fits_the_services() -> None:
    """Paths, classes and names as in the .proto file, and a gateway path for each."""
    services = rpc.DESCRIPTOR.services_by_name
    for method in METHODS:
        _, service, name = method.path.split("/")[1].partition(".")[0], *method.path.split("/")[1:]
        described = services[service.partition(".")[2]].methods_by_name[name]
        assert method.request.DESCRIPTOR.full_name == described.input_type.full_name
        assert method.answered_by.DESCRIPTOR.full_name == described.output_type.full_name
    in_services = sum(len(services[name].methods) for name in ("KV", "Lease"))
    assert len(BY_PATH) == len(METHODS) == in_services, "all of KV and Lease"
    assert len(BY_GATEWAY_PATH) == len(METHODS) + 3, "three of the leases have an older path too"

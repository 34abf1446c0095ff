"""Fixed talks: one request after the other, of every service that random stories leave out, and bad ones. Both servers are told the same.

An entry is the name of a call and its request. What is a server's own (ids, addresses, sizes, hashes) is put aside by `own`.
"""

from typing import Any

from raftkv.etcd.statuses import Status
from raftkv.etcdpb import election_pb2 as election
from raftkv.etcdpb import lock_pb2 as lock
from raftkv.etcdpb import rpc_pb2 as rpc
from tests.differential.judge import comparable

Talk = list[tuple[str, Any]]
UNKNOWN_MEMBER = 0x7B
LEASE = 4242
ALARM, DOWNGRADE = rpc.AlarmRequest, rpc.DowngradeRequest

CLUSTER: Talk = [
    ("MemberList", rpc.MemberListRequest(linearizable=True)),
    ("MemberList", rpc.MemberListRequest()),
    *[
        ("MemberAdd", rpc.MemberAddRequest(peerURLs=urls, isLearner=True))
        for urls in (
            [],
            [""],
            ["nonsense"],
            ["ftp://127.0.0.1:1"],
            ["http://127.0.0.1"],
            ["http://:2380/path"],
            ["127.0.0.1:1"],
        )
    ],
    ("MemberRemove", rpc.MemberRemoveRequest(ID=UNKNOWN_MEMBER)),
    ("MemberRemove", rpc.MemberRemoveRequest()),
    ("MemberUpdate", rpc.MemberUpdateRequest(ID=UNKNOWN_MEMBER, peerURLs=["http://127.0.0.1:1"])),
    ("MemberPromote", rpc.MemberPromoteRequest(ID=UNKNOWN_MEMBER)),
    ("MoveLeader", rpc.MoveLeaderRequest(targetID=UNKNOWN_MEMBER)),
    ("MoveLeader", rpc.MoveLeaderRequest()),
]

MAINTENANCE: Talk = [
    ("Status", rpc.StatusRequest()),
    ("Alarm", ALARM()),
    ("Alarm", ALARM(alarm=rpc.NOSPACE)),
    ("Alarm", ALARM(action=ALARM.DEACTIVATE, alarm=rpc.NOSPACE)),
    ("Alarm", ALARM(action=ALARM.ACTIVATE, alarm=rpc.NOSPACE, memberID=UNKNOWN_MEMBER)),
    ("Alarm", ALARM()),
    ("Put", rpc.PutRequest(key=b"full")),
    ("DeleteRange", rpc.DeleteRangeRequest(key=b"full")),
    ("LeaseGrant", rpc.LeaseGrantRequest(ID=LEASE, TTL=100)),
    ("Alarm", ALARM(action=ALARM.ACTIVATE, alarm=rpc.NOSPACE, memberID=UNKNOWN_MEMBER)),
    ("Alarm", ALARM(action=ALARM.DEACTIVATE, alarm=rpc.NOSPACE, memberID=UNKNOWN_MEMBER + 1)),
    ("Alarm", ALARM(action=ALARM.DEACTIVATE, alarm=rpc.NOSPACE, memberID=UNKNOWN_MEMBER)),
    ("Put", rpc.PutRequest(key=b"full")),
    ("Alarm", ALARM(action=ALARM.ACTIVATE, alarm=rpc.CORRUPT)),
    ("Put", rpc.PutRequest(key=b"corrupt")),
    ("DeleteRange", rpc.DeleteRangeRequest(key=b"corrupt")),
    ("LeaseGrant", rpc.LeaseGrantRequest(ID=LEASE, TTL=100)),
    ("LeaseRevoke", rpc.LeaseRevokeRequest(ID=LEASE)),
    ("Compact", rpc.CompactionRequest(revision=1)),
    ("Txn", rpc.TxnRequest(success=[rpc.RequestOp(request_put=rpc.PutRequest(key=b"corrupt"))])),
    ("Range", rpc.RangeRequest(key=b"corrupt")),
    ("Alarm", ALARM(action=ALARM.DEACTIVATE, alarm=rpc.CORRUPT)),
    ("Put", rpc.PutRequest(key=b"corrupt")),
    ("Hash", rpc.HashRequest()),
    ("HashKV", rpc.HashKVRequest()),
    ("HashKV", rpc.HashKVRequest(revision=2**40)),
    ("Defragment", rpc.DefragmentRequest()),
    *[
        ("Downgrade", DOWNGRADE(action=action, version=version))
        for action in (DOWNGRADE.VALIDATE, DOWNGRADE.ENABLE)
        for version in ("", "3", "x.y", "3.5.0", "3.3", "4.4", "3.6", "3.4.1.2")
    ],
    ("Downgrade", DOWNGRADE(action=DOWNGRADE.VALIDATE, version="3.4.0")),
    ("Downgrade", DOWNGRADE(action=DOWNGRADE.CANCEL)),
]

LOCKS: Talk = [
    ("LeaseGrant", rpc.LeaseGrantRequest(ID=LEASE, TTL=300)),
    ("LeaseGrant", rpc.LeaseGrantRequest(ID=LEASE + 1, TTL=300)),
    ("Lock", lock.LockRequest(name=b"lock", lease=LEASE)),
    ("Lock", lock.LockRequest(name=b"lock", lease=LEASE)),
    ("Range", rpc.RangeRequest(key=b"lock/", range_end=b"lock0")),
    ("Lock", lock.LockRequest(name=b"other", lease=LEASE + 1)),
    ("Lock", lock.LockRequest(name=b"", lease=LEASE)),
    ("Lock", lock.LockRequest(name=b"lock", lease=7)),
    ("Unlock", lock.UnlockRequest(key=b"lock/1092")),
    ("Unlock", lock.UnlockRequest(key=b"lock/1092")),
    ("Unlock", lock.UnlockRequest()),
    ("Range", rpc.RangeRequest(key=b"lock/", range_end=b"lock0")),
    ("LeaseRevoke", rpc.LeaseRevokeRequest(ID=LEASE)),
    ("LeaseRevoke", rpc.LeaseRevokeRequest(ID=LEASE + 1)),
]

OWNER = election.LeaderKey(name=b"boss", key=b"boss/1092", rev=1, lease=LEASE)
ELECTIONS: Talk = [
    ("LeaseGrant", rpc.LeaseGrantRequest(ID=LEASE, TTL=300)),
    ("Leader", election.LeaderRequest(name=b"boss")),
    ("Leader", election.LeaderRequest()),
    ("Campaign", election.CampaignRequest(name=b"boss", lease=LEASE, value=b"first")),
    ("Leader", election.LeaderRequest(name=b"boss")),
    ("Campaign", election.CampaignRequest(name=b"boss", lease=LEASE, value=b"second")),
    ("Leader", election.LeaderRequest(name=b"boss")),
    ("Campaign", election.CampaignRequest(name=b"boss", lease=7, value=b"x")),
    ("Proclaim", election.ProclaimRequest(value=b"x")),
    ("Proclaim", election.ProclaimRequest(leader=OWNER, value=b"x")),
    ("Resign", election.ResignRequest(leader=OWNER)),
    ("Resign", election.ResignRequest()),
    ("Leader", election.LeaderRequest(name=b"boss")),
    ("LeaseRevoke", rpc.LeaseRevokeRequest(ID=LEASE)),
    ("Leader", election.LeaderRequest(name=b"boss")),
]

TALKS = {"cluster": CLUSTER, "maintenance": MAINTENANCE, "locks": LOCKS, "elections": ELECTIONS}


def own(request: Any, answer: Any) -> Any:
    """The answer without what is a server's own, but with the word that it was there."""
    if isinstance(answer, Status):
        return answer
    copy = answer if "header" not in answer.DESCRIPTOR.fields_by_name else comparable(request, answer)
    if isinstance(copy, rpc.StatusResponse):
        return (
            copy.version.split(".")[0],
            copy.dbSize >= copy.dbSizeInUse > 0,
            copy.leader != 0,
            copy.raftTerm > 0,
            list(copy.errors),
        )
    if isinstance(copy, rpc.HashResponse | rpc.HashKVResponse):
        copy.hash = 0
    if isinstance(copy, rpc.HashKVResponse):
        copy.compact_revision = copy.hash_revision = 0  # the latter is of etcd 3.6
    if isinstance(copy, rpc.MemberListResponse):
        return [(member.name, member.ID != 0, len(member.peerURLs), len(member.clientURLs)) for member in copy.members]
    return copy


# Over the gateway: bodies, and whether the text of a refusal is the server's (else it is its parser's own).
KEY = '"key":"YQ=="'
BODIES: list[tuple[str, str]] = [
    *[("/kv/range", body) for body in ("", "{}", "null", " ", "[]", "5", '"x"', "{", "{}}", "{} x", f"{{{KEY}")],
    *[
        ("/kv/range", f"{{{KEY},{field}}}")
        for field in (
            '"limit":"1"',
            '"limit":1',
            '"limit":1.0',
            '"limit":1.5',
            '"limit":"1.5"',
            '"limit":1e3',
            '"limit":"x"',
            '"limit":""',
            '"limit":null',
            '"limit":true',
            '"limit":[]',
            '"limit":{}',
            '"limit":9223372036854775807',
            '"limit":9223372036854775808',
            '"limit":-9223372036854775808',
            '"limit":"-1"',
            '"limit":" 1"',
            '"limit":"0x1"',
            '"limit":01',
            '"sort_order":"DESCEND"',
            '"sort_order":2',
            '"sort_order":"NOPE"',
            '"sort_order":"2"',
            '"sort_order":null',
            '"sort_order":true',
            '"serializable":true',
            '"serializable":"true"',
            '"serializable":1',
            '"serializable":null',
            '"unknown":1',
            '"unknown":{"deep":[1,2]}',
            '"rangeEnd":"Yg=="',
            '"range_end":"Yg=="',
            '"range_end":null',
            '"Range_End":"Yg=="',
            '"key":"Yg=="',
            '"range_end":"YQ"',
            '"range_end":"Y-_="',
            '"range_end":"Y+/="',
            '"range_end":"Yg==\\n"',
            '"range_end":"!"',
            '"range_end":5',
            '"range_end":["Yg=="]',
            '"range_end":"Yg==" "x"',
            '"range_end":"\\u0059g=="',
            '"range_end":"\\ud800"',
            "\"range_end\":'Yg=='",
        )
    ],
    ("/kv/range", '{"key":"AA==","range_end":"AA==","limit":0} '),
    ("/kv/range", '\n\t{"key":"AA=="}\r\n'),
    ("/kv/range", '{"key":"AA=="}{"key":"AA=="}'),
    ("/kv/put", '{"key":"YQ==","value":"YQ==","lease":"0"}'),
    ("/kv/put", '{"key":"YQ==","value":null}'),
    ("/kv/put", '{"key":"YQ==","ignore_value":true,"value":"YQ=="}'),
    ("/kv/put", '{"value":"YQ=="}'),
    ("/kv/put", '{"key":"YQ==","lease":123456}'),
    ("/kv/txn", "{}"),
    ("/kv/txn", '{"compare":null,"success":null}'),
    ("/kv/txn", '{"compare":{}}'),
    ("/kv/txn", '{"compare":[null]}'),
    ("/kv/txn", '{"compare":[5]}'),
    ("/kv/txn", '{"success":[{}]}'),
    ("/kv/txn", '{"success":[{"request_put":{"key":"YQ=="},"request_range":{"key":"YQ=="}}]}'),
    ("/kv/txn", '{"success":[{"requestPut":{"key":"YQ=="}}]}'),
    ("/kv/txn", '{"compare":[{"key":"YQ==","target":"VERSION","result":"EQUAL","version":"0"}]}'),
    ("/kv/txn", '{"compare":[{"key":"YQ==","target":"CREATE","result":0,"createRevision":0}]}'),
    ("/kv/compaction", '{"revision":"99999999"}'),
    ("/lease/revoke", '{"ID":"1"}'),
    ("/kv/lease/revoke", '{"ID":1}'),
    ("/lease/timetolive", '{"ID":1,"keys":true}'),
    ("/kv/lease/timetolive", '{"ID":"1"}'),
    ("/kv/lease/leases", ""),
    ("/lease/keepalive", '{"ID":"1"}'),
    ("/lease/keepalive", '{"ID":"1"}{"ID":"2"}'),
    ("/lease/keepalive", '{"ID":"1"} \n {"ID":"2"}\n'),
    ("/lease/keepalive", ""),
    ("/lease/keepalive", "{"),
    ("/lease/keepalive", '{"ID":"1"}{'),
    ("/lease/keepalive", '{"ID":"x"}'),
    ("/watch", "["),
    ("/auth/authenticate", '{"name":"a","password":"b"}'),
    ("/auth/user/get", '{"name":"nobody"}'),
    ("/auth/role/get", '{"role":"nobody"}'),
    ("/auth/enable", ""),
    ("/cluster/member/remove", '{"ID":"123"}'),
    ("/cluster/member/remove", '{"ID":"-1"}'),
    ("/cluster/member/remove", '{"ID":"18446744073709551616"}'),
    ("/maintenance/transfer-leadership", '{"targetID":"1"}'),
    ("/maintenance/downgrade", '{"action":"CANCEL"}'),
    ("/maintenance/alarm", '{"action":"GET"}'),
    ("/maintenance/nothing", "{}"),
    ("/nothing", "{}"),
    ("/kv/range/", "{}"),
]
# Method, path, body.
OTHERS: list[tuple[str, str, str]] = [
    ("GET", "/v3/kv/range", ""),
    ("PUT", "/v3/kv/range", "{}"),
    ("DELETE", "/v3/kv/range", ""),
    ("OPTIONS", "/v3/kv/range", ""),
    ("POST", "/v3beta/kv/range", '{"key":"AA=="}'),
    ("POST", "/v3beta/kv/nothing", "{}"),
]

GRPC_MESSAGES: list[tuple[str, bytes]] = [
    ("/etcdserverpb.KV/Range", bytes_)
    for bytes_ in (
        b"\xff",  # a tag that does not end
        b"\x0a",  # a length that is not there
        b"\x0a\x05abc",  # shorter than it says
        b"\x0a\xff\xff\xff\xff\x0f",  # a length of 4 GiB
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # a negative length
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # a number of more than ten bytes
        b"\x00\x01",  # field 0
        b"\x0b",  # a group that does not end
        b"\x0c",  # the end of no group
        b"\x0e\x01",  # a wire type that is none
        b"\xa2\x06\x01a",  # a field that nobody knows: fine, but there is no key
        b"\x0a\x01a\xa2\x06\x01a",  # the same with a key
        b"\x0a\x01a\x0a\x01b",  # a field twice: the last one counts
    )
]
GRPC_MESSAGES += [
    ("/etcdserverpb.KV/Txn", b"\x0a\x02\x08"),
    ("/etcdserverpb.KV/Txn", b"\x12\x01\xff"),
    ("/etcdserverpb.KV/Put", b"\x0a\x01a\x18\x80"),
    ("/etcdserverpb.Nothing/Nothing", b""),
    ("/etcdserverpb.KV/Nothing", b""),
    ("/etcdserverpb.KV/", b""),
    ("/grpc.reflection.v1.Nothing/X", b""),
]

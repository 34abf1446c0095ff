"""Members, status, alarms, downgrades and snapshots in etcd's words."""

import hashlib

import pytest

from raftkv.daemon.facts import Facts, MemberFacts
from raftkv.etcd import cluster, maintenance
from raftkv.etcd.responses import Origin
from raftkv.etcd.snapshots import BLOB_BYTES, SnapshotStream
from raftkv.etcdpb import rpc_pb2 as rpc
from raftkv.wire.alarms import CORRUPT, NOSPACE

ORIGIN = Origin(77, 5, 3)


class Schemes:
    client_scheme = "https"
    peer_scheme = "http"


@pytest.mark.parametrize(
    ("urls", "expected"),
    [
        (["http://h1:2380"], "h1:2380"),
        ([" https://h1:2380 "], "h1:2380"),
        (["http://[::1]:2380"], "[::1]:2380"),
        ([], None),
        (["h1:2380"], None),
        (["http://h1"], None),
        (["http://:2380"], None),
        (["http://h1:0"], None),
        (["http://h1:99999"], None),
        (["http://h1:x"], None),
        (["http://h1:2380/"], None),
        (["http://h1:2380/path"], None),
        (["http://h1:2380?q"], None),
        (["http://user@h1:2380"], None),
        (["ftp://h1:2380"], None),
        (["unix://h1:2380"], None),
        (["http://h 1:2380"], None),
        (["http://h1:2380", "http://h2:2380"], None),
    ],
)
def test_the_url_of_a_peer(urls: list[str], expected: str | None) -> None:
    assert cluster.peer_address(urls) == expected


def test_members_are_in_order_and_who_has_not_started_has_no_name() -> None:
    table = [
        MemberFacts(9, "n9", "h9:2380", "h9:2379", False, False),
        MemberFacts(2, "n2", "h2:2380", "h2:2379", True, True),
    ]
    assert cluster.members(table, Schemes()) == [
        rpc.Member(ID=2, name="n2", peerURLs=["http://h2:2380"], clientURLs=["https://h2:2379"], isLearner=True),
        rpc.Member(ID=9, peerURLs=["http://h9:2380"]),
    ]


def test_what_a_change_answers_is_told_in_the_same_words() -> None:
    row = {"name": "n2", "address": "h2:2379", "peer_address": "h2:2380", "version": "1", "wants_vote": False}
    answer = {"members": [{**row, "id": 3, "voter": False}, {**row, "id": 2, "voter": True}]}
    told = cluster.changed_members(answer, Schemes())
    assert [(one.ID, one.isLearner) for one in told] == [(2, False), (3, True)]
    on_its_way = {"members": [{**row, "id": 4, "voter": False, "wants_vote": True, "version": "", "name": ""}]}
    assert cluster.changed_members(on_its_way, Schemes()) == [rpc.Member(ID=4, peerURLs=["http://h2:2380"])]


def facts(**changed: object) -> Facts:
    values = dict.fromkeys(Facts._fields, 0) | {"alarms": [], "errors": [], "downgrade_target": ""}
    return Facts(**{**values, **changed})  # type: ignore[arg-type]


def test_a_member_without_a_leader_says_so_and_alarms_are_told_as_go_prints_them() -> None:
    told = maintenance.status_response(
        facts(alarms=[(0, CORRUPT), (123, NOSPACE)], errors=["disk_stalled: x"], revision=7, quota_bytes=9), ORIGIN
    )
    assert list(told.errors) == [
        "etcdserver: no leader",
        "alarm:CORRUPT ",
        "memberID:123 alarm:NOSPACE ",
        "disk_stalled: x",
    ]
    assert (told.header.revision, told.header.cluster_id, told.dbSizeQuota) == (7, 77, 9)
    assert not told.downgradeInfo.enabled
    announced = maintenance.status_response(facts(leader=4, downgrade_target="3.4.0"), ORIGIN)
    assert not announced.errors
    assert announced.downgradeInfo == rpc.DowngradeInfo(enabled=True, targetVersion="3.4.0")


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("", maintenance.WRONG_FORMAT),
        ("3", maintenance.WRONG_FORMAT),
        ("x.y", maintenance.WRONG_FORMAT),
        ("v3.4", maintenance.WRONG_FORMAT),
        ("3.4.0.1", maintenance.WRONG_FORMAT),
        ("3.4", None),
        ("3.4.7", None),
        ("3.4.0-rc1", None),
        ("3.5.0", maintenance.INVALID_TARGET),
        ("3.3", maintenance.INVALID_TARGET),
        ("4.4", maintenance.INVALID_TARGET),
    ],
)
def test_a_downgrade_goes_one_minor_version_down(version: str, expected: object) -> None:
    assert maintenance.refusal_of_target(version) == expected


def test_the_target_is_kept_without_a_patch() -> None:
    assert maintenance.target_of("3.4.7") == "3.4.0"
    assert maintenance.target_of("3.4") == "3.4.0"


@pytest.mark.parametrize("size_bytes", [4096, 100_000, BLOB_BYTES * 3, 4096 * 9 - 48])
def test_a_snapshot_ends_with_its_hash_at_the_place_where_clients_look(size_bytes: int) -> None:
    data = bytes(range(256)) * (size_bytes // 256) + b"x" * (size_bytes % 256)
    stream = SnapshotStream(size_bytes, 48, lambda size, sha256: b"T" * 8 + size.to_bytes(8, "big") + sha256)
    messages = [*stream.feed(data[:5000]), *stream.feed(data[5000:]), *stream.finish()]
    whole = b"".join(message.blob for message in messages)
    assert len(whole) % 512 == 32
    assert whole[-32:] == hashlib.sha256(whole[:-32]).digest() == messages[-1].blob
    assert whole[-80:-32] == b"T" * 8 + size_bytes.to_bytes(8, "big") + hashlib.sha256(data).digest()
    assert whole.startswith(data)
    left = len(whole) - 32
    for message in messages[:-1]:
        left -= len(message.blob)
        assert message.remaining_bytes == left
        assert 0 < len(message.blob) <= BLOB_BYTES
    assert left == messages[-1].remaining_bytes == 0

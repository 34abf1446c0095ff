"""Watches of etcd as commands, their events, and how one is told that it cannot begin."""

import pytest

from raftkv.errors import Compacted, InvalidRequest, Overloaded, PermissionDenied
from raftkv.etcd.responses import Origin
from raftkv.etcd.watching import event, is_empty, refusal, watch_command
from raftkv.etcdpb import kv_pb2 as kv
from raftkv.etcdpb import rpc_pb2 as rpc
from raftkv.limits import DEFAULT_LIMITS
from raftkv.wire.protocol import WATCH_CREATE
from raftkv.wire.watching import NO_DELETE, NO_PUT, WATCH_PREV_KV, check_watch

ORIGIN = Origin(cluster_id=5, member_id=7, raft_term=3)


def test_a_watch() -> None:
    request = rpc.WatchCreateRequest(key=b"a", range_end=b"b", start_revision=5, watch_id=9, fragment=True)
    assert watch_command(request) == [WATCH_CREATE, b"a", b"b", 5, 0]
    for fields, flags in (
        ({"prev_kv": True}, WATCH_PREV_KV),
        ({"progress_notify": True}, 0),  # the door's own: its interval is etcd's
        ({"filters": [rpc.WatchCreateRequest.NOPUT]}, NO_PUT),
        ({"filters": [1, 0, 1]}, NO_PUT | NO_DELETE),
        ({"filters": [7]}, 0),
    ):
        command = watch_command(rpc.WatchCreateRequest(**fields))  # type: ignore[arg-type]
        assert command == [WATCH_CREATE, b"", b"", 0, flags]
        check_watch(command, DEFAULT_LIMITS)


def test_events() -> None:
    old = [b"k", 2, 3, 2, 0, b"old"]
    before = kv.KeyValue(key=b"k", create_revision=2, mod_revision=3, version=2, value=b"old")
    assert event([0, old, None]) == kv.Event(kv=before)
    gone = kv.KeyValue(key=b"k", mod_revision=4)
    assert event([1, [b"k", 0, 4, 0, 0, b""], old]) == kv.Event(type=kv.Event.DELETE, kv=gone, prev_kv=before)


@pytest.mark.parametrize(
    ("key", "range_end", "empty"),
    [
        (b"a", b"", False),
        (b"a", b"\0", False),
        (b"a", b"b", False),
        (b"a", b"a", True),
        (b"b", b"a", True),
        (b"", b"", False),
        (b"", b"\0", False),
        (b"", b"\0\0", False),
    ],
)
def test_empty_ranges(key: bytes, range_end: bytes, empty: bool) -> None:
    assert is_empty(rpc.WatchCreateRequest(key=key, range_end=range_end)) is empty


def test_a_watch_whose_history_is_gone_begins_and_ends() -> None:
    error = Compacted(details={"compact_revision": 9})
    began, ended = refusal(rpc.WatchCreateRequest(key=b"k", start_revision=3), 4, error, ORIGIN, 12)
    assert (began.watch_id, began.created, began.canceled, began.header.revision) == (4, True, False, 12)
    assert (ended.watch_id, ended.created, ended.canceled, ended.header.revision) == (4, False, True, 0)
    assert (ended.compact_revision, ended.cancel_reason) == (9, "")
    assert ended.header.cluster_id == 5


@pytest.mark.parametrize(
    ("request_fields", "error", "reason"),
    [
        (
            {"start_revision": -1},
            Compacted(details={"compact_revision": 9}),
            "etcdserver: mvcc: required revision has been compacted",
        ),
        ({"key": b"b", "range_end": b"a"}, InvalidRequest("the range is empty"), "mvcc: watcher range is empty"),
        (
            {"key": b"b", "range_end": b"a", "start_revision": 3},
            Compacted(details={"compact_revision": 9}),
            "mvcc: watcher range is empty",
        ),
        ({"key": b"k"}, Overloaded(), "etcdserver: too many requests"),
    ],
)
def test_a_watch_that_never_began_has_no_id(request_fields: object, error: InvalidRequest, reason: str) -> None:
    request = rpc.WatchCreateRequest(**request_fields)  # type: ignore[arg-type]
    (response,) = refusal(request, 4, error, ORIGIN, 12)
    assert (response.watch_id, response.created, response.canceled) == (-1, True, True)
    assert (response.cancel_reason, response.compact_revision, response.header.revision) == (reason, 0, 12)


def test_who_may_not_watch_is_told_in_the_words_of_go() -> None:
    (response,) = refusal(rpc.WatchCreateRequest(key=b"k"), 4, PermissionDenied(), ORIGIN, 12)
    assert (response.watch_id, response.created, response.canceled) == (-1, True, True)
    assert response.cancel_reason == "rpc error: code = PermissionDenied desc = etcdserver: permission denied"

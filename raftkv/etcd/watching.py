"""etcd's watches in raftkv's words: how one is asked for, its events, and the answers when it cannot begin or has to end.

What a stream of many watches needs besides (ids, progress, whole revisions in one response) is the door's: it needs state.
"""

from typing import Any, Final, Sequence

from raftkv.errors import Compacted, RaftKVError
from raftkv.etcd.responses import Origin, fill_key_value, header
from raftkv.etcd.statuses import INVALID_ARGUMENT, PERMISSION_DENIED, UNAUTHENTICATED, status_of
from raftkv.etcdpb import kv_pb2 as kv
from raftkv.etcdpb import rpc_pb2 as rpc
from raftkv.wire.commands import Command
from raftkv.wire.protocol import WATCH_CREATE
from raftkv.wire.watching import NO_DELETE, NO_PUT, WATCH_PREV_KV

NO_WATCH: Final = -1  # the id in the answer to a watch that never began
_TO_THE_END: Final = b"\0"
_AUTH_CODES: Final = frozenset({"permission_denied", "invalid_auth_token", "user_empty", "auth_old_revision"})
_GO_NAMES: Final = {
    INVALID_ARGUMENT: "InvalidArgument",
    PERMISSION_DENIED: "PermissionDenied",
    UNAUTHENTICATED: "Unauthenticated",
}
_FILTERS: Final = {rpc.WatchCreateRequest.NOPUT: NO_PUT, rpc.WatchCreateRequest.NODELETE: NO_DELETE}


def watch_command(request: rpc.WatchCreateRequest) -> Command:
    """WATCH_CREATE. `watch_id`, `fragment` and `progress_notify`, which has another interval here, are between the door and its client."""
    flags = 0
    if request.prev_kv:
        flags |= WATCH_PREV_KV
    for unwanted in request.filters:  # one that is not known filters nothing
        flags |= _FILTERS.get(unwanted, 0)
    return [WATCH_CREATE, request.key, request.range_end, request.start_revision, flags]


def event(items: Sequence[Any]) -> kv.Event:
    """An event of the native protocol: [kind, key-value, previous key-value or None]."""
    kind, now, before = items
    made = kv.Event(type=kind)
    fill_key_value(made.kv, now)
    if before is not None:
        fill_key_value(made.prev_kv, before)
    return made


def is_empty(request: rpc.WatchCreateRequest) -> bool:
    """Whether no key can ever be in its range; an empty key counts as the first one."""
    end = request.range_end
    return end not in (b"", _TO_THE_END) and (request.key or b"\0") >= end


def refusal(
    request: rpc.WatchCreateRequest, watch_id: int, error: RaftKVError, origin: Origin, revision: int
) -> list[rpc.WatchResponse]:
    """The responses to a watch that cannot begin. `watch_id`: the one that it would have.

    If its history is gone, it begins and ends: that is how clients learn from which revision on they can try again.
    """
    its_header = header(origin, revision)
    if isinstance(error, Compacted) and request.start_revision >= 0 and not is_empty(request):
        return [
            rpc.WatchResponse(header=its_header, watch_id=watch_id, created=True),
            compacted(watch_id, error, origin),
        ]
    reason = "mvcc: watcher range is empty" if is_empty(request) else _reason(error)
    return [rpc.WatchResponse(header=its_header, watch_id=NO_WATCH, created=True, canceled=True, cancel_reason=reason)]


def _reason(error: RaftKVError) -> str:
    """Of an error of authentication in the words of Go's gRPC: clients of etcd compare with them."""
    status = status_of(error)
    if error.code in _AUTH_CODES:
        return f"rpc error: code = {_GO_NAMES[status.number]} desc = {status.text}"
    return status.text


def compacted(watch_id: int, error: Compacted, origin: Origin) -> rpc.WatchResponse:
    """The end of a watch whose history is gone. It has no revision, as in etcd: clients look at `compact_revision` alone."""
    return rpc.WatchResponse(
        header=header(origin, 0),
        watch_id=watch_id,
        canceled=True,
        compact_revision=error.details["compact_revision"],
    )

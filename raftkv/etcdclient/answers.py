"""The class that answers each procedure, and watches as the client's WatchState wants to hear them."""

from functools import cache
from typing import Any

from raftkv.etcdclient.failures import UNAVAILABLE, judge
from raftkv.etcdclient.messages import kv_items
from raftkv.etcdpb import kv_pb2
from raftkv.etcdpb import rpc_pb2 as rpc
from raftkv.etcdpb.pool import POOL, message
from raftkv.wire.commands import FAILED, OK, Answer, Command
from raftkv.wire.protocol import WATCH_CREATE, WATCH_EVENTS
from raftkv.wire.watching import NO_DELETE, NO_PUT, WATCH_PREV_KV


@cache
def parser(path: str) -> Any:
    """Bytes to the message that answers this procedure."""
    service, _, method = path[1:].partition("/")
    answer = POOL.FindServiceByName(service).methods_by_name[method].output_type
    return message(answer.full_name).FromString


def watch_request(command: Command, watch_id: int = 0) -> Any:
    """The request for WATCH_CREATE."""
    _, key, range_end, start_revision, flags = command
    filters: list[Any] = [number for flag, number in ((NO_PUT, 0), (NO_DELETE, 1)) if flags & flag]
    create = rpc.WatchCreateRequest(
        key=key,
        range_end=range_end,
        start_revision=start_revision,
        prev_kv=bool(flags & WATCH_PREV_KV),
        progress_notify=True,
        fragment=True,
        watch_id=watch_id,
        filters=filters,
    )
    return rpc.WatchRequest(create_request=create)


def watch_answer(response: Any) -> Answer:
    """A response of the stream. Everything was heard up to the last event: etcd's header is of the store, which is ahead of a watch that catches up."""
    if response.canceled:
        if response.compact_revision:
            details = {"compact_revision": response.compact_revision}
            return [FAILED, "compacted", False, "what the watch has not heard is compacted", details]
        error = judge(UNAVAILABLE, _reason(response) or "the watch was cancelled").error
        return [FAILED, error.code, False, error.message, {}]
    if response.created:
        return [OK, WATCH_CREATE, response.header.revision]
    events = [event_items(event) for event in response.events]
    revision = events[-1][1][2] if events else response.header.revision
    return [OK, WATCH_EVENTS, revision, response.fragment, events]


def _reason(response: Any) -> str:
    """etcd puts gRPC's own words around its refusal: "rpc error: code = PermissionDenied desc = etcdserver: permission denied"."""
    text = str(response.cancel_reason)
    return text.partition(" desc = ")[2] or text


def event_items(event: Any) -> list[Any]:
    deleted = event.type == kv_pb2.Event.DELETE
    previous = kv_items(event.prev_kv) if event.HasField("prev_kv") else None
    return [int(deleted), kv_items(event.kv), previous]

"""Events as bytes of WatchResponses, made once for all watchers that are handed the same batch.

Protobuf lets fields be concatenated: a response is the bytes of its watch id, which differ, and those of header and events, which are shared.
"""

from typing import Final, NamedTuple

from raftkv.daemon.etcd.house import House
from raftkv.etcd.encoding import varint
from raftkv.etcd.responses import header
from raftkv.etcd.watching import event
from raftkv.etcdpb import rpc_pb2 as rpc
from raftkv.replica.watching import Batch
from raftkv.units import Revision

DOOR: Final = "etcd"
FRAGMENT_BYTES_MAX: Final = 2 * 1024 * 1024  # etcd's bound of a request, and what it allows for the frame around it
_EVENTS_TAG: Final = b"\x5a"  # field 11, with a length


class Encoded(NamedTuple):
    """A batch. `responses`: without watch ids, for those that take it as it is; `revisions`: the events of each, one by one."""

    responses: list[bytes]
    revisions: list[tuple[Revision, list[bytes]]]
    bytes_max: int
    """The largest of the responses."""


def encoded(batch: Batch, house: House) -> Encoded:
    """Made at the first call. A live batch is one response per revision; one of history is one response, with the revision of now."""
    made: Encoded | None = batch.encoded.get(DOOR)
    if made is None:
        made = batch.encoded[DOOR] = _encode(batch, house)
    return made


def _encode(batch: Batch, house: House) -> Encoded:
    revisions: list[tuple[Revision, list[bytes]]] = []
    for items in batch.items():
        revision = items[1][2]
        data = event(items).SerializeToString()
        if not revisions or revisions[-1][0] != revision:
            revisions.append((revision, []))
        revisions[-1][1].append(b"".join((_EVENTS_TAG, varint(len(data)), data)))
    if batch.live:
        responses = [_response(house, revision, events) for revision, events in revisions]
    else:
        responses = [_response(house, house.view.revision, [event for _, events in revisions for event in events])]
    return Encoded(responses if revisions else [], revisions, max(map(len, responses), default=0))


def _response(house: House, revision: Revision, events: list[bytes]) -> bytes:
    head = rpc.WatchResponse(header=header(house.origin(), revision)).SerializeToString()
    return b"".join((head, *events))

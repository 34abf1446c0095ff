"""Responses that are asked for most, as the bytes of their message: a put, and the read of one key.

The header of a response is the same for all answers of one entry but for the revision, so it is put together from bytes; protobuf allows a
message to be the concatenation of its parts. A test compares every response with what its message would be.
"""

from typing import Final

from raftkv.etcd.responses import Origin, fill_key_value
from raftkv.etcdpb import rpc_pb2 as rpc
from raftkv.wire.commands import Answer


class Headers:
    """The header field of responses of one member in one term, encoded."""

    __slots__ = ("_after", "_before", "_encoded", "_revision", "origin")

    def __init__(self, origin: Origin) -> None:
        self.origin: Final = origin
        self._before = rpc.ResponseHeader(cluster_id=origin.cluster_id, member_id=origin.member_id).SerializeToString()
        self._after = rpc.ResponseHeader(raft_term=origin.raft_term).SerializeToString()
        self._revision = -1
        self._encoded = b""

    def at(self, revision: int) -> bytes:
        """Field 1 of a response, whose header has this revision."""
        if revision != self._revision:
            middle = b"\x18" + varint(revision) if revision else b""
            size = len(self._before) + len(middle) + len(self._after)
            assert size < 128, "four numbers"
            self._encoded = b"\x0a%c%b%b%b" % (size, self._before, middle, self._after)
            self._revision = revision
        return self._encoded


def varint(number: int) -> bytes:
    """A base-128 number of protobuf."""
    if number < 0x80:
        return b"%c" % number
    if number < 0x4000:
        return b"%c%c" % (number & 0x7F | 0x80, number >> 7)
    if number < 0x200000:
        return b"%c%c%c" % (number & 0x7F | 0x80, number >> 7 & 0x7F | 0x80, number >> 14)
    return b"%c%c%c" % (number & 0x7F | 0x80, number >> 7 & 0x7F | 0x80, number >> 14 & 0x7F | 0x80) + varint(
        number >> 21
    )


def encoded_put(answer: Answer, headers: Headers) -> bytes:
    """The answer to a PUT."""
    previous = answer[2]
    if previous is None:
        return headers.at(answer[1])
    response = rpc.PutResponse()
    fill_key_value(response.prev_kv, previous)
    return headers.at(answer[1]) + response.SerializeToString()


def encoded_read(answer: Answer, headers: Headers) -> bytes | None:
    """The answer to a GET; None for that to a RANGE, which is not quicker this way."""
    if len(answer) != 3:
        return None
    found = answer[2]
    if found is None:
        return headers.at(answer[1])
    response = rpc.RangeResponse(count=1)
    fill_key_value(response.kvs.add(), found)
    return headers.at(answer[1]) + response.SerializeToString()

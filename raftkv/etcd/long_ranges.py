"""A long range as it goes to a client of etcd: one message, whose key-values are encoded some at a time, so that nobody waits for them.

A message of protobuf may be the concatenation of its parts, and so may the text of its JSON: the parts are made by the door's own encoder.
"""

from typing import Any, Callable, Final, Sequence, TypeAlias

from raftkv.etcd.responses import Origin, fill_key_value, stamp
from raftkv.etcdpb import rpc_pb2 as rpc
from raftkv.wire.commands import Answer

KEYS_PER_TURN: Final = 500  # a millisecond or two

EncodePart: TypeAlias = Callable[[Sequence[Any]], bytes]
"""Some key-values, as they stand in answers."""


class LongRange:
    """The answer to one RANGE, page by page. The revision and the count are those of the first page, for it saw the whole range."""

    def __init__(self, first: Answer, origin: Origin, encode_part: EncodePart) -> None:
        self.head = rpc.RangeResponse(count=first[4])
        stamp(self.head.header, origin, first[1])
        self.parts: list[bytes] = []
        self._encode_part = encode_part
        self._page: Sequence[Any] = ()
        self._done = 0

    def take(self, page: Answer) -> None:
        """The next page; that before it is done."""
        assert self._done >= len(self._page), "one page after the other"
        self._page, self._done = page[2], 0
        self.head.more = page[3]

    def step(self) -> bool:
        """Encode some more of the page; False when all of it is."""
        some = self._page[self._done : self._done + KEYS_PER_TURN]
        if some:
            self.parts.append(self._encode_part(some))
            self._done += len(some)
        return self._done < len(self._page)


def protobuf_part(key_values: Sequence[Any]) -> bytes:
    """As bytes of a RangeResponse."""
    response = rpc.RangeResponse()
    add = response.kvs.add
    for items in key_values:
        fill_key_value(add(), items)
    return response.SerializeToString()


def protobuf_whole(long_range: LongRange) -> bytes:
    """The RangeResponse of protobuf parts."""
    return b"".join((long_range.head.SerializeToString(), *long_range.parts))

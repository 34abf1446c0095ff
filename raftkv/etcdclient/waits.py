"""`wait` and `wait_for` without a command for it: read, and if it is not true yet, watch from there. SANS-IO; nobody polls.

A condition is looked at after every revision that touched one of the keys, all keys at that revision, as raftkv's members do.
"""

from typing import Any

from raftkv.errors import Compacted
from raftkv.etcdclient.answers import watch_request
from raftkv.etcdclient.messages import kv_items, read
from raftkv.etcdclient.rpcs import Program
from raftkv.etcdpb import kv_pb2
from raftkv.etcdpb import rpc_pb2 as rpc
from raftkv.units import Revision
from raftkv.wire.commands import OK, Answer, Command, KeyValueItems
from raftkv.wire.protocol import WATCH_CREATE
from raftkv.wire.watching import UNTIL_CHANGED, UNTIL_DELETED, UNTIL_EXISTS


class Waiting:
    """One WAIT."""

    __slots__ = ("_all", "_condition", "_keys", "_revision")

    def __init__(self, command: Command) -> None:
        _, self._condition, self._all, self._keys, self._revision = command

    def look(self, revision: Revision = 0) -> Program:
        """All keys at one revision (0: now): [OK, revision, key-values]. When that is history which is gone: as they are now."""
        found: list[KeyValueItems | None] = []
        for key in self._keys:  # one by one: why not in a transaction is said in attempts.py
            try:
                response = yield read(rpc.RangeRequest(key=key, revision=revision))
            except Compacted:
                return (yield from self.look())
            revision = revision or response.header.revision
            found.append(kv_items(response.kvs[0]) if response.kvs else None)
        return [OK, revision, found]

    def is_over(self, seen: Answer) -> bool:
        """Whether what was looked at is what is waited for."""
        met = map(self._is_met, seen[2])
        return all(met) if self._all else any(met)

    def requests(self, seen: Answer) -> list[Any]:
        """The watches from there on, one per key."""
        return [
            watch_request([WATCH_CREATE, key, b"", seen[1] + 1, 0], watch_id=number)
            for number, key in enumerate(dict.fromkeys(self._keys), 1)
        ]

    def on_event(self, event: Any) -> Revision:
        """At which revision to look because of it; 0: it cannot be over by that."""
        deleted = event.type == kv_pb2.Event.DELETE
        return int(event.kv.mod_revision) if self._is_met(None if deleted else kv_items(event.kv)) else 0

    def answer_of(self, event: Any) -> Answer | None:
        """With a single key the event has it all."""
        if len(self._keys) != 1:
            return None
        deleted = event.type == kv_pb2.Event.DELETE
        return [OK, event.kv.mod_revision, [None if deleted else kv_items(event.kv)]]

    def _is_met(self, kv: KeyValueItems | None) -> bool:
        if self._condition == UNTIL_EXISTS:
            return kv is not None
        if self._condition == UNTIL_DELETED:
            return kv is None
        written = kv is not None and kv[2] > self._revision
        return written if self._condition == UNTIL_CHANGED else kv is None or written

"""The client's verbs as commands: pure functions from arguments to the flat lists of wire/commands.py.

Both clients build their requests here, so that a verb means the same in both. The sequence of a write is 0 here; the
session sets it when the write is opened. Nothing here sends, waits or reads an answer, except Pager, which turns the answer of one
page into the request for the next.
"""

from typing import Final, Literal, Sequence, TypeAlias

from raftkv.client.results import KeyValue, RangeResult, range_result
from raftkv.errors import InvalidRequest, LeaseTtlTooLarge
from raftkv.units import Revision
from raftkv.wire.commands import (
    APPEND,
    COMPACT,
    COMPARE_VALUE,
    COMPARE_VERSION,
    COUNT_ONLY,
    DELETE_RANGE,
    EQUAL,
    GET,
    GUARDED,
    INCREMENT,
    KEYS_ONLY,
    LEASE_GRANT,
    LEASE_REVOKE,
    LEASE_TTL,
    LEASES,
    PREV_KV,
    PUT,
    RANGE,
    SERIALIZABLE,
    SORT_ASCEND,
    SORT_CREATE,
    SORT_DESCEND,
    SORT_KEY,
    SORT_MOD,
    SORT_NONE,
    SORT_VALUE,
    SORT_VERSION,
    TXN,
    UNCOUNTED,
    WITH_KEYS,
    Answer,
    Command,
    prefix_range_end,
)
from raftkv.wire.protocol import CHANGE_MEMBERS, KEEP_ALIVE

Bytes: TypeAlias = str | bytes
"""A key or a value: text travels as UTF-8."""

SortBy: TypeAlias = Literal["key", "version", "create", "mod", "value"]

_SORT_TARGETS: Final[dict[str, int]] = {
    "key": SORT_KEY,
    "version": SORT_VERSION,
    "create": SORT_CREATE,
    "mod": SORT_MOD,
    "value": SORT_VALUE,
}

PAGE_KEYS: Final = 1000
LEASE_TTL_S_MAX: Final = 9_000_000_000  # etcd's bound


def as_bytes(value: Bytes) -> bytes:
    """Keys and values as they travel. Raises TypeError for anything that is neither text nor bytes."""
    if type(value) is bytes:
        return value
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    raise TypeError(f"keys and values are str or bytes, not {type(value).__name__}")


def put(key: Bytes, value: Bytes, lease: int = 0, prev_kv: bool = False) -> Command:
    return [PUT, 0, as_bytes(key), as_bytes(value), lease, PREV_KV if prev_kv else 0]


def get(key: Bytes, stale: bool = False) -> Command:
    return [GET, SERIALIZABLE if stale else 0, as_bytes(key)]


def delete(key: Bytes, range_end: Bytes = b"", prev_kv: bool = False) -> Command:
    return [DELETE_RANGE, 0, as_bytes(key), as_bytes(range_end), PREV_KV if prev_kv else 0]


def delete_prefix(prefix: Bytes, prev_kv: bool = False) -> Command:
    start = as_bytes(prefix)
    return delete(start or b"\0", prefix_range_end(start), prev_kv)


def increment(key: Bytes, delta: int = 1, lease: int = 0) -> Command:
    """`lease`: of a key that it makes."""
    return [INCREMENT, 0, as_bytes(key), delta, *([lease] if lease else [])]


def append(key: Bytes, value: Bytes, lease: int = 0) -> Command:
    """`lease`: of a key that it makes."""
    return [APPEND, 0, as_bytes(key), as_bytes(value), *([lease] if lease else [])]


def lease_grant(ttl: float, lease_id: int = 0) -> Command:
    """`ttl` in seconds. Raises InvalidRequest or LeaseTtlTooLarge."""
    if not ttl > 0:  # nor is it a number, perhaps
        raise InvalidRequest(f"the time to live of a lease is a number of seconds above 0, not {ttl!r}")
    if ttl >= LEASE_TTL_S_MAX + 1:
        raise LeaseTtlTooLarge(f"the time to live of a lease is at most {LEASE_TTL_S_MAX} seconds")
    return [LEASE_GRANT, 0, as_lease_id(lease_id), -int(-ttl * 1000 // 1)]


def lease_revoke(lease_id: int) -> Command:
    return [LEASE_REVOKE, 0, as_lease_id(lease_id)]


def keep_alive(lease_ids: "list[int]") -> Command:
    return [KEEP_ALIVE, [as_lease_id(lease_id) for lease_id in lease_ids]]


def lease_ttl(lease_id: int, keys: bool = False) -> Command:
    return [LEASE_TTL, WITH_KEYS if keys else 0, as_lease_id(lease_id)]


def leases() -> Command:
    return [LEASES, 0]


def as_lease_id(lease_id: int) -> int:
    """Raises InvalidRequest for what is no 64-bit integer."""
    if type(lease_id) is not int or not -(2**63) <= lease_id < 2**63:
        raise InvalidRequest(f"the id of a lease is a 64-bit integer, not {lease_id!r}")
    return lease_id


def guarded(guards: "list[tuple[bytes, Revision]]", command: Command) -> Command:
    """The write is done iff each of these keys exists with this create_revision."""
    return [GUARDED, 0, [list(guard) for guard in guards], command]


def compact(revision: Revision) -> Command:
    return [COMPACT, 0, revision]


def compare_and_set(key: Bytes, expected: Bytes | None, value: Bytes) -> Command:
    """`expected` None: only if the key does not exist."""
    name = as_bytes(key)
    if expected is None:
        compare = [EQUAL, COMPARE_VERSION, name, 0, b""]
    else:
        compare = [EQUAL, COMPARE_VALUE, name, as_bytes(expected), b""]
    return [TXN, 0, [compare], [put(name, value)], []]


def range_(
    key: Bytes | None = None,
    range_end: Bytes | None = None,
    *,
    prefix: Bytes | None = None,
    limit: int = 0,
    revision: Revision = 0,
    sort_by: SortBy | None = None,
    descending: bool = False,
    keys_only: bool = False,
    count_only: bool = False,
    stale: bool = False,
) -> Command:
    """A range, given as key, as [key, range_end) or as a prefix. Raises InvalidRequest for a mixture of them."""
    start, end = bounds(key, range_end, prefix)
    if limit < 0 or revision < 0:
        raise InvalidRequest("limit and revision of a range are not negative")
    order, target = SORT_NONE, SORT_KEY
    if sort_by is not None or descending:
        if sort_by is not None and sort_by not in _SORT_TARGETS:
            raise InvalidRequest(f"a range sorts by {', '.join(_SORT_TARGETS)}, not by {sort_by!r}")
        order, target = SORT_DESCEND if descending else SORT_ASCEND, _SORT_TARGETS[sort_by or "key"]
    flags = (SERIALIZABLE if stale else 0) | (KEYS_ONLY if keys_only else 0) | (COUNT_ONLY if count_only else 0)
    return [RANGE, flags, start, end, limit, revision, order, target, 0, 0, 0, 0]


def bounds(key: Bytes | None, range_end: Bytes | None, prefix: Bytes | None) -> tuple[bytes, bytes]:
    """The range that is meant, as it travels. Raises InvalidRequest."""
    if prefix is not None:
        if key is not None or range_end is not None:
            raise InvalidRequest("a range is given either by key and range_end or by prefix, not by both")
        start = as_bytes(prefix)
        return start or b"\0", prefix_range_end(start)
    if key is None:
        raise InvalidRequest("a range needs a key or a prefix")
    return as_bytes(key), b"" if range_end is None else as_bytes(range_end)


def change_members(
    add: Sequence[tuple[str, str, bool]] = (),
    promote: Sequence[str] = (),
    demote: Sequence[str] = (),
    remove: Sequence[str] = (),
    force: bool = False,
) -> Command:
    """`add` holds (name, peer address, learner)."""
    for names in (promote, demote, remove):
        if isinstance(names, str):
            raise TypeError("members are given as a sequence of names")
    newcomers = [[name, peer_address, learner, None] for name, peer_address, learner in add]
    lists = {"promote": list(promote), "demote": list(demote), "remove": list(remove)}
    return [CHANGE_MEMBERS, {"add": newcomers, **lists, "force": force}]


class Pager:
    """Reads one range page by page at one fixed revision: `command` is the next request until it is None.

    Members cut a range at a number of bytes (limits.range_reply_bytes_max) and set `more`; paging on by key is possible for
    ranges in key order only. Others are returned as they came, with `more` as the member said.
    """

    __slots__ = ("_count", "_limit", "_more", "_revision", "_taken", "command")

    def __init__(self, command: Command, page_keys: int = 0) -> None:
        assert command[0] == RANGE, "only ranges have pages"
        self._limit: int = command[4]
        self._revision: Revision = command[5]
        self._taken = 0
        self._count = -1
        self._more = False
        if page_keys and not 0 < self._limit <= page_keys:
            command = [*command[:4], page_keys, *command[5:]]
        self.command: Command | None = command

    def feed(self, answer: Answer) -> list[KeyValue]:
        """Take the answer to `command`, return its key-values, and set `command` to the next page's request or None."""
        command, page = self.command, range_result(answer)
        assert command is not None, "a page was asked for"
        if self._count < 0:
            self._count = page.count
            self._revision = self._revision or page.revision
        self._taken += len(page.kvs)
        self._more = page.more
        self.command = self._next(command, page)
        return page.kvs

    def result(self, kvs: list[KeyValue]) -> RangeResult:
        """All pages as one; `kvs` is what `feed` returned, joined."""
        assert self.command is None, "the last page was read"
        assert len(kvs) == self._taken, "nothing was left out"
        return RangeResult(kvs, self._more, self._count, self._revision)

    def _next(self, command: Command, page: RangeResult) -> Command | None:
        wanted = self._limit - self._taken
        in_key_order = command[6] == SORT_NONE or (command[6] == SORT_ASCEND and command[7] == SORT_KEY)
        if not page.more or not page.kvs or not in_key_order or (self._limit and wanted <= 0):
            return None
        following = list(command)
        following[1] |= UNCOUNTED  # the first page has counted, and counting reads all the rest
        following[2] = page.kvs[-1].key + b"\0"
        following[4] = min(command[4], wanted) if self._limit else command[4]
        following[5] = self._revision
        return following

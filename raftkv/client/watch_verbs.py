"""The verbs of watches and waits, a mixin for each of the two clients (client.py, sync.py), so that one page shows both.

Imported by the command line with every verb, so it imports little; what reads watches is loaded with the first one.
"""

from typing import TYPE_CHECKING, Awaitable, Literal, NamedTuple, Sequence

from raftkv.client.requests import Bytes, as_bytes, bounds
from raftkv.client.results import KeyValue, key_value_or_none
from raftkv.errors import DeadlineExceeded, InvalidRequest
from raftkv.units import Revision
from raftkv.wire.commands import Answer, Command
from raftkv.wire.protocol import WAIT
from raftkv.wire.watching import UNTIL_CHANGED, UNTIL_DELETED, UNTIL_DIFFERS, UNTIL_EXISTS

if TYPE_CHECKING:
    from raftkv.client.watch import Watch
    from raftkv.client.watch_async import AsyncWatch

Until = Literal["exists", "deleted", "changed", "differs"]

_CONDITIONS: dict[str, int] = {
    "exists": UNTIL_EXISTS,
    "deleted": UNTIL_DELETED,
    "changed": UNTIL_CHANGED,
    "differs": UNTIL_DIFFERS,
}


class WaitResult(NamedTuple):
    """What was waited for has happened."""

    revision: Revision
    """At this revision."""
    kvs: list[KeyValue | None]
    """The keys at that revision, in the order in which they were given; None for one that did not exist."""


class WatchVerbs:
    """Of the blocking client."""

    def _wait(self, command: Command, timeout: float | None) -> Answer:
        raise NotImplementedError

    def _open_watch(self, command: Command, progress: bool, timeout: float | None, patience: float | None) -> "Watch":
        raise NotImplementedError

    def watch(
        self,
        key: Bytes | None = None,
        range_end: Bytes | None = None,
        *,
        prefix: Bytes | None = None,
        start_revision: Revision = 0,
        prev_kv: bool = False,
        only: Literal["put", "delete"] | None = None,
        progress: bool = False,
        timeout: float | None = None,
        patience: float | None = None,
    ) -> "Watch":
        """Every change of a key, of [key, range_end) or of a prefix, in order, once, from `start_revision` on (0: from now).

        It goes on by itself, on another member if need be, without gap or duplicate. Iterate over it for events, over `batches()` for whole
        revisions. `timeout` is for its beginning; `patience` (seconds) ends it when no member served it for so long, None never does.
        Raises WatchCompacted when what it has not heard yet is gone: read anew, then watch from there.
        """
        return self._open_watch(
            watch_request(key, range_end, prefix, start_revision, prev_kv, only), progress, timeout, patience
        )

    def wait(
        self, key: Bytes, *, until: Until = "exists", after: Revision = 0, timeout: float | None = None
    ) -> KeyValue | None:
        """Wait until a key exists, is deleted, was written after revision `after` ("changed"), or either ("differs"). Returns it as it was.

        One request: the member answers when it is true. Raises DeadlineExceeded when it is not within `timeout`.
        """
        return self.wait_for([key], until=until, after=after, timeout=timeout).kvs[0]

    def wait_for(
        self,
        keys: Sequence[Bytes],
        *,
        until: Until = "exists",
        any: bool = False,
        after: Revision = 0,
        timeout: float | None = None,
    ) -> WaitResult:
        """As `wait`, for all of several keys at one revision, or (`any`) for the first of them."""
        command = wait_request(keys, until, any, after)
        try:
            return wait_result(self._wait(command, timeout))
        except DeadlineExceeded as error:
            raise in_vain(error, keys, until) from None


class AsyncWatchVerbs:
    """Of the asyncio client."""

    def _wait(self, command: Command, timeout: float | None) -> Awaitable[Answer]:
        raise NotImplementedError

    def _open_watch(
        self, command: Command, progress: bool, timeout: float | None, patience: float | None
    ) -> "AsyncWatch":
        raise NotImplementedError

    def watch(
        self,
        key: Bytes | None = None,
        range_end: Bytes | None = None,
        *,
        prefix: Bytes | None = None,
        start_revision: Revision = 0,
        prev_kv: bool = False,
        only: Literal["put", "delete"] | None = None,
        progress: bool = False,
        timeout: float | None = None,
        patience: float | None = None,
    ) -> "AsyncWatch":
        """Every change of a key, of [key, range_end) or of a prefix, in order, once, from `start_revision` on (0: from now).

        It goes on by itself, on another member if need be, without gap or duplicate. Iterate over it for events, over `batches()` for whole
        revisions. `timeout` is for its beginning; `patience` (seconds) ends it when no member served it for so long, None never does.
        Raises WatchCompacted when what it has not heard yet is gone: read anew, then watch from there.
        """
        return self._open_watch(
            watch_request(key, range_end, prefix, start_revision, prev_kv, only), progress, timeout, patience
        )

    async def wait(
        self, key: Bytes, *, until: Until = "exists", after: Revision = 0, timeout: float | None = None
    ) -> KeyValue | None:
        """Wait until a key exists, is deleted, was written after revision `after` ("changed"), or either ("differs"). Returns it as it was.

        One request: the member answers when it is true. Raises DeadlineExceeded when it is not within `timeout`.
        """
        return (await self.wait_for([key], until=until, after=after, timeout=timeout)).kvs[0]

    async def wait_for(
        self,
        keys: Sequence[Bytes],
        *,
        until: Until = "exists",
        any: bool = False,
        after: Revision = 0,
        timeout: float | None = None,
    ) -> WaitResult:
        """As `wait`, for all of several keys at one revision, or (`any`) for the first of them."""
        command = wait_request(keys, until, any, after)
        try:
            return wait_result(await self._wait(command, timeout))
        except DeadlineExceeded as error:
            raise in_vain(error, keys, until) from None


def watch_request(
    key: Bytes | None,
    range_end: Bytes | None,
    prefix: Bytes | None,
    start_revision: Revision,
    prev_kv: bool,
    only: Literal["put", "delete"] | None,
) -> Command:
    """Raises InvalidRequest."""
    from raftkv.client.watchstate import watch_command

    start, end = bounds(key, range_end, prefix)
    return watch_command(start, end, start_revision=start_revision, prev_kv=prev_kv, only=only)


def wait_request(keys: Sequence[Bytes], until: Until, any_of_them: bool, after: Revision) -> Command:
    """Raises InvalidRequest."""
    condition = _CONDITIONS.get(until)
    if condition is None:
        raise InvalidRequest(f"until is {', '.join(_CONDITIONS)}, not {until!r}")
    if isinstance(keys, (str, bytes)) or not keys:
        raise InvalidRequest("wait_for takes a list of keys, one at least")
    return [WAIT, condition, not any_of_them, [as_bytes(key) for key in keys], after]


def wait_result(answer: Answer) -> WaitResult:
    return WaitResult(answer[1], [key_value_or_none(items) for items in answer[2]])


def in_vain(error: DeadlineExceeded, keys: Sequence[Bytes], until: str) -> DeadlineExceeded:
    """A wait that ended with its time, in words that say what for."""
    what = repr(as_bytes(keys[0])) if len(keys) == 1 else f"{len(keys)} keys"
    return DeadlineExceeded(f"waited in vain for {what} ({until}): {error.message}", details=error.details)

"""Performs operations and writes them down: the only way from a workload to a client. One clock for all of a run.

An answer is `ok`; an error that surely did nothing is `fail`; everything else stays open (`info`). A read that got no answer did
nothing, whatever its error says. Nothing is tried again here: a harness that retries finds its own bugs.
"""

import asyncio
import time
from typing import Any, Awaitable, Callable, Final, TypeVar

from raftkv_jepsen.checkers.models import READ
from raftkv_jepsen.clients.base import ClientError
from raftkv_jepsen.history import FAIL, INFO, OK, HistoryWriter, Operation

T = TypeVar("T")

SEEN: Final = frozenset({"hear", "hold", "observed", "overheard"})
"""Not asked for: what was heard, and for how long something was held."""
WRITES_NOTHING: Final = frozenset({READ, "final-read", "access", "leader", "wait", "gather", *SEEN})


class Recorder:
    """The clock, the history and the live figures of a run."""

    def __init__(self, history: HistoryWriter) -> None:
        self.history = history
        self._started_ns = time.monotonic_ns()
        self.counts = {OK: 0, FAIL: 0, INFO: 0}
        self.writes_ok = 0
        self.last_write_ok_ns = 0

    def now_ns(self) -> int:
        """Since the run began."""
        return time.monotonic_ns() - self._started_ns

    async def perform(
        self,
        operation: Operation,
        call: Awaitable[T],
        *,
        result: Callable[[T], Any] = lambda answer: answer,
    ) -> T | None:
        """The answer, None for any error; what came of it stands in `operation`. `result` makes JSON of the answer."""
        operation.invoked_ns = self.now_ns()
        self.history.invoke(operation)
        answer: T | None = None
        try:
            answer = await call
            operation.outcome, operation.result = OK, result(answer)
        except ClientError as error:
            unknown = error.may_have_happened and operation.function not in WRITES_NOTHING
            operation.outcome, operation.error = INFO if unknown else FAIL, str(error)
        except asyncio.CancelledError:
            operation.error = "the run ended"
            raise
        finally:
            self.note(operation, self.now_ns())
        return answer

    def happened(self, operation: Operation, began_ns: int, ended_ns: int) -> None:
        """Something that was observed, not asked for: events of a watch, the time that a lock was held."""
        operation.invoked_ns, operation.outcome = began_ns, OK
        self.history.invoke(operation)
        self.history.complete(operation, ended_ns)

    def note(self, operation: Operation, at_ns: int) -> None:
        """The end of an operation."""
        self.history.complete(operation, at_ns)
        self.counts[operation.outcome] += 1
        if operation.outcome == OK and operation.function not in WRITES_NOTHING:
            self.writes_ok += 1
            self.last_write_ok_ns = at_ns

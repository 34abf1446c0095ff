"""What clients asked and what came of it, and the judges: linearizable key by key, exactly once, revisions in the order of time.

The search is the fault harness's. Its models get a version here: the store counts the writes of a key, so a write that was done
twice shows itself to the next reader. Keys live for a bounded number of operations, which bounds the search.
"""

from typing import TYPE_CHECKING, Any, Final

from raftkv.units import Revision
from raftkv_jepsen.checkers.linearizability import analyse, by_key, evidence_of
from raftkv_jepsen.checkers.models import APPEND, CAS, DELETE, INCREMENT, READ, WRITE, Model
from raftkv_jepsen.history import FAIL, INFO, OK, Operation

if TYPE_CHECKING:
    from .checks import Checks

CONFIGURATIONS_MAX: Final = 20_000

MISSING: Final = (None, 0)
"""The state of a key that is not there: no value, version 0."""


def _step(state: Any, operation: Operation) -> tuple[bool, Any]:
    """State: value and version. Results: read -> state; write -> the state before, or None if not told; cas -> bool; delete -> count;
    increment -> the new number; append -> the new length."""
    function, told = operation.function, operation.outcome == OK
    result = operation.result
    value, version = state
    if function == READ:
        return not told or result == state, state
    if function == WRITE:
        return not told or result is None or result == state, (operation.argument, version + 1)
    if function == CAS:
        expected, new_value = operation.argument
        succeeds = value == expected
        return not told or result == succeeds, (new_value, version + 1) if succeeds else state
    if function == DELETE:
        return not told or result == (version > 0), MISSING
    if function == INCREMENT:
        total = int(value or b"0") + operation.argument
        return not told or result == total, (b"%d" % total, version + 1)
    assert function == APPEND, function
    longer = (value or b"") + operation.argument
    return not told or result == len(longer), (longer, version + 1)


KEY_VALUE: Final = Model("key", MISSING, _step)


class History:
    """All operations of one world. Times are virtual; an operation is complete when its client has the answer."""

    def __init__(self, checks: "Checks") -> None:
        self.operations: list[Operation] = []
        self.undecided = 0
        self._checks = checks
        self.revision_seen: Revision = 0
        """The newest that anybody was told of."""

    def invoke(self, place: int, function: str, key: str, argument: Any, now_us: int) -> tuple[Operation, int]:
        """Before the request leaves: the operation, and the newest revision that anybody was told of."""
        operation = Operation(place, function, key, argument, invoked_ns=now_us * 1000)
        self.operations.append(operation)
        return operation, self.revision_seen

    def complete(self, operation: Operation, result: Any, revision: int, floor: int, now_us: int) -> None:
        """The answer came, at this revision of the store."""
        operation.outcome, operation.result, operation.completed_ns = OK, result, now_us * 1000
        is_write = operation.function != READ
        changed = is_write and not (operation.function in (CAS, DELETE) and not result)
        if revision < floor + changed:
            self._checks.violate(f"answer of revision {revision} after one of {floor} was known: {operation}")
        self.learn(revision)

    def learn(self, revision: Revision) -> None:
        """Somebody was told of it: whatever is asked from now on must not be answered from before."""
        self.revision_seen = max(self.revision_seen, revision)

    def refuse(self, operation: Operation, code: str, *, may_have_happened: bool, now_us: int) -> None:
        """The call ended with an error."""
        operation.error = code
        if may_have_happened:
            operation.outcome = INFO
        else:
            operation.outcome, operation.completed_ns = FAIL, now_us * 1000

    def judge(self) -> None:
        """Violates when some key has no explanation."""
        for key, operations in by_key(self.operations).items():
            analysis = analyse(operations, KEY_VALUE, configurations_max=CONFIGURATIONS_MAX, seconds_max=1e9)
            if analysis.linearizable is None:
                self.undecided += 1
            elif not analysis.linearizable:
                evidence = "".join(f"\n    {operation}" for operation in evidence_of(analysis))
                self._checks.violate(f"{key} is not linearizable: nothing explains {analysis.blocked}{evidence}")

    def judge_once(self, final: "dict[bytes, tuple[bytes, int]]") -> None:
        """Exactly once, by the state at the end: each acknowledged effect is there once, each open one at most once."""
        for name, operations in by_key(self.operations).items():
            kind = name[0]
            value, version = final.get(name.encode(), (b"", 0))
            done = [operation for operation in operations if operation.outcome == OK]
            unknown = [operation for operation in operations if operation.outcome == INFO]
            if kind == "a":
                self._judge_appends(name, value, done, unknown)
            elif kind == "n":
                low = sum(operation.argument for operation in done if operation.function == INCREMENT)
                most = sum(operation.argument for operation in unknown if operation.function == INCREMENT)
                if not low <= int(value or b"0") <= low + most:
                    self._checks.violate(f"counter {name} is {int(value or b'0')}, acknowledged {low}, open {most}")
            elif kind == "r":
                low = sum(operation.function == WRITE for operation in done)
                most = sum(operation.function == WRITE for operation in unknown)
                if not low <= version <= low + most:
                    self._checks.violate(f"{name} was written {version} times, acknowledged {low}, open {most}")

    def _judge_appends(self, name: str, value: bytes, done: list[Operation], unknown: list[Operation]) -> None:
        items = value.split(b";")[:-1]
        if len(items) != len(set(items)):
            self._checks.violate(f"{name} has an item twice: {value!r}")
        present = {item + b";" for item in items}
        for operation in done:
            if operation.function == APPEND and operation.argument not in present:
                self._checks.violate(f"{name} lost the acknowledged {operation.argument!r}: {value!r}")
        known = {operation.argument for operation in (*done, *unknown)}
        if not present <= known:
            self._checks.violate(f"{name} has items that nobody appended, or that were refused: {value!r}")

"""Is there an order of the operations that respects real time and the model? Wing and Gong's search, with Lowe's cache.

A history is linearizable iff each of its keys is (Herlihy and Wing's locality), so it is cut by key first. The search goes depth
first: it takes any operation that began before the first one still waiting ended, goes on from the state after it, and turns back when
none fits; a configuration (set of operations taken, state) that was visited once is never entered again (Lowe 2017).

Open operations (info) may be taken at any time after they began, or never. Each doubles the configurations unless one is careful:
- only what others saw matters: the search ends when all completed operations are taken;
- they are tried last, so a history that needs none of them pays nothing for them;
- of several with equal effect the earliest is taken first: any order with another one first can be rearranged so;
- one that makes no difference to the operation taken next is dropped, because the order without it is explored too. A shortest
  explanation contains none of those, so nothing is missed.
A search that exceeds its bound says unknown. Reads that never returned and refused operations say nothing and are dropped.
"""

from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Final, Hashable, Iterable, Sequence

from raftkv_jepsen.checkers.models import READ, Model
from raftkv_jepsen.checkers.verdict import Verdict
from raftkv_jepsen.history import FAIL, INFO, Operation

CONFIGURATIONS_MAX: Final = 2_000_000
"""Per key; each costs about 200 bytes."""
EVIDENCE_BEFORE: Final = 12
"""Operations shown before the one that fits nowhere."""

_NOT_AFTER_OPEN: Final = object()


class _Entry:
    """A call or a return of a completed operation in the doubly linked list of what is not taken yet."""

    __slots__ = ("bit", "match", "next", "operation", "previous", "time_ns")

    def __init__(self, time_ns: int, operation: Operation | None, bit: int, match: "_Entry | None") -> None:
        self.time_ns = time_ns
        self.operation = operation
        self.bit = bit
        self.match = match
        """The return of a call; None for a return."""
        self.previous: _Entry = self
        self.next: _Entry | None = None


@dataclass(slots=True)
class Analysis:
    """What the search found for one key."""

    linearizable: bool | None
    """None: not decided within the bound."""
    configurations: int = 0
    order: list[Operation] = field(default_factory=list)
    """The longest order found; the whole one when linearizable."""
    blocked: Operation | None = None
    """The first operation that had to be next and never fitted."""


class _Search:
    """The search for one key."""

    def __init__(self, operations: Sequence[Operation], model: Model, configurations_max: int, ends_s: float) -> None:
        self._step = model.step
        self._effect = model.effect
        self._state: Any = model.initial
        self._bound = configurations_max
        self._ends_s = ends_s
        completed = [operation for operation in operations if operation.outcome not in (FAIL, INFO)]
        self._completed_count = len(completed)
        self._open = sorted(
            (operation for operation in operations if operation.outcome == INFO and operation.function != READ),
            key=lambda operation: operation.invoked_ns,
        )
        self._open_began_ns = [operation.invoked_ns for operation in self._open]
        self._open_bits = [1 << (self._completed_count + position) for position in range(len(self._open))]
        self._twin_bits = self._twins()
        self._head = self._linked(completed)
        # One frame per operation taken: how to go on when it turns out wrong.
        self._stack: list[tuple[_Entry | None, int, Any, int, Any]] = []
        self._taken = 0
        self._before_open: Any = _NOT_AFTER_OPEN
        self._best: list[Operation] = []
        self._best_count = -1
        self._best_blocked: Operation | None = None

    def _twins(self) -> list[int]:
        """For each open operation the bit of the one with the same effect that has to be taken before it; 0 for none."""
        last: dict[Hashable, int] = {}
        twins = []
        for operation, bit in zip(self._open, self._open_bits, strict=True):
            effect = self._effect(operation)
            twins.append(last.get(effect, 0))
            last[effect] = bit
        return twins

    @staticmethod
    def _linked(completed: Sequence[Operation]) -> _Entry:
        entries = []
        for position, operation in enumerate(completed):
            returned = _Entry(operation.completed_ns, operation, 0, None)
            entries.append((operation.completed_ns, 1, returned))
            entries.append((operation.invoked_ns, 0, _Entry(operation.invoked_ns, operation, 1 << position, returned)))
        # At equal times calls come first: the two are then taken as concurrent, which accuses nobody wrongly.
        entries.sort(key=lambda item: item[:2])
        head = last = _Entry(-1, None, 0, None)
        for _, _, entry in entries:
            last.next, entry.previous = entry, last
            last = entry
        return head

    def run(self) -> Analysis:
        """Depth first, without recursion: histories are longer than Python's stack."""
        cache: set[tuple[int, Any]] = set()
        entry, position = self._head.next, -1
        while self._head.next is not None:
            found = self._next_completed(entry, cache) if position < 0 else None
            if found is None:
                position = self._next_open(max(position, 0), cache)
            if found is not None or position >= 0:
                entry, position = self._head.next, -1
                if len(cache) >= self._bound or (len(cache) & 0xFFF == 0 and monotonic() > self._ends_s):
                    return Analysis(None, len(cache), self._best, self._best_blocked)
                continue
            self._remember()
            if not self._stack:
                return Analysis(False, len(cache), self._best, self._best_blocked)
            entry, position = self._back()
        return Analysis(True, len(cache), self._order())

    def _next_completed(self, entry: _Entry | None, cache: set[tuple[int, Any]]) -> _Entry | None:
        """Takes the first call from `entry` on that fits; None when a return is met first."""
        step, state, before_open = self._step, self._state, self._before_open
        while entry is not None and entry.match is not None:
            assert entry.operation is not None, "only the head has none"
            fits, after = step(state, entry.operation)
            if fits and before_open is not _NOT_AFTER_OPEN:
                fits = step(before_open, entry.operation) != (True, after)
            if fits:
                taken = self._taken | entry.bit
                if (taken, after) not in cache:
                    cache.add((taken, after))
                    self._stack.append((entry, -1, state, self._taken, before_open))
                    self._taken, self._state, self._before_open = taken, after, _NOT_AFTER_OPEN
                    _lift(entry)
                    return entry
            entry = entry.next
        return None

    def _next_open(self, position: int, cache: set[tuple[int, Any]]) -> int:
        """Takes the first open operation from `position` on that changes something; -1 when there is none."""
        step, state, before_open, taken_before = self._step, self._state, self._before_open, self._taken
        count = bisect_left(self._open_began_ns, self._first_return_ns() + 1)
        while position < count:
            bit, twin_bit = self._open_bits[position], self._twin_bits[position]
            if not taken_before & bit and (not twin_bit or taken_before & twin_bit):
                operation = self._open[position]
                fits, after = step(state, operation)
                if fits and after != state:
                    useless = before_open is not _NOT_AFTER_OPEN and step(before_open, operation) == (True, after)
                    if not useless and (taken_before | bit, after) not in cache:
                        cache.add((taken_before | bit, after))
                        self._stack.append((None, position, state, taken_before, before_open))
                        self._taken, self._state, self._before_open = taken_before | bit, after, state
                        return position
            position += 1
        return -1

    def _first_return_ns(self) -> int:
        entry = self._head.next
        while entry is not None and entry.match is not None:
            entry = entry.next
        assert entry is not None, "every call has its return behind it"
        return entry.time_ns

    def _back(self) -> tuple[_Entry | None, int]:
        """Undoes the last step; where to go on from there."""
        entry, position, self._state, self._taken, self._before_open = self._stack.pop()
        if entry is None:
            return None, position + 1
        _unlift(entry)
        return entry.next, -1

    def _order(self) -> list[Operation]:
        order = []
        for entry, position, *_ in self._stack:
            operation = entry.operation if entry is not None else self._open[position]
            assert operation is not None, "the head is never taken"
            order.append(operation)
        return order

    def _remember(self) -> None:
        """The deepest dead end is what people want to see."""
        if len(self._stack) > self._best_count:
            self._best_count = len(self._stack)
            self._best = self._order()
            entry = self._head.next
            while entry is not None and entry.match is not None:
                entry = entry.next
            self._best_blocked = entry.operation if entry is not None else None


def _lift(entry: _Entry) -> None:
    """Takes a call and its return out of the list."""
    for member in (entry, entry.match):
        assert member is not None, "a call has its return"
        member.previous.next = member.next
        if member.next is not None:
            member.next.previous = member.previous


def _unlift(entry: _Entry) -> None:
    """Puts them back, in the opposite order."""
    for member in (entry.match, entry):
        assert member is not None, "a call has its return"
        member.previous.next = member
        if member.next is not None:
            member.next.previous = member


def analyse(
    operations: Sequence[Operation],
    model: Model,
    *,
    configurations_max: int = CONFIGURATIONS_MAX,
    seconds_max: float = 60.0,
) -> Analysis:
    """One object's history. The operations may come in any order."""
    if model.prepare is not None:
        model = model.prepare(operations)
    return _Search(operations, model, configurations_max, monotonic() + seconds_max).run()


def by_key(operations: Iterable[Operation]) -> dict[str, list[Operation]]:
    """The history cut into those of its objects."""
    parts: defaultdict[str, list[Operation]] = defaultdict(list)
    for operation in operations:
        parts[operation.key].append(operation)
    return dict(parts)


def check_linearizable(
    operations: Iterable[Operation],
    model: Model,
    *,
    configurations_max: int = CONFIGURATIONS_MAX,
    seconds_max: float = 60.0,
) -> Verdict:
    """All keys; the verdict's evidence is that of the first key that has no explanation. `seconds_max` is for all together."""
    verdict = Verdict(f"linearizable {model.name}")
    ends_s = monotonic() + seconds_max
    keys, count, configurations = 0, 0, 0
    for key, part in by_key(operations).items():
        left_s = max(0.1, ends_s - monotonic())
        analysis = analyse(part, model, configurations_max=configurations_max, seconds_max=left_s)
        keys, count, configurations = keys + 1, count + len(part), configurations + analysis.configurations
        if analysis.linearizable is None:
            verdict.doubt(f"{key}: not decided after {analysis.configurations} configurations")
        elif not analysis.linearizable:
            assert analysis.blocked is not None, "an impossible history has an operation that fits nowhere"
            verdict.accuse(f"{key}: no order explains {analysis.blocked}", evidence_of(analysis))
    verdict.detail = f"{count} operations on {keys} keys, {configurations} configurations"
    return verdict


def evidence_of(analysis: Analysis) -> list[Operation]:
    """The last operations that could be ordered, and the one that could not."""
    tail = analysis.order[-EVIDENCE_BEFORE:]
    return tail if analysis.blocked is None or analysis.blocked in tail else [*tail, analysis.blocked]

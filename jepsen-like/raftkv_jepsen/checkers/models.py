"""The sequential objects that a linearizable history must look like: what each operation does when nobody else is there.

A model is a pure step function on an immutable, hashable state. An open operation has no result to compare: its step is taken
with whatever it would have answered. Values are those of the history file: text, numbers, None, lists.
"""

from typing import Any, Callable, Final, Hashable, Mapping, NamedTuple, Sequence, TypeAlias

from raftkv_jepsen.history import OK, Operation

State: TypeAlias = Hashable

READ, WRITE, CAS, DELETE = "read", "write", "cas", "delete"
INCREMENT, APPEND, TXN = "increment", "append", "txn"
CLOSE, OPEN, WAIT = "close", "open", "wait"


class Model(NamedTuple):
    """`step` returns whether the operation could have answered so in this state, and the state after it.

    `prepare` may look at all operations on an object first and return a model that says no earlier, never more often.
    """

    name: str
    initial: State
    step: Callable[[Any, Operation], tuple[bool, Any]]
    prepare: "Callable[[Sequence[Operation]], Model] | None" = None
    effect: Callable[[Operation], Hashable] = lambda operation: f"{operation.function} {operation.argument!r}"
    """Operations of equal effect are interchangeable as long as nobody knows their results."""


def _register(state: Any, operation: Operation) -> tuple[bool, Any]:
    """read -> value or None; write value; cas [expected or None, value] -> bool; delete -> count."""
    function, done = operation.function, operation.outcome == OK
    if function == READ:
        return not done or operation.result == state, state
    if function == WRITE:
        return True, operation.argument
    if function == CAS:
        expected, value = operation.argument
        succeeds = state == expected
        return not done or operation.result == succeeds, value if succeeds else state
    assert function == DELETE, function
    return not done or operation.result == (state is not None), None


def _counter(state: Any, operation: Operation) -> tuple[bool, Any]:
    """read -> number (None: missing, 0); increment delta -> the new number."""
    done = operation.outcome == OK
    if operation.function == READ:
        return not done or (operation.result or 0) == state, state
    assert operation.function == INCREMENT, operation.function
    value = state + operation.argument
    return not done or operation.result == value, value


def _appends(state: Any, operation: Operation) -> tuple[bool, Any]:
    """read -> the items as a list (None: missing, empty); append item -> how many items there are then, or None if not told."""
    done = operation.outcome == OK
    if operation.function == READ:
        return not done or tuple(operation.result or ()) == state, state
    assert operation.function == APPEND, operation.function
    items = (*state, operation.argument)
    return not done or operation.result is None or operation.result == len(items), items


def _prepare_appends(operations: Sequence[Operation]) -> Model:
    """The longest list that was read has every other one as prefix, so it gives the order of its items; nobody saw what came behind.

    The state is therefore a count of items, and an append that is not the next known item has no place yet.
    """
    reads = (done.result or () for done in operations if done.function == READ and done.outcome == OK)
    known = list(max(reads, key=len, default=()))
    seen = {repr(item) for item in known}

    def step(count: int, operation: Operation) -> tuple[bool, Any]:
        done = operation.outcome == OK
        if operation.function == READ:
            return not done or (count <= len(known) and known[:count] == list(operation.result or ())), count
        fits = not done or operation.result is None or operation.result == count + 1
        return fits and (count >= len(known) or known[count] == operation.argument), count + 1

    def effect(operation: Operation) -> Hashable:
        return repr(operation.argument) if repr(operation.argument) in seen else None

    return Model(APPENDS.name, 0, step, effect=effect)


def _transactions(state: Any, operation: Operation) -> tuple[bool, Any]:
    """Several keys at once: argument {"if": {key: expected}, "write": {key: value}}, result [succeeded, {key: value read}].

    The reads are those of all the group's keys, taken before the writes. A plain read has no "write".
    The state is a sorted tuple of (key, value): small groups only.
    """
    assert operation.function in (TXN, READ), operation.function
    held = dict(state)
    argument: Mapping[str, Any] = operation.argument or {}
    succeeds = all(held.get(key) == expected for key, expected in argument.get("if", {}).items())
    if operation.outcome == OK:
        succeeded, read = operation.result
        if succeeded != succeeds or any(held.get(key) != value for key, value in read.items()):
            return False, state
    if not succeeds or not argument.get("write"):
        return True, state
    return True, tuple(sorted({**held, **argument["write"]}.items()))


def _gate(closed: Any, operation: Operation) -> tuple[bool, Any]:
    """close -> whether it was open; open -> whether it was closed; read -> whether it is closed; wait -> only while it is open."""
    function, done = operation.function, operation.outcome == OK
    if function == CLOSE:
        return not done or operation.result == (not closed), True
    if function == OPEN:
        return not done or operation.result == closed, False
    if function == WAIT:
        return not (done and closed), closed
    assert function == READ, function
    return not done or operation.result == closed, closed


REGISTER: Final = Model("register", None, _register)
COUNTER: Final = Model("counter", 0, _counter)
APPENDS: Final = Model("appends", (), _appends, _prepare_appends)
GATE: Final = Model("gate", False, _gate)
TRANSACTIONS: Final = Model("transactions", (), _transactions)

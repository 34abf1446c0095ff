"""Sets: an acknowledged element is in every later read, a refused one in none, and nobody sees what nobody added."""

from typing import Final, Iterable

from raftkv_jepsen.checkers.linearizability import by_key
from raftkv_jepsen.checkers.models import READ
from raftkv_jepsen.checkers.verdict import Verdict
from raftkv_jepsen.history import FAIL, OK, Operation

ADD: Final = "add"


def check_sets(operations: Iterable[Operation]) -> Verdict:
    """Elements are added once at most. An element that one read saw is in every read that began after that one ended."""
    verdict = Verdict("sets")
    reads_count = elements_count = 0
    for key, part in by_key(operations).items():
        adds = {operation.argument: operation for operation in part if operation.function == ADD}
        reads = [operation for operation in part if operation.function == READ and operation.outcome == OK]
        known_ns = {element: add.completed_ns for element, add in adds.items() if add.outcome == OK}
        for read in sorted(reads, key=lambda operation: operation.completed_ns):
            held = set(read.result)
            if len(held) != len(read.result):
                verdict.accuse(f"{key}: an element twice: {read}", [read])
            for element in read.result:
                add = adds.get(element)
                if add is None:
                    verdict.accuse(f"{key}: nobody added {element}: {read}", [read])
                elif add.outcome == FAIL:
                    verdict.accuse(f"{key}: {element} was refused and is there: {add}", [add, read])
                elif add.invoked_ns > read.completed_ns:
                    verdict.accuse(f"{key}: {element} was read before it was added: {add}", [add, read])
                known_ns[element] = min(known_ns.get(element, read.completed_ns), read.completed_ns)
            lost = [element for element, at_ns in known_ns.items() if at_ns < read.invoked_ns and element not in held]
            if lost:
                evidence = [adds[element] for element in lost[:5] if element in adds]
                verdict.accuse(f"{key}: {len(lost)} elements are missing, the first {lost[0]}", [*evidence, read])
        reads_count, elements_count = reads_count + len(reads), elements_count + len(adds)
    verdict.detail = f"{elements_count} elements, {reads_count} reads"
    return verdict

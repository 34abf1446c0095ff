"""The promises of a watch, each from what its watcher heard and what the writers were told.

Ordered and unique: revisions only rise. Atomic: a revision comes whole, all its changes in one piece. Gap-free: what was acknowledged at a
revision that the watcher is past was heard. Honest: nothing that nobody wrote or that was refused; the previous value is the one before.
Bookmarkable: after "everything up to R was heard" nothing at or below R follows. And two watchers heard the same of a revision.
"""

from typing import Any, Final, Iterable, Sequence

from raftkv_jepsen.checkers.models import TXN, WRITE
from raftkv_jepsen.checkers.verdict import Verdict
from raftkv_jepsen.history import FAIL, OK, Operation

HEAR: Final = "hear"
"""argument: the revision from which the watcher heard (None: the first); result: revision and changes."""

Heard = dict[int, list[Any]]


def check_watches(operations: Iterable[Operation]) -> Verdict:
    """The operations of one prefix that is watched as a whole."""
    verdict = Verdict("watches")
    watchers: dict[str, list[Operation]] = {}
    writes: list[Operation] = []
    for operation in operations:
        if operation.function == HEAR:
            watchers.setdefault(operation.key, []).append(operation)
        elif operation.function in (WRITE, TXN):
            writes.append(operation)
    author = {(key, value): write for write in writes for key, value in _changes_of(write).items()}
    agreed: Heard = {}
    late = 0
    for name, heard in watchers.items():
        first = heard[0].argument or 1
        late += first > 1
        events, last = _hear_in_order(verdict, name, heard)
        _check_honesty(verdict, name, events, author)
        _check_previous(verdict, name, events)
        _check_gaps(verdict, name, events, range(first, last + 1), writes)
        for revision, changes in events.items():
            told = sorted(change[:3] for change in changes)
            if agreed.setdefault(revision, told) != told:
                verdict.accuse(f"{name}: revision {revision} is {told}, another watcher heard {agreed[revision]}")
    verdict.detail = (
        f"{len(watchers) - late} watchers, {sum(map(len, watchers.values()))} batches, {len(writes)} writes"
    )
    if late:
        verdict.detail += f", begun anew behind a compaction: {late}"
    return verdict


def _changes_of(write: Operation) -> dict[str, str]:
    return {write.key: write.argument} if write.function == WRITE else dict(write.argument)


def _hear_in_order(verdict: Verdict, name: str, heard: Sequence[Operation]) -> tuple[Heard, int]:
    """The events by revision, and up to where everything was heard."""
    events: Heard = {}
    last = bookmark = 0
    for operation in heard:
        revision, changes = operation.result
        if not changes:
            bookmark = max(bookmark, revision)
            continue
        if revision <= last:
            verdict.accuse(f"{name}: revision {revision} after {last}", heard[-6:])
        elif revision <= bookmark:
            verdict.accuse(f"{name}: revision {revision} after everything up to {bookmark} was said to be heard")
        events.setdefault(revision, []).extend(changes)
        last = max(last, revision)
    return events, max(last, bookmark)


def _check_honesty(verdict: Verdict, name: str, events: Heard, author: dict[tuple[str, str], Operation]) -> None:
    for revision, changes in events.items():
        for kind, key, value, _ in changes:
            write = author.get((key, value)) if kind == "put" else None
            if write is None:
                verdict.accuse(f"{name}: revision {revision} is {kind} {key} {value}, which nobody asked for")
            elif write.outcome == FAIL:
                verdict.accuse(f"{name}: revision {revision} is a write that was refused: {write}", [write])
            elif write.outcome == OK and write.result != revision:
                verdict.accuse(f"{name}: {write} was acknowledged at {write.result}, heard at {revision}", [write])
            elif {change[1] for change in changes} != set(_changes_of(write)):
                verdict.accuse(f"{name}: revision {revision} came in part: {changes} of {write}", [write])


def _check_previous(verdict: Verdict, name: str, events: Heard) -> None:
    held: dict[str, str] = {}
    for revision in sorted(events):
        for _, key, value, previous in events[revision]:
            if previous is not None and key in held and previous != held[key]:
                verdict.accuse(f"{name}: before revision {revision} {key} was {held[key]}, not {previous}")
            held[key] = value


def _check_gaps(verdict: Verdict, name: str, events: Heard, told: range, writes: Sequence[Operation]) -> None:
    missed = [write for write in writes if write.outcome == OK and write.result in told and write.result not in events]
    if missed:
        words = f"{name}: {len(missed)} acknowledged writes were never heard, up to revision {told[-1]}"
        verdict.accuse(words, missed[:6])

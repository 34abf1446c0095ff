"""`python -m tests.sim --bugs`: the test of the tests. Every planted bug has to be caught, and by the bug's doing alone.

A bug is run over seeds, or through its script, until a promise is seen broken or an invariant of the code itself speaks up; then
the same seed or script is run with the right code and has to pass, or the catch would prove nothing.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from raftkv.errors import Corruption

from .checks import Violation
from .planted import consensus, data, digests, disk, leases, membership, pools, reads, store, users, writes
from .planted.registry import BUGS, Bug
from .planted.stage import Stage

Tell = Callable[[str], None]

FIRST_SEED = 1
TEXT_MAX = 110


@dataclass(slots=True)
class Catch:
    """What became of one bug. `seeds` is 0 for a script; `how` is empty when it went unseen."""

    how: str
    seeds: int
    events: int
    seconds: float


class FalseAlarm(Exception):
    """What caught the bug also objects to the right code."""


def run_bug(bug: Bug, first_seed: int = FIRST_SEED, tell: Tell | None = None) -> Catch:
    """Plant it and look until it is seen. Raises FalseAlarm, and whatever else a mistake in the bug itself raises."""
    started = time.perf_counter()
    catch = _play(bug, tell) if bug.story is not None else _run_seeds(bug, first_seed, tell)
    catch.seconds = time.perf_counter() - started
    return catch


def _run_seeds(bug: Bug, first_seed: int, tell: Tell | None) -> Catch:
    events = 0
    for number in range(bug.seeds_max):
        world = bug.world(first_seed + number, tell)
        with bug.plant():
            how = _objection(world.run)
        events += world.events
        if how:
            clean = bug.world(first_seed + number)
            objection = _objection(clean.run)
            if objection:
                raise FalseAlarm(f"{bug.name}: seed {world.seed} fails without the bug, too: {objection}")
            return Catch(how, number + 1, events, 0.0)
    return Catch("", bug.seeds_max, events, 0.0)


def _play(bug: Bug, tell: Tell | None) -> Catch:
    story = bug.story
    assert story is not None, "a bug with a script"
    stage = Stage(tell)
    with bug.plant():
        how = _objection(lambda: story(stage))
    clean = Stage()
    objection = _objection(lambda: story(clean))
    if objection:
        raise FalseAlarm(f"{bug.name}: its script fails without the bug, too: {objection}")
    return Catch(how, 0, stage.world.events, 0.0)


def _objection(run: Callable[[], None]) -> str:
    """What the checks or the code itself say against this run; empty when it passes."""
    try:
        run()
    except Violation as error:
        return f"check: {_first_line(error)}"
    except AssertionError as error:
        return f"invariant: {_first_line(error)}"
    except Corruption as error:
        return f"corruption: {error.message}"
    return ""


def _first_line(error: AssertionError) -> str:
    return str(error).partition("\n")[0]


def run_all(words: list[str], first_seed: int, *, trace: bool = False) -> int:
    """All bugs, or those whose names hold one of the words; one line each. Exit code 1 when one went unseen or was caught for nothing."""
    chosen = [bug for name, bug in BUGS.items() if not words or any(word in name for word in words)]
    caught = 0
    for bug in chosen:
        try:
            catch = run_bug(bug, first_seed, print if trace else None)
        except FalseAlarm as alarm:
            print(f"FALSE   {alarm}", flush=True)
            continue
        caught += bool(catch.how)
        where = f"seed {catch.seeds}" if catch.seeds else "script"
        how = catch.how or f"NOBODY NOTICES. {bug.wrong}; this breaks: {bug.breaks}"
        print(
            f"{'caught' if catch.how else 'MISSED':7} {bug.name:45} {where:>9} {catch.events:>8} events"
            f" {catch.seconds:6.2f} s  {how if not catch.how else how[:TEXT_MAX]}",
            flush=True,
        )
    print(f"caught {caught} of {len(chosen)}")
    return 0 if caught == len(chosen) else 1


__all__ = [
    "BUGS",
    "Catch",
    "FalseAlarm",
    "consensus",
    "data",
    "digests",
    "disk",
    "leases",
    "pools",
    "membership",
    "reads",
    "run_all",
    "run_bug",
    "store",
    "users",
    "writes",
]

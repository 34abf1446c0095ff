"""The harness must bite: every planted bug (testbuild/bugs.py) is run under the faults that bring it to light, and must be found INVALID.

By the checker whose business it is, not by a crash on the way: a bug that is only caught because something else broke is not caught. Runs are
short and repeated with other seeds; a bug that stays unseen in all of them fails the self-test, and so does a healthy daemon that is accused.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

from raftkv_jepsen.checkers.verdict import INVALID, VALID
from raftkv_jepsen.options import Options
from raftkv_jepsen.report.page import write_report
from raftkv_jepsen.runner import Result, run

TRIES: Final = 3
HEALTHY: Final = ""


class Case(NamedTuple):
    """A bug, what brings it to light, and whose business it is (the beginning of a checker's name)."""

    bug: str
    nemesis: tuple[str, ...]
    workloads: tuple[str, ...]
    accuser: str
    time_s: float = 12.0
    small_log: bool = True
    rate: float = 150.0


CASES: Final = (
    Case("stale-reads", ("partition-deaf", "pause"), ("register",), "register: linearizable"),
    Case("early-acknowledgement", ("kill-all",), ("register", "sets"), "", time_s=14.0, small_log=False, rate=300.0),
    Case("dropped-sessions", ("partition-answers",), ("counter",), "counter: "),
    Case("unfenced", ("none",), ("locks",), "locks: fencing"),
    Case("skipping-watch", ("kill", "pause"), ("watch",), "watch: watches"),
    Case("forgetful-leases", ("none",), ("leases",), "leases: leases"),
    Case("generous-pool", ("none",), ("pool",), "pool: capacity"),
    Case("stale-users", ("none",), ("auth",), "auth: "),
    Case("old-passwords", ("none",), ("auth",), "auth: "),
    Case("open-ears", ("none",), ("auth",), "auth: nobody is let in", time_s=20.0, rate=300.0),
    Case("crowded-office", ("none",), ("elections",), "elections: mutual exclusion"),
    Case("hasty-waits", ("none",), ("gates",), "gates: linearizable"),
    Case("hasty-waits", ("none",), ("rendezvous",), "rendezvous: meetings"),
    Case("blind-compares", ("none",), ("transactions",), "transactions: linearizable"),
    Case("blind-compares", ("none",), ("queue",), "queue: queue"),
    Case("blind-compares", ("none",), ("jobs",), "jobs: queue"),
    Case("uncounted-increments", ("none",), ("ranks",), "ranks: "),
    Case("lock-without-recheck", ("none",), ("locks",), "locks: mutual exclusion"),
    Case("weightless-semaphore", ("none",), ("semaphore",), "semaphore: capacity"),
)


def self_test(given: argparse.Namespace) -> int:
    """The exit code: 0 when all were found and the healthy one was not accused."""
    seed = given.seed if given.seed is not None else 1
    out = (given.out or Path(tempfile.mkdtemp(prefix="raftkv-jepsen-self-"))).absolute()
    missed = []
    # The client's bug stays planted in this process: it comes last, and the healthy one first.
    healthy = run_case(Case(HEALTHY, ("kill", "partition"), ("all",), ""), seed, out / "healthy", given)
    print(f"healthy: {healthy.word}")
    if healthy.word != VALID:
        missed.append(f"a healthy cluster was accused, see {out / 'healthy'}")
    for case in CASES:
        found = None
        for turn in range(TRIES):
            result = run_case(case, seed + turn, out / f"{case.bug}-{case.workloads[0]}-{turn}", given)
            found = accusation(result, case)
            if found:
                break
        print(f"{case.bug}, {'+'.join(case.workloads)}: {f'INVALID, {found}' if found else 'NOT FOUND'}", flush=True)
        if not found:
            missed.append(case.bug)
    print(f"self-test: {'all found' if not missed else 'failed: ' + ', '.join(missed)}; {out}")
    return 1 if missed else 0


def run_case(case: Case, seed: int, out: Path, given: argparse.Namespace) -> Result:
    """One run, with its report."""
    options = Options(
        time_s=case.time_s,
        seed=seed,
        nemesis=case.nemesis,
        workloads=case.workloads,
        out=out,
        rate=case.rate,
        clients=24 if case.bug == HEALTHY else 8,
        machines=given.machines,
        bug=case.bug,
        small_log=case.small_log,
    )
    result = run(options)
    write_report(result, out)
    return result


def accusation(result: Result, case: Case) -> str:
    """What was found; empty when nothing, or only by others."""
    if result.word != INVALID:
        return ""
    for verdict in result.verdicts:
        is_data = ": " in verdict.checker or verdict.checker == "revisions"
        if verdict.word == INVALID and is_data and verdict.checker.startswith(case.accuser):
            return f"{verdict.checker}: {verdict.faults[0]}"[:200]
    return ""

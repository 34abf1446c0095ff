"""The command line of the harness: `python jepsen-like --time 60 --nemesis all`. One verdict line at the end, exit code 1 on INVALID.

Exit codes: 0 valid, 1 INVALID, 2 usage, 3 unknown (the checkers could not decide, or Ctrl-C), 4 the harness itself broke.
"""

import argparse
import json
import signal
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NoReturn, Sequence

from raftkv_jepsen.beside import SUMMARY
from raftkv_jepsen.checkers.verdict import INVALID, UNKNOWN, VALID
from raftkv_jepsen.options import COMPOSE, ENGINES, MACHINES, NAMESPACES, NATIVE, PROXIES, Options
from raftkv_jepsen.report.page import write_report
from raftkv_jepsen.runner import Result, run

EXITS: Final = {VALID: 0, INVALID: 1, UNKNOWN: 3}
USAGE: Final = 2
BROKEN: Final = 4
INTERRUPTED: Final = 130


def parser() -> argparse.ArgumentParser:
    """Documented in docs/fault-testing.md."""
    known = argparse.ArgumentParser(prog="python jepsen-like", description="Try to break a raftkv cluster.")
    known.add_argument("--time", type=float, default=60.0, metavar="S", help="seconds of load and faults")
    known.add_argument("--nemesis", default="all", help="faults or groups of them, by commas; all, none")
    known.add_argument("--workload", default="all", help="workloads, by commas; all")
    known.add_argument("--nodes", type=int, default=3, choices=(3, 5))
    known.add_argument("--seed", type=int, default=None, help="of faults and clients; drawn and printed by default")
    known.add_argument("--out", type=Path, default=None, help="folder for history, report and logs")
    known.add_argument("--rate", type=float, default=150.0, help="operations per second, of all clients")
    known.add_argument("--clients", type=int, default=30)
    known.add_argument("--engine", choices=ENGINES, default=NATIVE, help="what is run, by which clients")
    known.add_argument("--beside", choices=ENGINES, help="the same run again with another engine, figures side by side")
    known.add_argument("--machines", choices=MACHINES, default=NAMESPACES, help="where the nodes live")
    known.add_argument("--loopback", dest="machines", action="store_const", const=PROXIES, help="--machines proxies")
    known.add_argument("--list", action="store_true", help="name all faults and workloads")
    known.add_argument("--check", type=Path, metavar="FOLDER", help="judge the history of an earlier run again")
    known.add_argument("--self-test", action="store_true", help="deliberately broken daemons must be found INVALID")
    return known


def options_of(given: argparse.Namespace) -> Options:
    """Raises ValueError."""
    seed = given.seed if given.seed is not None else int(datetime.now(UTC).timestamp()) % 1_000_000
    out = given.out or Path("jepsen-runs") / datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    if given.time <= 0 or given.rate <= 0 or given.clients < 2:
        raise ValueError("--time and --rate are above 0, --clients at least 2")
    return Options(
        time_s=given.time,
        nodes=given.nodes,
        seed=seed,
        nemesis=tuple(given.nemesis.split(",")),
        workloads=tuple(given.workload.split(",")),
        out=out.absolute(),
        rate=given.rate,
        clients=given.clients,
        machines=given.machines,
        recovery_s=60.0 if given.machines == COMPOSE else 30.0,  # an engine has its own time to start a container
        engine=given.engine,
    )


def main(arguments: Sequence[str]) -> int:
    """The exit code."""
    given = parser().parse_args(arguments)
    if given.list:
        return _list()
    if given.check is not None:
        from raftkv_jepsen.again import check_again

        try:
            return EXITS[check_again(given.check)]
        except (OSError, ValueError, KeyError) as error:
            print(f"python jepsen-like: there is no history in {given.check}: {error}", file=sys.stderr)
            return USAGE
    if given.self_test:
        from raftkv_jepsen.selftest import self_test

        return self_test(given)
    try:
        options = options_of(given)
        options.out.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError) as error:
        print(f"python jepsen-like: {error}", file=sys.stderr)
        return USAGE
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        result = run(options)
    except ValueError as error:
        print(f"python jepsen-like: {error}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:  # a second one, while the first was obeyed
        print(f"interrupted: what there is stands in {options.out}")
        return INTERRUPTED
    except Exception:
        traceback.print_exc()
        print("the harness broke: nothing is known about the cluster")
        return BROKEN
    if given.beside is not None and result.is_whole:
        from raftkv_jepsen.beside import run_beside

        result.beside = {given.beside: run_beside(options, given.beside)}
    tell(result)
    return EXITS[result.word]


def tell(result: Result) -> None:
    """Findings, where they are written down, and the verdict as the last line."""
    write_report(result, result.options.out)
    (result.options.out / SUMMARY).write_text(json.dumps(result.summary(), indent=1) + "\n")
    for name, reason in [*result.skipped_workloads.items(), *result.skipped.items()]:
        print(f"skipped {name}: {reason}")
    for verdict in result.verdicts:
        print(f"{verdict.word:8} {verdict.checker}  {verdict.detail}".rstrip())
        for fault in verdict.faults[:5]:
            print(f"         {fault}")
    print(f"seed {result.options.seed}; {result.options.out}/report.html")
    print(result.line())


def _list() -> int:
    from raftkv_jepsen.nemesis.catalogue import KINDS
    from raftkv_jepsen.workloads.catalogue import WORKLOADS

    print("workloads: " + ", ".join(WORKLOADS))
    for kind in KINDS:
        words = (kind.inject.__doc__ or "").strip().splitlines()
        print(f"{kind.group:12} {kind.name:24} {words[0] if words else ''}".rstrip())
    return 0


def entry() -> NoReturn:
    """For __main__.py."""
    sys.exit(main(sys.argv[1:]))

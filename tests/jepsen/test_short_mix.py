"""A short mix of everything, on real processes: the harness's own verdict, and the proof that the same harness would have said no."""

from pathlib import Path

import pytest

from raftkv_jepsen.checkers.verdict import VALID
from raftkv_jepsen.options import NAMESPACES, PROXIES, Options
from raftkv_jepsen.report.page import NAME, write_report
from raftkv_jepsen.runner import Result, run
from raftkv_jepsen.selftest import CASES, accusation
from raftkv_jepsen.workloads.catalogue import WORKLOADS

pytestmark = pytest.mark.integration

STALE = next(case for case in CASES if case.bug == "stale-reads")
TRIES = 3


def told(result: Result) -> str:
    """Everything that a failure report needs."""
    faults = [f"{verdict.checker}: {fault}" for verdict in result.verdicts for fault in verdict.faults]
    return "\n".join([result.line(), f"seed {result.options.seed}, {result.options.out}", *faults])


@pytest.mark.parametrize(
    ("machines", "nemesis", "time_s"), [(NAMESPACES, "all", 40.0), (PROXIES, "kill,pause,partition", 15.0)]
)
def test_a_mix_of_faults_breaks_no_promise(tmp_path: Path, machines: str, nemesis: str, time_s: float) -> None:
    options = Options(time_s=time_s, seed=7, nemesis=tuple(nemesis.split(",")), out=tmp_path, machines=machines)
    result = run(options)
    assert result.word == VALID, told(result)
    assert result.faults, "nothing was injected"
    assert len({operation.key.split("/")[0] for operation in result.operations}) == len(WORKLOADS), (
        "a workload did nothing"
    )
    assert "<svg" in write_report(result, tmp_path).with_name(NAME).read_text()


def test_the_same_harness_finds_a_daemon_that_reads_stale(tmp_path: Path) -> None:
    for turn in range(TRIES):
        options = Options(
            time_s=STALE.time_s,
            seed=turn,
            nemesis=STALE.nemesis,
            workloads=STALE.workloads,
            out=tmp_path / str(turn),
            clients=8,
            bug=STALE.bug,
        )
        result = run(options)
        if accusation(result, STALE):
            return
    raise AssertionError(f"not found in {TRIES} runs\n{told(result)}")

"""The parts of the harness that need no cluster: the recorder, crash points, the link queue's wire, the page, the tables of names."""

import asyncio
import re
import struct
import time
from pathlib import Path
from typing import Any, Awaitable

import pytest

from raftkv.wal.disk import RealDisk, RealFile
from raftkv_jepsen.checkers.verdict import INVALID, VALID, Verdict
from raftkv_jepsen.clients.base import ClientError
from raftkv_jepsen.history import (
    FAIL,
    INFO,
    NEVER_NS,
    OK,
    Fault,
    HistoryWriter,
    Operation,
    read_faults,
    read_operations,
)
from raftkv_jepsen.machines import linkqueue
from raftkv_jepsen.main import options_of, parser
from raftkv_jepsen.nemesis import catalogue as faults
from raftkv_jepsen.nemesis import clocks
from raftkv_jepsen.options import Options
from raftkv_jepsen.recorder import Recorder
from raftkv_jepsen.report import plots
from raftkv_jepsen.report.figures import Figures
from raftkv_jepsen.report.page import page
from raftkv_jepsen.runner import Result
from raftkv_jepsen.selftest import CASES
from raftkv_jepsen.testbuild import bugs, clock, crashpoints
from raftkv_jepsen.workloads import catalogue as workloads

S = 1_000_000_000


async def answered(answer: Any) -> Any:
    if isinstance(answer, Exception):
        raise answer
    return answer


def performed(path: Path, function: str, call: Awaitable[Any]) -> Operation:
    history = HistoryWriter(path / "history.jsonl")
    operation = Operation(1, function, "register/0", 5)
    asyncio.run(run_one(Recorder(history), operation, call))
    history.close()
    (read_back,) = read_operations((path / "history.jsonl").read_text().splitlines())
    assert (read_back.outcome, read_back.result) == (operation.outcome, operation.result)
    return operation


async def run_one(recorder: Recorder, operation: Operation, call: Awaitable[Any]) -> None:
    await recorder.perform(operation, call)


@pytest.mark.parametrize(
    ("function", "answer", "outcome"),
    [
        ("write", 7, OK),
        ("write", ClientError("refused", may_have_happened=False), FAIL),
        ("write", ClientError("lost", may_have_happened=True), INFO),
        ("read", ClientError("lost", may_have_happened=True), FAIL),
    ],
)
def test_an_outcome_is_what_the_client_said(tmp_path: Path, function: str, answer: Any, outcome: str) -> None:
    operation = performed(tmp_path, function, answered(answer))
    assert operation.outcome == outcome
    assert (operation.completed_ns == NEVER_NS) == (outcome == INFO)


def test_faults_come_back_from_the_file(tmp_path: Path) -> None:
    history = HistoryWriter(tmp_path / "history.jsonl")
    first = history.fault_began("pause", "n1", 5)
    history.fault_began("kill", "n2", 6)
    history.fault_ended(first, 9)
    history.close()
    found = read_faults((tmp_path / "history.jsonl").read_text().splitlines())
    assert [(fault.name, fault.began_ns, fault.ended_ns) for fault in found] == [("pause", 5, 9), ("kill", 6, NEVER_NS)]


# Crash points.


@pytest.fixture
def deaths(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Dying is noted instead; the product's method is put back."""
    found: list[str] = []
    monkeypatch.setattr(crashpoints, "die", lambda: found.append("dead"))
    monkeypatch.setattr(RealFile, "pwritev", RealFile.pwritev)
    return found


@pytest.mark.parametrize("point", sorted(crashpoints.POINTS))
def test_every_point_is_a_step_of_the_product(point: str) -> None:
    owner, name, most = crashpoints._STEPS[point.rpartition(".")[0]]
    assert callable(getattr(owner, name))
    assert 0 < most <= crashpoints.POINTS[point]


def test_a_point_kills_at_its_time_and_not_before(tmp_path: Path, deaths: list[str]) -> None:
    crashpoints.arm("log.write.before:3")
    file = RealDisk().open(str(tmp_path / "file"), create=True)
    for number in range(2):
        file.pwritev([b"ab"], 2 * number)
    assert not deaths
    file.pwritev([b"ab"], 4)
    assert deaths == ["dead"]


def test_a_torn_write_leaves_its_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deaths: list[str]) -> None:
    class Died(Exception):
        pass

    def die() -> None:
        raise Died

    monkeypatch.setattr(crashpoints, "die", die)
    crashpoints.arm("log.write.torn:1")
    file = RealDisk().open(str(tmp_path / "file"), create=True)
    with pytest.raises(Died):
        file.pwritev([b"0123", b"456789"], 0)
    assert (tmp_path / "file").read_bytes() == b"012345"


@pytest.mark.parametrize("wanted", ["nowhere.before:1", "log.write.sideways:1", "log.write.before:x"])
def test_what_is_no_point_is_refused(wanted: str) -> None:
    with pytest.raises((KeyError, ValueError)):
        crashpoints.arm(wanted)


# The link queue's netlink.


def test_packets_are_taken_out_of_netlink_messages() -> None:
    attributes = [
        linkqueue.attribute(linkqueue.PACKET_HEADER, struct.pack(">IHB", 42, 0x800, 3)),
        linkqueue.attribute(linkqueue.PAYLOAD, b"hello"),
    ]
    data = linkqueue.message(linkqueue.PACKET, *attributes) + linkqueue.message(linkqueue.CONFIG)
    assert list(linkqueue.packets(data)) == [(42, b"hello")]
    assert list(linkqueue.packets(b"")) == []


# The page and the figures.


def made_up(tmp_path: Path, word: str) -> Result:
    operations = [
        Operation(1, "write", "register/0", 1, OK, 2, 0, 1 * S),
        Operation(2, "read", "register/0", None, OK, 9, 2 * S, 3 * S, node="<n1>"),
        Operation(1, "write", "register/0", 3, INFO, None, 4 * S, NEVER_NS, error="lost & gone"),
        Operation(2, "write", "register/0", 4, OK, 5, 7 * S, 8 * S),
    ]
    result = Result(Options(out=tmp_path), operations=operations, ended_ns=10 * S)
    verdict = Verdict("register: linearizable register")
    if word == INVALID:
        verdict.accuse("no order explains it <script>", operations[:2])
    result.verdicts = [verdict]
    history = HistoryWriter(tmp_path / "history.jsonl")
    history.fault_ended(history.fault_began("kill-all", "all", 3 * S), 6 * S)
    history.close()
    result.faults, result.skipped = history.faults, {"clock-jump": "libfaketime is not installed"}
    return result


@pytest.mark.parametrize("word", [VALID, INVALID])
def test_the_page_is_whole_and_needs_nothing_from_elsewhere(tmp_path: Path, word: str) -> None:
    text = page(made_up(tmp_path, word))
    assert word in text
    assert not re.search(r"(src|href)=|<script|@import|url\(", text)
    assert text.count("<svg") == text.count("</svg>") == (3 if word == INVALID else 2)
    assert "libfaketime is not installed" in text
    assert "kill-all" in text


def test_faults_that_overlap_stand_in_lanes_and_many_of_them_without_names() -> None:
    faults_ = [Fault("kill-leader", "n1", 10 * S, 12 * S), Fault("pause", "n2", 11 * S, 60 * S)]
    axes = plots.Axes(100, 0, 1)
    assert plots.lanes_of(faults_, axes, names=True) == [0, 1]
    assert plots.lanes_of([faults_[0], Fault("pause", "n2", 50 * S, 60 * S)], axes, names=True) == [0, 0]
    few = plots.latency_plot(Figures([], faults_, 100 * S))
    assert few.count(">kill-leader</text>") == few.count(">pause</text>") == 1
    many = [Fault("partition-minority", f"n{n}", 10 * S + n, 11 * S) for n in range(40)]
    crowded = plots.latency_plot(Figures([], many, 1000 * S))
    assert ">partition-minority</text>" not in crowded
    assert crowded.count("<title>partition-minority") == 40, "hovering tells"


def test_figures_of_a_fault(tmp_path: Path) -> None:
    result = made_up(tmp_path, VALID)
    assert result.line() == (
        "valid: 4 operations (3 ok, 0 refused, 1 unknown), 1 faults, longest unavailability 7.00 s"
    )
    (row,) = result.figures.under_faults()
    assert (row.name, row.times, row.gap_s, row.unknown) == ("kill-all", 1, 7.0, 1)
    assert Figures([], [], 5 * S).longest_gap_s == 5.0


# Names.


def test_names_are_unique_and_chosen_by_name_and_group() -> None:
    names = [kind.name for kind in faults.KINDS]
    assert len(set(names) | set(faults.GROUPS)) >= len(names)
    assert len(set(names)) == len(names)
    assert faults.chosen(["none"]) == []
    assert {kind.group for kind in faults.chosen(["power", "churn"])} == {"power", "membership"}
    assert len(faults.chosen(["all"])) == len(names)
    with pytest.raises(ValueError, match="no fault"):
        faults.chosen(["earthquake"])
    with pytest.raises(ValueError, match="no workload"):
        workloads.chosen(["nothing"])


def test_every_fault_workload_and_option_is_documented(project: Path) -> None:
    text = (project / "docs" / "fault-testing.md").read_text()
    wanted = [kind.name for kind in faults.KINDS] + list(workloads.WORKLOADS) + [case.bug for case in CASES]
    wanted += [option for action in parser()._actions for option in action.option_strings if option.startswith("--")]
    assert [name for name in wanted if name != "--help" and f"`{name}" not in text] == []


def test_every_planted_bug_has_its_case() -> None:
    assert {case.bug for case in CASES} == bugs.BUGS.keys() | bugs.CLIENT_BUGS.keys()


def test_options_are_checked() -> None:
    options = options_of(parser().parse_args(["--time", "5", "--nemesis", "kill,pause", "--seed", "9"]))
    assert (options.time_s, options.nemesis, options.seed) == (5.0, ("kill", "pause"), 9)
    with pytest.raises(ValueError, match="above 0"):
        options_of(parser().parse_args(["--time", "0"]))


# Clocks.


def test_the_test_build_moves_its_wall_clock_and_leaves_the_other_alone(tmp_path: Path) -> None:
    file = tmp_path / "clock"
    file.write_text("+3600")
    moved = clock.MovedClock(file)
    assert 3500 < moved.time() - time.time() < 3700
    file.write_text("half a numb")
    moved._read_at = 0.0
    assert 3500 < moved.time() - time.time() < 3700, "what is half written does not count"
    file.write_text("-60")
    moved._read_at = 0.0
    assert -70 < moved.time() - time.time() < -50


@pytest.mark.parametrize(("trial", "works"), [(clocks.TRIAL, True), ("raise OSError(22)", False)])
def test_a_clock_library_that_breaks_sleep_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trial: str, works: bool
) -> None:
    monkeypatch.setattr(clocks, "TRIAL", trial)
    monkeypatch.setattr(clocks, "LIBRARIES", (str(tmp_path),))
    monkeypatch.setattr(clocks, "environment", lambda library, file: {})
    assert bool(clocks.find_library()) is works

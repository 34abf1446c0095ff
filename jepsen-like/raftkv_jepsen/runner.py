"""One run from beginning to end: machines, clients, faults, healing, last looks, checkers, report. Returns what came of it."""

import random
import shutil
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Sequence

from raftkv_jepsen.checkers.members import check_agreement, check_crashes, check_logs
from raftkv_jepsen.checkers.verdict import Verdict, gravest
from raftkv_jepsen.clients.native import NativeClient
from raftkv_jepsen.history import Fault, HistoryWriter, Operation
from raftkv_jepsen.machines.native import ConnectionEnded
from raftkv_jepsen.nemesis import catalogue as faults
from raftkv_jepsen.nemesis.arena import Arena, Kind
from raftkv_jepsen.nemesis.schedule import Schedule
from raftkv_jepsen.options import ETCD, NATIVE, Options
from raftkv_jepsen.players import Players
from raftkv_jepsen.progress import Progress
from raftkv_jepsen.recorder import Recorder
from raftkv_jepsen.report.figures import Figures
from raftkv_jepsen.site import Site
from raftkv_jepsen.testbuild import bugs
from raftkv_jepsen.workloads import catalogue as workloads
from raftkv_jepsen.workloads.base import Workload

APPLIED_EQUAL_S = 30.0
BROKEN_OFF = "the run"


@dataclass(slots=True)
class Result:
    """All that a report needs."""

    options: Options
    verdicts: list[Verdict] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    skipped_workloads: dict[str, str] = field(default_factory=dict)
    beside: dict[str, Figures] = field(default_factory=dict)
    """Of the same run with other engines."""
    ended_ns: int = 0
    """When the faults were over."""

    @property
    def is_whole(self) -> bool:
        """Whether nobody broke it off."""
        return all(verdict.checker != BROKEN_OFF for verdict in self.verdicts)

    @property
    def word(self) -> str:
        return gravest(self.verdicts)

    @property
    def figures(self) -> Figures:
        return Figures(self.operations, self.faults, self.ended_ns)

    def summary(self) -> dict[str, Any]:
        """For scripts."""
        figures = self.figures
        return {
            "verdict": self.word,
            "line": self.line(),
            "engine": self.options.engine,
            "machines": self.options.machines,
            "seed": self.options.seed,
            "time_s": self.options.time_s,
            "ended_ns": self.ended_ns,
            "operations": figures.count,
            "faults": len(self.faults),
            "longest_unavailability_s": figures.longest_gap_s,
            "verdicts": [[verdict.checker, verdict.word, verdict.detail] for verdict in self.verdicts],
            "under_faults": [row._asdict() for row in figures.under_faults()],
            "skipped": {**self.skipped_workloads, **self.skipped},
        }

    def line(self) -> str:
        """The one line that a script reads."""
        figures = self.figures
        return (
            f"{self.word}: {figures.count} operations ({figures.ok} ok, {figures.failed} refused, {figures.unknown} unknown),"
            f" {len(self.faults)} faults, longest unavailability {figures.longest_gap_s:.2f} s"
        )


def run(options: Options) -> Result:
    """Raises ValueError for names that are none, and whatever breaks the harness itself."""
    kinds, classes = faults.chosen(options.nemesis), workloads.chosen(options.workloads)
    if options.bug in bugs.CLIENT_BUGS:
        bugs.CLIENT_BUGS[options.bug]()
    options.out.mkdir(parents=True, exist_ok=True)
    history = HistoryWriter(options.out / "history.jsonl")
    recorder = Recorder(history)
    result = Result(options)
    with Progress(recorder, options.time_s) as progress:
        groups = {kind.group for kind in kinds}
        site = Site(
            options,
            wants_disks=bool(groups & faults.DISK_GROUPS),
            wants_clocks="clock" in groups,
            say=progress.say,
        )
        try:
            with closing(history), site:
                try:
                    _play(options, site, recorder, kinds, classes, result, progress)
                finally:
                    _keep_logs(site, options.out)
        except KeyboardInterrupt:
            result.ended_ns = result.ended_ns or recorder.now_ns()
            result.verdicts.append(Verdict(BROKEN_OFF))
            result.verdicts[-1].doubt("it was broken off before its end: no healing, no last looks")
    result.operations, result.faults = history.operations, history.faults
    result.verdicts += workloads.judge(result.operations)
    return result


def _play(
    options: Options,
    site: Site,
    recorder: Recorder,
    kinds: Sequence[Kind],
    classes: Sequence[type[Workload]],
    result: Result,
    progress: Progress,
) -> None:
    site.cluster.start()
    site.ask_who_it_is()
    result.skipped_workloads = _lacking(options, classes)
    classes = [workload for workload in classes if workload.name not in result.skipped_workloads]
    players = Players(
        recorder,
        classes,
        site.make_client,
        [node.name for node in site.cluster.nodes],
        doors=site.make_doors(),
        clients=options.clients,
        rate=options.rate,
        seed=options.seed,
    )
    arena = Arena(
        cluster=site.cluster,
        network=site.network,
        draw=random.Random(options.seed),
        writes_ok=players.writes_ok,
        say=progress.say,
        directory=site.cluster.directory,
        disks=site.disks,
        clock_files=site.clock_files,
        no_disks=site.no_disks,
        no_clocks=site.no_clocks,
        lacks=site.lacks(),
        is_raftkv=options.engine != ETCD,
        login=options.login,
    )
    schedule = Schedule(arena, kinds, recorder, recovery_s=options.recovery_s)
    progress.say(f"{len(site.cluster.nodes)} nodes are ready, seed {options.seed}")
    players.start()
    began_s = time.monotonic()
    try:
        schedule.run(began_s + options.time_s)
        schedule.heal()
    except KeyboardInterrupt:
        progress.say("broken off: the nodes are ended")
        players.abandon()
        raise
    schedule.wait_healthy()
    result.ended_ns = recorder.now_ns()
    progress.say("all is healed: last looks")
    players.stop()
    result.skipped = schedule.skipped
    arena.look_for_crashes()
    result.verdicts += [schedule.recovery, check_crashes(arena.crashes), _concerns(players), _agreement(site)]
    if not arena.is_raftkv:
        return  # what etcd may say in its logs, others have to judge
    logs = {node.name: node.log_path.read_text(errors="replace") for node in site.cluster.nodes}
    result.verdicts.append(check_logs(logs, {kind.forgives for kind in schedule.used}))


def _lacking(options: Options, classes: Sequence[type[Workload]]) -> dict[str, str]:
    """Workloads that this engine cannot play, and what it lacks."""
    features = NativeClient.features if options.engine == NATIVE else frozenset()
    return {w.name: f"there are no {', no '.join(sorted(w.needs - features))}" for w in classes if w.needs - features}


def _concerns(players: Players) -> Verdict:
    verdict = Verdict("last looks")
    for concern in players.stage.concerns:
        verdict.accuse(concern)
    return verdict


def _agreement(site: Site) -> Verdict:
    """Nothing is written any more: every member's own store, asked without the others."""
    cluster = site.cluster
    dumps: dict[str, list[Any]] = {}
    digests: dict[str, tuple[int, int]] = {}
    try:
        cluster.wait_applied_equal(deadline_s=APPLIED_EQUAL_S)
        for node in cluster.nodes:
            dumps[node.name] = node.own_dump()
            status = node.status()
            assert status is not None, f"{node.name} does not answer"
            digests[node.name] = (int(status["applied_index"]), int(status["digest"]))
        if len({index for index, _ in digests.values()}) > 1:
            digests.clear()  # a lease or a session ran out in between: the dumps decide
    except (AssertionError, OSError, ConnectionEnded) as error:
        verdict = Verdict("agreement of all members")
        verdict.accuse(f"the members did not come to rest at one index: {error}")
        return verdict
    return check_agreement(dumps, digests)


def _keep_logs(site: Site, out: Path) -> None:
    for path in sorted(site.cluster.directory.glob("*.log")):
        shutil.copy(path, out / path.name)

"""The sections that need a fresh cluster for each round: puts, gets, txns (compare and put), open-loop latency, and the load of `etcdctl check perf`.

Each gives rows: {section, system, driver, load, round} and the figures of one measurement.
"""

import re
import subprocess
from dataclasses import asdict, dataclass
from typing import Any, Callable, Iterator

import etcd_cluster
from drivers.worker import Spec
from generator import Figures, measure
from processes import BenchError, Cluster, die_with_parent

Row = dict[str, Any]

GET_KEYS = 10_000
XL_IN_FLIGHT = 1_000
XL_KEY_BYTES = 256 + len("/etcdctl-check-perf/")
XL_VALUE_BYTES = 1024
XL_LIMIT_PER_SECOND = 15_000
XL_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Driver:
    """A client library and the number of processes that share its load; written NAME or NAME:PROCESSES."""

    name: str
    processes: int = 1

    @classmethod
    def parse(cls, text: str) -> "Driver":
        name, _, processes = text.partition(":")
        return cls(name, int(processes or 1))

    @property
    def system(self) -> str:
        return self.name.partition("-")[0]

    def __str__(self) -> str:
        return self.name if self.processes == 1 else f"{self.name}:{self.processes}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedPlan:
    """What to measure in the speed sections."""

    sections: tuple[str, ...]
    seconds: float
    in_flight: tuple[int, ...]
    rates: tuple[float, ...]
    xl_seconds: float
    drivers: tuple[Driver, ...]

    def drivers_of(self, system: str) -> tuple[Driver, ...]:
        return tuple(driver for driver in self.drivers if driver.system == system)


def run_speed(cluster: Cluster, plan: SpeedPlan, note: Callable[[str], None]) -> Iterator[Row]:
    """All speed sections of the plan on one running cluster."""
    system = cluster.kind.name
    drivers = plan.drivers_of(system)
    for section in plan.sections:
        for load, spec in _specs(section, plan):
            for driver in drivers:
                spec.driver = driver.name
                figures = measure(cluster, spec, driver.processes)
                note(f"{system} {section} {load} {driver}: {_brief(figures)}")
                yield {"section": section, "system": system, "driver": str(driver), "load": load, **asdict(figures)}
        if section == "xl" and system == "etcd":
            row = check_perf(cluster)
            note(
                f"etcd xl {row['load']} {row['driver']}: {row['ops_per_second']:.0f}/s, slowest {row['max_ms']:.0f} ms"
            )
            yield row


def _specs(section: str, plan: SpeedPlan) -> Iterator[tuple[str, Spec]]:
    common: dict[str, Any] = {"driver": "", "endpoints": [], "seconds": plan.seconds}
    if section == "puts":
        for in_flight in plan.in_flight:
            yield str(in_flight), Spec(**common, shape="closed", op="put", in_flight=in_flight)
    elif section == "gets":
        for in_flight in plan.in_flight:
            yield str(in_flight), Spec(**common, shape="closed", op="get", in_flight=in_flight, keys=GET_KEYS)
    elif section == "txns":
        for in_flight in plan.in_flight:
            yield str(in_flight), Spec(**common, shape="closed", op="txn", in_flight=in_flight)
    elif section == "open":
        for rate in plan.rates:
            yield f"{rate:.0f}/s", Spec(**common, shape="open", op="put", per_second=rate)
    elif section == "xl":
        common["seconds"] = plan.xl_seconds
        yield (
            str(XL_IN_FLIGHT),
            Spec(
                **common,
                shape="closed",
                in_flight=XL_IN_FLIGHT,
                keys=0,
                key_bytes=XL_KEY_BYTES,
                value_bytes=XL_VALUE_BYTES,
            ),
        )
    else:
        raise AssertionError(f"no speed section {section}")


def prepare_gets(cluster: Cluster, driver: Driver) -> None:
    """Write the keys that the gets read, so that a get finds something."""
    spec = Spec(driver=driver.name, endpoints=[], shape="count", in_flight=64, count=GET_KEYS)
    measure(cluster, spec, seconds_max=120.0)


def check_perf(cluster: Cluster) -> Row:
    """etcd's own load, by its own Go client, on the leader; always 60 s.

    It runs 1,000 clients with a connection each and one put in flight, 276-byte keys, 1 KiB values, behind a token bucket of
    15,000/s with burst 1. Far below that rate the bucket never limits: the figure is what a closed loop of 1,000 gets out
    of etcd. Near it the row is marked `capped` and says only "at least this".
    """
    leader = cluster.leader()
    command = [etcd_cluster.binary("etcdctl"), f"--endpoints=http://{leader.endpoint}", "check", "perf", "--load=xl"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=XL_SECONDS + 120, preexec_fn=die_with_parent, check=False
    )
    output = done.stdout + done.stderr
    throughput = re.search(r"Throughput (?:is|too low:) (\d+) writes/s", output)
    slowest = re.search(r"Slowest request took (?:too long: )?([\d.]+)s", output)
    if throughput is None or slowest is None:
        raise BenchError(f"etcdctl check perf said nothing useful: {output[-500:]}")
    per_second = float(throughput.group(1))
    figures = Figures(
        ops_per_second=per_second,
        p50_ms=0.0,
        p99_ms=0.0,
        p999_ms=0.0,
        max_ms=1e3 * float(slowest.group(1)),
        operations=int(per_second * XL_SECONDS),
        errors=0,
        refused=0,
        leader_stall_ms=0.0,
    )
    capped = per_second >= 0.9 * XL_LIMIT_PER_SECOND
    row = {
        "section": "xl",
        "system": "etcd",
        "driver": "etcdctl-check-perf",
        "load": str(XL_IN_FLIGHT),
        "capped": capped,
    }
    return {**row, **asdict(figures)}


def _brief(figures: Figures) -> str:
    cpu = ", ".join(f"{who} {us:.0f}" for who, us in figures.cpu_us_per_op.items())
    errors = f", {figures.errors} ERRORS ({figures.error_example})" if figures.errors else ""
    refused = f", {figures.refused} not sent" if figures.refused else ""
    stall = f", loop held {figures.leader_stall_ms:.0f} ms" if figures.leader_stall_ms else ""
    return f"{figures.ops_per_second:.0f}/s, p50 {figures.p50_ms:.2f} ms, p99 {figures.p99_ms:.2f} ms, CPU-us/op {cpu}{errors}{refused}{stall}"

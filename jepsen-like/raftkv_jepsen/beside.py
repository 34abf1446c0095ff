"""The same run against another engine, in a process of its own, so that its figures stand beside ours under each kind of fault.

A process of its own because grpcio keeps threads, and with them a network namespace, for as long as a process lives. Same seed, same load: the
faults are drawn in the same order, although each engine has its own leaders and its own luck. `--engine door --beside etcd` is the fair comparison, as
both sides then have the same clients.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

from raftkv_jepsen.history import read_faults, read_operations
from raftkv_jepsen.machines.process import HARNESS_PATH
from raftkv_jepsen.options import Options
from raftkv_jepsen.report.figures import Figures

SUMMARY: Final = "result.json"


def run_beside(options: Options, engine: str) -> Figures:
    """Raises RuntimeError when the other run broke; its verdict is not ours."""
    out = options.out / f"beside-{engine}"
    words = [
        sys.executable,
        str(HARNESS_PATH),
        *("--engine", engine, "--time", str(options.time_s), "--nodes", str(options.nodes)),
        *("--seed", str(options.seed), "--rate", str(options.rate), "--clients", str(options.clients)),
        *("--nemesis", ",".join(options.nemesis), "--workload", ",".join(options.workloads), "--out", str(out)),
        *("--machines", options.machines),
    ]
    print(f"beside it: {engine}", flush=True)
    subprocess.run(words, check=False)
    return load(out)


def load(folder: Path) -> Figures:
    """Figures of an earlier run. Raises RuntimeError when it did not come to its end."""
    path = folder / SUMMARY
    if not path.exists():
        raise RuntimeError(f"the run in {folder} did not come to its end")
    lines = (folder / "history.jsonl").read_text().splitlines()
    ended_ns = int(json.loads(path.read_text())["ended_ns"])
    return Figures(read_operations(lines), read_faults(lines), ended_ns)

"""The table of workloads, and how names on the command line become them. A new workload is a file and a line here."""

from typing import Final, Iterable, Sequence

from raftkv_jepsen.checkers.revisions import check_revisions
from raftkv_jepsen.checkers.verdict import Verdict
from raftkv_jepsen.history import Operation
from raftkv_jepsen.workloads.appends import Appends
from raftkv_jepsen.workloads.auth import Auth
from raftkv_jepsen.workloads.base import Workload
from raftkv_jepsen.workloads.counter import Counter
from raftkv_jepsen.workloads.elections import Elections
from raftkv_jepsen.workloads.gates import Gates
from raftkv_jepsen.workloads.leases import Leases
from raftkv_jepsen.workloads.locks import Locks
from raftkv_jepsen.workloads.queue import Jobs, Queues
from raftkv_jepsen.workloads.ranks import Ranks
from raftkv_jepsen.workloads.register import Register
from raftkv_jepsen.workloads.rendezvous import Rendezvous
from raftkv_jepsen.workloads.sets import Sets
from raftkv_jepsen.workloads.shares import Pools, Semaphores
from raftkv_jepsen.workloads.transactions import Transactions
from raftkv_jepsen.workloads.watch import Watch

WORKLOAD_CLASSES: Final[tuple[type[Workload], ...]] = (
    Register,
    Transactions,
    Counter,
    Appends,
    Sets,
    Watch,
    Leases,
    Locks,
    Semaphores,
    Pools,
    Queues,
    Jobs,
    Rendezvous,
    Gates,
    Ranks,
    Elections,
    Auth,
)
WORKLOADS: Final[dict[str, type[Workload]]] = {workload.name: workload for workload in WORKLOAD_CLASSES}


def chosen(names: Sequence[str]) -> list[type[Workload]]:
    """Raises ValueError for a name that is none."""
    for name in names:
        if name != "all" and name not in WORKLOADS:
            raise ValueError(f"there is no workload {name!r}; there are {', '.join(WORKLOADS)}")
    return [workload for name, workload in WORKLOADS.items() if name in names or "all" in names]


def judge(operations: Iterable[Operation]) -> list[Verdict]:
    """Every checker of every workload that has operations here."""
    parts: dict[str, list[Operation]] = {}
    for operation in operations:
        parts.setdefault(operation.key.split("/", 1)[0], []).append(operation)
    verdicts = []
    for name, part in parts.items():
        for verdict in WORKLOADS[name].check(part):
            verdict.checker = f"{name}: {verdict.checker}"
            verdicts.append(verdict)
    verdicts.append(check_revisions(operation for part in parts.values() for operation in part))
    return verdicts

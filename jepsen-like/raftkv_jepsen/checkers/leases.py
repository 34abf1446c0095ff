"""Leases: never early, not immortal.

A read that completes within the time to live after the last answered renewal *began* must find the key, unless it may have been
revoked. The last look at everything, long after healing, must find nothing.
"""

from typing import Final, Iterable

from raftkv_jepsen.checkers.linearizability import by_key
from raftkv_jepsen.checkers.models import READ
from raftkv_jepsen.checkers.verdict import Verdict
from raftkv_jepsen.history import OK, Operation

GRANT, ATTACH, RENEW, REVOKE = "grant", "attach", "renew", "revoke"
FINAL: Final = "final-read"
NS_PER_S: Final = 1_000_000_000


def check_leases(operations: Iterable[Operation]) -> Verdict:
    """Each key hangs on a lease of its own; `argument` of an attachment or renewal is the time to live in seconds."""
    verdict = Verdict("leases")
    leases_count = reads_count = 0
    for key, part in by_key(operations).items():
        final = [operation for operation in part if operation.function == FINAL and operation.outcome == OK]
        if final and final[-1].result:
            verdict.accuse(f"immortal, long after their time: {final[-1].result[:5]}", final[-1:])
        attached = next((o for o in part if o.function == ATTACH and o.outcome == OK), None)
        if attached is None:
            continue
        leases_count += 1
        # What a renewal that was not answered promised, nobody knows; the grant began the lease.
        grant = next(o for o in part if o.function == GRANT)
        promises = [grant, *(o for o in part if o.function == RENEW and o.outcome == OK)]
        revoked_ns = min((o.invoked_ns for o in part if o.function == REVOKE), default=None)
        for read in part:
            if read.function != READ or read.outcome != OK:
                continue
            reads_count += 1
            if read.result or read.invoked_ns < attached.completed_ns:
                continue
            if revoked_ns is not None and revoked_ns <= read.completed_ns:
                continue
            known = [o for o in promises if o.completed_ns <= read.invoked_ns]
            until_ns = max(o.invoked_ns + int(attached.argument * NS_PER_S) for o in known)
            if read.completed_ns < until_ns:
                early_s = (until_ns - read.completed_ns) / NS_PER_S
                verdict.accuse(f"{key} was gone {early_s:.2f} s before its time: {read}", [attached, *known[-4:], read])
    verdict.detail = f"{leases_count} leases, {reads_count} reads"
    return verdict

"""What the members themselves say when all is healed: equal stores, no crash, nothing in the logs that no fault explains."""

import re
from typing import Any, Iterable, Mapping, Sequence

from raftkv_jepsen.checkers.verdict import Verdict

BAD_LINE = re.compile(r"^\S+Z (error|critical) |^Traceback|AssertionError|^\S+Z \w+ \S+ asyncio: ")
ALWAYS = r"cannot join yet|was removed from the cluster"
"""What a member may say in every run."""
SHOWN_MAX = 5


def check_agreement(dumps: Mapping[str, Sequence[Any]], digests: Mapping[str, tuple[int, int]]) -> Verdict:
    """`dumps` are all key-values by member, `digests` (applied index, running digest), taken when nothing was written any more."""
    verdict = Verdict("agreement of all members")
    if not dumps:
        verdict.doubt("no member could be asked")
        return verdict
    first = min(dumps)
    for name, dump in dumps.items():
        if dump != dumps[first]:
            mine, theirs = {row[0]: row for row in dump}, {row[0]: row for row in dumps[first]}
            keys = [key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key)]
            verdict.accuse(f"{name} and {first} differ in {len(keys)} keys, for example {sorted(keys)[:SHOWN_MAX]}")
    if len(set(digests.values())) > 1:
        verdict.accuse(f"digests differ: {dict(digests)}")
    verdict.detail = f"{len(dumps)} members, {len(dumps[first])} keys"
    return verdict


def check_crashes(crashes: Sequence[str]) -> Verdict:
    """Ends that no fault explains."""
    verdict = Verdict("no crash")
    for crash in crashes:
        verdict.accuse(crash)
    return verdict


def check_logs(logs: Mapping[str, str], forgiven: Iterable[str]) -> Verdict:
    """`forgiven` are patterns of what the faults of this run explain."""
    verdict = Verdict("no unexpected log line")
    excuse = re.compile("|".join([ALWAYS, *filter(None, forgiven)]))
    lines_count = 0
    for name, text in logs.items():
        bad = []
        for line in text.splitlines():
            lines_count += 1
            if BAD_LINE.search(line) and not excuse.search(line):
                bad.append(line)
        for line in bad[:SHOWN_MAX]:
            verdict.accuse(f"{name}: {line[:300]}")
    verdict.detail = f"{lines_count} lines"
    return verdict

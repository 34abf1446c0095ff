"""Judges a history that was recorded earlier: for a new checker, or for a history that somebody sent."""

from pathlib import Path

from raftkv_jepsen.checkers.verdict import gravest
from raftkv_jepsen.history import read_operations
from raftkv_jepsen.workloads.catalogue import judge


def check_again(folder: Path) -> str:
    """The word, after what each checker says. What only the machines knew (logs, stores) cannot be judged again."""
    with (folder / "history.jsonl").open() as lines:
        verdicts = judge(read_operations(lines))
    for verdict in verdicts:
        print(f"{verdict.word:8} {verdict.checker}  {verdict.detail}".rstrip())
        for fault in verdict.faults[:5]:
            print(f"         {fault}")
    word = gravest(verdicts)
    print(word)
    return word

"""Crash points: steps of the daemon before, after or (for writes) in the middle of which it can be made to die, by SIGKILL to itself.

Each point is a method of the product that is wrapped when the process starts; an unarmed one is never wrapped. The number is how often at
most the point is passed before it kills: small where it is rare. What is on disk then is what a `kill -9` leaves at that very step.
"""

import os
import signal
from functools import wraps
from typing import Any, Callable, Final, Sequence

from raftkv.daemon.datadir import DataDirectory
from raftkv.replica.replica import Replica
from raftkv.store import snapshot
from raftkv.store.commit import CommitJob
from raftkv.store.compaction import Compaction
from raftkv.store.lmdb_keyspace import LmdbKeyspace
from raftkv.store.snapshot import SnapshotReceiver
from raftkv.store.store import Store
from raftkv.wal.disk import RealDisk, RealFile
from raftkv.wal.wal import Wal

ARM: Final = "RAFTKV_JEPSEN_CRASH"
"""`POINT:COUNT`: die at the COUNT-th time."""
TORN: Final = "log.write.torn"

_STEPS: Final[dict[str, tuple[Any, str, int]]] = {
    "log.write": (RealFile, "pwritev", 300),
    "log.sync": (RealFile, "fdatasync", 300),
    "log.preallocate": (RealFile, "preallocate", 3),
    "log.rename": (RealDisk, "rename", 3),
    "log.unlink": (RealDisk, "unlink", 2),
    "log.sync-directory": (RealDisk, "sync_directory", 4),
    "log.rotate": (Wal, "_rotate", 3),
    "log-compaction.log": (Wal, "compact", 3),
    "log-compaction.replica": (Replica, "compact_log", 8),
    "apply": (Store, "apply", 300),
    "commit.freeze": (Store, "freeze", 20),
    "commit.run": (CommitJob, "run", 20),
    "commit.store": (LmdbKeyspace, "commit", 20),
    "commit.thaw": (Store, "thaw", 20),
    "compaction.step": (Compaction, "step", 3),
    "compaction.changes": (Compaction, "take_changes", 3),
    "snapshot.copy": (LmdbKeyspace, "copy", 1),
    "snapshot.chunk": (SnapshotReceiver, "write", 2),
    "snapshot.finish": (SnapshotReceiver, "finish", 1),
    "snapshot.install-sync": (snapshot._OsDisk, "sync_file", 1),
    "snapshot.install-rename": (snapshot._OsDisk, "rename", 1),
    "snapshot.install-directory": (snapshot._OsDisk, "sync_directory", 1),
    "start.layout": (DataDirectory, "_make_layout", 1),
    "start.cleaning": (DataDirectory, "_remove_temporary", 1),
}

POINTS: Final[dict[str, int]] = {
    **{f"{step}.{side}": most for step, (_, _, most) in _STEPS.items() for side in ("before", "after")},
    TORN: 300,
}
"""Every point, and how often at most it is passed before it kills."""


def die() -> None:
    """Nothing is flushed, nobody is told."""
    os.kill(os.getpid(), signal.SIGKILL)


def arm(wanted: str) -> None:
    """Wraps one method of the product. Raises KeyError or ValueError for what is no point."""
    point, _, count = wanted.rpartition(":")
    counter = _Countdown(int(count))
    step, _, side = point.rpartition(".")
    owner, name, _ = _STEPS[step]
    original = getattr(owner, name)
    around = {"before": _before, "after": _after, "torn": _torn}[side]
    setattr(owner, name, wraps(original)(around(original, counter)))


class _Countdown:
    """Of all threads together: one that loses the race dies a moment later."""

    def __init__(self, count: int) -> None:
        assert count > 0, "the first time is 1"
        self._left = count

    def is_over(self) -> bool:
        self._left -= 1
        return self._left == 0


Wrapper = Callable[..., Any]


def _before(original: Wrapper, counter: _Countdown) -> Wrapper:
    def step(*arguments: Any, **options: Any) -> Any:
        if counter.is_over():
            die()
        return original(*arguments, **options)

    return step


def _after(original: Wrapper, counter: _Countdown) -> Wrapper:
    def step(*arguments: Any, **options: Any) -> Any:
        answer = original(*arguments, **options)
        if counter.is_over():
            die()
        return answer

    return step


def _torn(original: Wrapper, counter: _Countdown) -> Wrapper:
    def step(file: RealFile, buffers: Sequence[bytes], offset: int) -> Any:
        if counter.is_over():
            whole = b"".join(buffers)
            original(file, [whole[: len(whole) // 2 + 1]], offset)
            die()
        return original(file, buffers, offset)

    return step

"""Wall clocks that jump: a file per node is read anew by the running daemon. The monotonic clock is left alone.

By libfaketime where it works. It is tried first, because some versions make Python's sleep fail and its timed waits late, which is no fault of
clocks; the test build moves its own wall clock then. raftkv keeps no promise by the wall clock, so nothing at all may follow.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from raftkv_jepsen.nemesis.arena import Arena, Injection, Kind

LIBRARIES: Final = (
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/faketime/libfaketime.so.1",
)
JUMPS_S: Final = (-86_400 * 400, -3_600, -60, -2, 2, 60, 3_600, 86_400 * 400)
AS_IT_IS: Final = "+0"
TRIAL: Final = """
import queue, time
began = time.monotonic()
time.sleep(0.05)
try:
    queue.SimpleQueue().get(timeout=0.2)
except queue.Empty:
    pass
assert 0.2 < time.monotonic() - began < 2
"""
TRIAL_S: Final = 5.0


def find_library() -> str:
    """Its path; empty when it is not installed, or breaks more than the wall clock."""
    return next((path for path in LIBRARIES if Path(path).exists() and _works(path)), "")


def _works(library: str) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        variables = {**os.environ, **environment(library, Path(folder) / "clock")}
        try:
            tried = subprocess.run(
                [sys.executable, "-c", TRIAL], env=variables, capture_output=True, check=False, timeout=TRIAL_S
            )
        except subprocess.TimeoutExpired:
            return False
    return tried.returncode == 0


def environment(library: str, file: Path) -> dict[str, str]:
    """For a daemon whose clock can be moved by writing to `file`."""
    file.write_text(AS_IT_IS)
    return {
        "LD_PRELOAD": library,
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


def _unavailable(arena: Arena) -> str:
    return arena.no_clocks


def _move(arena: Arena, name: str, jump_s: int) -> None:
    arena.clock_files[name].write_text(f"{jump_s:+d}" if jump_s else AS_IT_IS)


def jump_one(arena: Arena) -> Injection:
    """There and, when healed, back: two jumps."""
    name = arena.draw.choice(arena.nodes).name
    jump_s = arena.draw.choice(JUMPS_S)
    _move(arena, name, jump_s)
    return Injection(f"{name} by {jump_s} s", lambda: _move(arena, name, 0))


def scatter(arena: Arena) -> Injection:
    """Everybody has another time."""
    jumps = {node.name: arena.draw.choice(JUMPS_S) for node in arena.nodes}
    for name, jump_s in jumps.items():
        _move(arena, name, jump_s)

    def heal() -> None:
        for name in jumps:
            _move(arena, name, 0)

    return Injection(", ".join(f"{name} by {jump_s} s" for name, jump_s in jumps.items()), heal)


KINDS: Final = (
    Kind("clock-jump", "clock", jump_one, _unavailable),
    Kind("clock-scatter", "clock", scatter, _unavailable),
)

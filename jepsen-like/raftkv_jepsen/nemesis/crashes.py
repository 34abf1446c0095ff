"""Members that die at one exact step of their own: between a write and its fsync, before a rename, in the middle of a commit.

The victim is started again as a test build (testbuild/) with one crash point armed, dies when it comes by for the so-manieth time, and starts again
unharmed. A point that it does not come by while the fault lasts is said to be missed.
"""

from typing import Final

from raftkv_jepsen.machines.node import Node
from raftkv_jepsen.machines.waiting import wait_until
from raftkv_jepsen.nemesis.arena import Arena, Injection, Kind, Occupied
from raftkv_jepsen.testbuild.crashpoints import ARM, POINTS, TORN
from raftkv_jepsen.testbuild.program import ENVIRONMENT, PROGRAM

REACHED_S: Final = 6.0
WRITES_AWAY: Final = 400


def _crash_at(arena: Arena, node: Node, point: str, at_most: int) -> Injection:
    count = arena.draw.randint(1, at_most)
    arena.kill(node)
    node.program, released = PROGRAM, node.program
    try:
        node.start(environment={ARM: f"{point}:{count}", **ENVIRONMENT})
    finally:
        node.program = released
    try:
        wait_until(lambda: not node.running, f"{node.name} to die at {point}", deadline_s=REACHED_S)
        word = "died"
    except AssertionError:
        word = "missed"

    def heal() -> None:
        node.kill()
        arena.start(node)

    return Injection(f"{node.name} at {point}, time {count}: {word}", heal)


def crash_anywhere(arena: Arena) -> Injection:
    """At any of the points."""
    point = arena.draw.choice(sorted(POINTS))
    return _crash_at(arena, arena.take_any(), point, POINTS[point])


def crash_torn(arena: Arena) -> Injection:
    """A write of which the first part is there."""
    return _crash_at(arena, arena.take_any(), TORN, POINTS[TORN])


def _among(prefix: str) -> tuple[str, ...]:
    return tuple(sorted(point for point in POINTS if point.startswith(prefix)))


def crash_snapshot(arena: Arena) -> Injection:
    """While one is received or put in place; with the small log a member that was away needs one."""
    if arena.busy:
        raise Occupied  # it needs a quorum that writes on
    node = arena.take_follower()
    arena.kill(node)
    arena.wait_writes(WRITES_AWAY)
    point = arena.draw.choice([point for point in _among("snapshot.") if "copy" not in point])
    return _crash_at(arena, node, point, 1)


def crash_compaction(arena: Arena) -> Injection:
    """Of the log, or of history."""
    point = arena.draw.choice((*_among("compaction."), *_among("log-compaction.")))
    return _crash_at(arena, arena.take_any(), point, POINTS[point])


KINDS: Final = (
    Kind("crash-point", "crash", crash_anywhere, own=True),
    Kind("crash-torn-write", "crash", crash_torn, own=True),
    Kind("crash-snapshot", "crash", crash_snapshot, own=True),
    Kind("crash-compaction", "crash", crash_compaction, own=True),
)

"""Disks that are full, slow, broken, or lose what was not synced."""

import signal
from typing import Final, Sequence

from raftkv_jepsen.machines.disk import DiskFaultUnavailable, SyncFault
from raftkv_jepsen.machines.node import Node
from raftkv_jepsen.nemesis.arena import Arena, FaultUnavailable, Injection, Kind

FULL_LINES: Final = (
    r"no space|no room|disk is full|disk full|cannot commit|cannot make a snapshot|writes are refused|No space left"
)
FAILED_LINES: Final = r"Input/output error|cannot go on|this member stops|fsync of the log"
SLOW_LINES: Final = r"fsync of the log"


def _no_disks(arena: Arena) -> str:
    return arena.no_disks


def full(arena: Arena) -> Injection:
    """Not a byte left: writes are refused by name, the office goes to somebody who has room."""
    node = arena.take_any()
    disk = arena.disks[node.name]
    disk.fill()

    def heal() -> None:
        disk.free()
        arena.start(node)

    arena.down.add(node.name)  # a member that restarts on a full disk may refuse to
    return Injection(node.name, heal)


def _attach(arena: Arena, node: Node, injection: str) -> SyncFault:
    try:
        return SyncFault(node.daemon, injection, arena.directory)
    except DiskFaultUnavailable as error:
        raise FaultUnavailable(str(error)) from error


def slow_sync(arena: Arena) -> Injection:
    """Each fdatasync takes that much longer."""
    node = arena.take_any()
    delay_ms = arena.draw.choice((20, 100, 400))
    fault = _attach(arena, node, f"delay_enter={delay_ms * 1000}")
    return Injection(f"{node.name} by {delay_ms} ms", fault.close)


def failing_sync(arena: Arena) -> Injection:
    """The page cache cannot be believed any more: the member ends, and the others go on."""
    node = arena.take_any()
    arena.down.add(node.name)
    fault = _attach(arena, node, "error=EIO")

    def heal() -> None:
        fault.close()
        node.kill()
        arena.start(node)

    return Injection(node.name, heal)


def _cut_power(arena: Arena, nodes: Sequence[Node]) -> Injection:
    for node in nodes:
        arena.down.add(node.name)
    for node in nodes:
        node.daemon.send(signal.SIGKILL)
    for node in nodes:
        node.kill()
        arena.disks[node.name].lose_power()

    def heal() -> None:
        for node in nodes:
            arena.start(node)

    return Injection(", ".join(node.name for node in nodes), heal)


def power_one(arena: Arena) -> Injection:
    """What one member did not sync is gone."""
    return _cut_power(arena, [arena.take_any()])


def power_leader(arena: Arena) -> Injection:
    """What the leader did not sync is gone."""
    return _cut_power(arena, [arena.take_leader()])


def power_all(arena: Arena) -> Injection:
    """The whole room: what was acknowledged was synced by a majority."""
    return _cut_power(arena, arena.take_all())


KINDS: Final = (
    Kind("disk-full", "disk", full, _no_disks, FULL_LINES),
    Kind("disk-slow", "disk", slow_sync, forgives=SLOW_LINES),
    Kind("disk-failing", "disk", failing_sync, forgives=FAILED_LINES),
    Kind("power", "power", power_one, _no_disks),
    Kind("power-leader", "power", power_leader, _no_disks),
    Kind("power-all", "power", power_all, _no_disks),
)

"""Processes that end, stand still, or start at the wrong moment."""

import signal
import time
from typing import Final

from raftkv_jepsen.machines.node import Node
from raftkv_jepsen.nemesis.arena import Arena, Injection, Kind

STARTUP_S_MAX: Final = 0.8


def _kill(arena: Arena, node: Node) -> Injection:
    arena.kill(node)
    return Injection(node.name, lambda: arena.start(node))


def kill_one(arena: Arena) -> Injection:
    """kill -9, and started again when healed."""
    return _kill(arena, arena.take_any())


def kill_leader(arena: Arena) -> Injection:
    """kill -9 of whoever leads."""
    return _kill(arena, arena.take_leader())


def kill_all(arena: Arena) -> Injection:
    """What is acknowledged has to be on disks by now."""
    nodes = arena.take_all()
    for node in nodes:
        arena.down.add(node.name)
    for node in nodes:
        node.daemon.send(signal.SIGKILL)
    for node in nodes:
        node.kill()

    def heal() -> None:
        for node in nodes:
            arena.start(node)

    return Injection("all", heal)


def kill_starting(arena: Arena) -> Injection:
    """Again and again while it starts, at another moment each time."""
    node = arena.take_any()
    moments_s = [arena.draw.uniform(0.05, STARTUP_S_MAX) for _ in range(4)]
    arena.kill(node)
    for moment_s in moments_s:
        node.start()
        time.sleep(moment_s)
        node.kill()
    moments = ", ".join(f"{moment_s:.2f}" for moment_s in moments_s)
    return Injection(f"{node.name} after {moments} s", lambda: arena.start(node))


def _pause(node: Node) -> Injection:
    node.pause()
    return Injection(node.name, node.resume)


def pause_one(arena: Arena) -> Injection:
    """SIGSTOP, and SIGCONT when healed."""
    return _pause(arena.take_any())


def pause_leader(arena: Arena) -> Injection:
    """Whoever leads stands still, and still thinks that it leads when it goes on."""
    return _pause(arena.take_leader())


def pause_all(arena: Arena) -> Injection:
    """The whole cluster stands still, as a frozen hypervisor does it."""
    nodes = arena.take_all()
    for node in nodes:
        node.pause()

    def heal() -> None:
        for node in nodes:
            node.resume()

    return Injection("all", heal)


def restart_one(arena: Arena) -> Injection:
    """SIGTERM: it hands over, finishes and leaves with exit code 0."""
    node = arena.take_any()
    arena.down.add(node.name)
    code = node.terminate()
    if code not in node.clean_exits:
        arena.crashes.append(f"{node.name} ended with exit code {code} after SIGTERM")
    return Injection(node.name, lambda: arena.start(node))


def restart_rolling(arena: Arena) -> Injection:
    """One after the other, as an upgrade does it; each is waited for, so the network has to be whole."""
    arena.take_network()
    nodes = arena.take_all()
    for node in nodes:
        arena.down.add(node.name)
        code = node.terminate()
        if code not in node.clean_exits:
            arena.crashes.append(f"{node.name} ended with exit code {code} after SIGTERM")
        arena.start(node)
        node.wait_ready()
    return Injection("one after the other", lambda: None)


KINDS: Final = (
    Kind("kill", "kill", kill_one),
    Kind("kill-leader", "kill", kill_leader),
    Kind("kill-all", "kill", kill_all),
    Kind("kill-starting", "kill", kill_starting),
    Kind("pause", "pause", pause_one),
    Kind("pause-leader", "pause", pause_leader),
    Kind("pause-all", "pause", pause_all),
    Kind("restart", "restart", restart_one),
    Kind("restart-rolling", "restart", restart_rolling),
)

"""Processes that end, stand still, or start at the wrong moment."""

import re
import signal
import time
from http import HTTPStatus
from typing import Final

from raftkv_jepsen.machines.node import Node
from raftkv_jepsen.machines.waiting import wait_until
from raftkv_jepsen.nemesis.arena import Arena, Injection, Kind, Occupied

STARTUP_S_MAX: Final = 0.8
WRITES_AWAY: Final = 400
"""More than the harness's log keeps: who was away for so long needs a snapshot."""
SNAPSHOT_S: Final = 6.0
RECEIVED: Final = re.compile(r"^raftkv_snapshot_received_bytes(?:_total)? ([0-9.e+]+)$", re.MULTILINE)


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


def kill_in_snapshot(arena: Arena) -> Injection:
    """kill -9 of who sends a snapshot, or of who receives it, while it is on the way."""
    if arena.busy:
        raise Occupied  # it needs a quorum that writes on, and a leader that stays
    receiver = arena.take_follower()
    sender = arena.cluster.current_leader(arena.free())
    if sender is None:
        raise Occupied
    arena.kill(receiver)
    arena.wait_writes(WRITES_AWAY)
    victim = arena.draw.choice((sender, receiver))
    arena.start(receiver)

    def on_the_way() -> bool:
        status, text = receiver.http_get("/metrics")
        found = RECEIVED.search(text) if status == HTTPStatus.OK else None
        return found is not None and float(found[1]) > 0

    try:
        wait_until(on_the_way, "a snapshot", deadline_s=SNAPSHOT_S, interval_s=0.005)
        word = "sent" if victim is sender else "received"
    except AssertionError:
        word = "might have sent, but none came," if victim is sender else "might have received, but none came,"
    arena.busy.add(victim.name)
    arena.kill(victim)
    return Injection(f"{victim.name} while it {word} one", lambda: arena.start(victim))


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
    Kind("kill-snapshot", "kill", kill_in_snapshot, own=True),
    Kind("pause", "pause", pause_one),
    Kind("pause-leader", "pause", pause_leader),
    Kind("pause-all", "pause", pause_all),
    Kind("restart", "restart", restart_one),
    Kind("restart-rolling", "restart", restart_rolling),
)

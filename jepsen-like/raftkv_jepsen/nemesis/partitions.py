"""Cables that are cut: who hears whom. A cut drops at the receiver, so half a cable is as easy as a whole one."""

import threading
from typing import Final

from raftkv_jepsen.machines.netns import CLIENTS
from raftkv_jepsen.nemesis.arena import Arena, Injection, Kind

FLAP_S: Final = (0.05, 0.8)


def _healing(arena: Arena, detail: str) -> Injection:
    return Injection(detail, arena.network.heal)


def leader_alone(arena: Arena) -> Injection:
    """From the other members; clients still reach it."""
    arena.take_network()
    leader = arena.take_leader()
    arena.network.isolate(leader.name, arena.others(leader))
    return _healing(arena, f"{leader.name} | rest")


def leader_lost(arena: Arena) -> Injection:
    """From members and clients."""
    arena.take_network()
    leader = arena.take_leader()
    arena.network.isolate(leader.name, [*arena.others(leader), CLIENTS])
    return _healing(arena, f"{leader.name} | rest and clients")


def minority(arena: Arena) -> Injection:
    """As many as can be spared, drawn."""
    arena.take_network()
    names = [node.name for node in arena.nodes]
    cut_off = arena.draw.sample(names, (len(names) - 1) // 2)
    for name in cut_off:
        arena.network.isolate(name, [other for other in names if other not in cut_off])
    return _healing(arena, f"{', '.join(sorted(cut_off))} | rest")


def halves(arena: Arena) -> Injection:
    """The leader is with the smaller half; the clients are cut in two as well, as far as one namespace can be."""
    arena.take_network()
    names = [node.name for node in arena.nodes]
    leader = arena.cluster.current_leader()
    smaller = [leader.name if leader is not None else names[0]]
    rest = [name for name in names if name not in smaller]
    smaller += arena.draw.sample(rest, len(names) // 2 - 1)
    for name in smaller:
        arena.network.isolate(name, [other for other in names if other not in smaller])
    arena.network.isolate(arena.draw.choice([name for name in names if name not in smaller]), [CLIENTS])
    return _healing(arena, f"{', '.join(smaller)} | rest, one of which is cut off from the clients")


def ring(arena: Arena) -> Injection:
    """Five: everybody sees its two neighbours only, a majority that is another for each. Three: everybody hears one other."""
    arena.take_network()
    names = [node.name for node in arena.nodes]
    arena.draw.shuffle(names)
    count = len(names)
    for position, name in enumerate(names):
        for distance in range(1, count):
            heard = distance in (1, count - 1) if count > 3 else distance == 1
            if not heard:
                arena.network.cut(names[(position + distance) % count], name)
    return _healing(arena, " -> ".join(names))


def bridge(arena: Arena) -> Injection:
    """Two halves that see each other only through one member."""
    arena.take_network()
    names = [node.name for node in arena.nodes]
    arena.draw.shuffle(names)
    middle, rest = names[0], names[1:]
    left = rest[: len(rest) // 2]
    for name in left:
        arena.network.isolate(name, [other for other in rest if other not in left])
    return _healing(arena, f"through {middle}")


def deaf(arena: Arena) -> Injection:
    """It is heard and hears nobody."""
    arena.take_network()
    node = arena.take_any()
    for other in arena.others(node):
        arena.network.cut(other, node.name)
    return _healing(arena, node.name)


def mute(arena: Arena) -> Injection:
    """It hears everybody and nobody hears it."""
    arena.take_network()
    node = arena.take_any()
    for other in arena.others(node):
        arena.network.cut(node.name, other)
    return _healing(arena, node.name)


def answers_lost(arena: Arena) -> Injection:
    """Requests arrive at the leader and are done; their answers do not come back. What exactly-once is for."""
    arena.take_network()
    leader = arena.take_leader()
    arena.network.cut(leader.name, CLIENTS)
    return _healing(arena, f"of {leader.name} to the clients")


def flapping(arena: Arena) -> Injection:
    """A loose plug: cut and mended in quick turns until it is healed."""
    arena.take_network()
    node = arena.take_any()
    others = arena.others(node)
    ended = threading.Event()
    lengths_s = [arena.draw.uniform(*FLAP_S) for _ in range(64)]

    def flap() -> None:
        for turn, length_s in enumerate(lengths_s):
            if turn % 2:
                arena.network.heal()
            else:
                arena.network.isolate(node.name, others)
            if ended.wait(length_s):
                break

    thread = threading.Thread(target=flap, name="flapping", daemon=True)
    thread.start()

    def heal() -> None:
        ended.set()
        thread.join()
        arena.network.heal()

    return Injection(node.name, heal)


KINDS: Final = (
    Kind("partition-leader", "partition", leader_alone),
    Kind("partition-leader-lost", "partition", leader_lost),
    Kind("partition-minority", "partition", minority),
    Kind("partition-halves", "partition", halves),
    Kind("partition-ring", "partition", ring),
    Kind("partition-bridge", "partition", bridge),
    Kind("partition-deaf", "partition", deaf),
    Kind("partition-mute", "partition", mute),
    Kind("partition-answers", "partition", answers_lost),
    Kind("flapping", "partition", flapping),
)

"""Links that are slow, lose packets, deliver them twice or in another order (machines/linkqueue.py)."""

from typing import Final, Sequence

from raftkv_jepsen.machines.netns import NamespacesUnavailable
from raftkv_jepsen.machines.node import Node
from raftkv_jepsen.nemesis.arena import Arena, FaultUnavailable, Injection, Kind


def _shape(arena: Arena, nodes: Sequence[Node], **link: float) -> Injection:
    arena.take_network()
    try:
        for node in nodes:
            arena.network.shape(node.name, arena.directory, seed=arena.draw.randrange(1 << 30), **link)
    except NamespacesUnavailable as error:
        arena.network.unshape()
        raise FaultUnavailable(str(error)) from error
    words = ", ".join(f"{name} {value:g}" for name, value in link.items())
    return Injection(f"{', '.join(node.name for node in nodes)}: {words}", arena.network.unshape)


def delay(arena: Arena) -> Injection:
    """As between regions."""
    return _shape(arena, arena.nodes, delay_ms=float(arena.draw.choice((20, 80, 200))))


def delay_leader(arena: Arena) -> Injection:
    """Only what one member says is late."""
    return _shape(arena, [arena.take_leader()], delay_ms=float(arena.draw.choice((100, 400))))


def loss(arena: Arena) -> Injection:
    """Every tenth packet, or so, is gone."""
    return _shape(arena, arena.nodes, loss=arena.draw.choice((0.02, 0.1, 0.25)))


def duplicate(arena: Arena) -> Injection:
    """Packets come twice."""
    return _shape(arena, arena.nodes, duplicate=arena.draw.choice((0.2, 0.8)))


def reorder(arena: Arena) -> Injection:
    """A third of the packets is overtaken."""
    return _shape(arena, arena.nodes, reorder=0.3, reorder_ms=40.0, jitter_ms=10.0)


def awful(arena: Arena) -> Injection:
    """All of it at once."""
    return _shape(
        arena, arena.nodes, delay_ms=30.0, jitter_ms=40.0, loss=0.05, duplicate=0.1, reorder=0.1, reorder_ms=60.0
    )


KINDS: Final = (
    Kind("delay", "links", delay, begins_late=True),
    Kind("delay-leader", "links", delay_leader, begins_late=True),
    Kind("loss", "links", loss, begins_late=True),
    Kind("duplication", "links", duplicate, begins_late=True),
    Kind("reordering", "links", reorder, begins_late=True),
    Kind("awful-links", "links", awful, begins_late=True),
)

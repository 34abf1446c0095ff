"""Who greets a member, and what it is told: that it was removed is final, so only who surely means this cluster hears it."""

from types import SimpleNamespace
from typing import Any, cast

from raftkv.daemon.neighbours import Neighbours
from raftkv.transport.handshake import REMOVED, Identity


def told(cluster_id: int) -> str:
    """To member 3, which this cluster has removed."""
    storage: Any = SimpleNamespace(store=SimpleNamespace(is_removed={3}.__contains__), cluster_id=7)
    neighbours = object.__new__(Neighbours)
    neighbours._storage = storage
    hello = Identity(
        node_id=3, name="n3", cluster_name="prod", cluster_id=cluster_id, incarnation=1, version="0.1.0"
    ).hello()
    return cast(str, neighbours.check(hello))


def test_a_removed_member_is_told_so() -> None:
    assert told(cluster_id=7).endswith(REMOVED)


def test_a_member_that_does_not_know_its_cluster_yet_may_mean_the_one_that_this_was_recovered_from() -> None:
    """It would remember for ever that it was removed, and its own cluster would miss it."""
    assert REMOVED not in told(cluster_id=0)

"""What a planted bug is, how one is declared, and how a piece of the production code is swapped for a wrong one."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from ..data import adapt
from ..knobs import Knobs, draw_knobs
from ..world import World
from .stage import Stage

QUICK: Mapping[str, Any] = {"chaos_us": 12_000_000}


@dataclass(frozen=True, slots=True)
class Bug:
    """One mistake. It has to show itself in random worlds within `seeds_max` seeds, or in its scripted story."""

    name: str
    wrong: str  # what the code does
    breaks: str  # the promise that it breaks
    plant: Callable[[], AbstractContextManager[None]]
    knobs: Mapping[str, Any]  # forced upon every seed's own
    limits: Mapping[str, Any]
    seeds_max: int
    story: Callable[[Stage], None] | None

    def world(self, seed: int, tell: Callable[[str], None] | None = None) -> World:
        """The seed's world, as unkind as this bug needs it."""
        knobs = draw_knobs(World.stream_of(seed, "knobs"))
        if self.knobs.get("data"):
            adapt(knobs, World.stream_of(seed, "data"))
        forced: dict[str, Any] = {"limits": replace(knobs.limits, **self.limits), **self.knobs}
        return World(seed, knobs=replace(knobs, **forced), tell=tell)


BUGS: dict[str, Bug] = {}
"""By name, in the order of their declaration."""


def bug(
    name: str,
    wrong: str,
    breaks: str,
    *,
    knobs: Mapping[str, Any] | None = None,
    limits: Mapping[str, Any] | None = None,
    seeds_max: int = 60,
    story: Callable[[Stage], None] | None = None,
) -> Callable[[Callable[[], Iterator[None]]], Callable[[], AbstractContextManager[None]]]:
    """Declare the generator below as the planting of a bug: it swaps, yields once, and all is right again."""

    def declare(plant: Callable[[], Iterator[None]]) -> Callable[[], AbstractContextManager[None]]:
        assert name not in BUGS, f"two bugs are called {name}"
        manager = contextmanager(plant)
        BUGS[name] = Bug(name, wrong, breaks, manager, {**QUICK, **(knobs or {})}, limits or {}, seeds_max, story)
        return manager

    return declare


@contextmanager
def swapped(owner: Any, name: Any, replacement: Any) -> Iterator[None]:
    """An attribute of a module or class, or an item of a table, is another one until the end of the block."""
    if isinstance(owner, dict):
        before = owner[name]
        owner[name] = replacement
    else:
        before = owner.__dict__[name]  # not getattr: a classmethod has to come back as one
        setattr(owner, name, replacement)
    try:
        yield
    finally:
        if isinstance(owner, dict):
            owner[name] = before
        else:
            setattr(owner, name, before)


__all__ = ["BUGS", "Bug", "Knobs", "bug", "swapped"]

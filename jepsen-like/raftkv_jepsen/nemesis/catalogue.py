"""The table of all faults, and how names on the command line become them."""

from typing import Final, Sequence

from raftkv_jepsen.nemesis import (
    clocks,
    crashes,
    damage,
    disks,
    leadership,
    links,
    membership,
    partitions,
    processes,
)
from raftkv_jepsen.nemesis.arena import Kind

KINDS: Final[tuple[Kind, ...]] = (
    *processes.KINDS,
    *partitions.KINDS,
    *links.KINDS,
    *clocks.KINDS,
    *leadership.KINDS,
    *membership.KINDS,
    *disks.KINDS,
    *damage.KINDS,
    *crashes.KINDS,
)
GROUPS: Final = tuple(dict.fromkeys(kind.group for kind in KINDS))
DISK_GROUPS: Final = frozenset({"disk", "power"})


def chosen(names: Sequence[str]) -> list[Kind]:
    """Raises ValueError for a name that is neither a fault nor a group."""
    if "none" in names:
        return []
    known = {kind.name for kind in KINDS} | set(GROUPS) | {"all"}
    for name in names:
        if name not in known:
            raise ValueError(f"there is no fault {name!r}; groups are {', '.join(GROUPS)}, and single ones in the docs")
    return [kind for kind in KINDS if "all" in names or kind.group in names or kind.name in names]

"""Leadership that is handed on, in quick turns and to whoever is drawn."""

import time
from typing import Final

from raftkv.errors import RaftKVError
from raftkv_jepsen.nemesis.arena import Arena, Injection, Kind

TRANSFERS: Final = 3
BETWEEN_S: Final = 0.3


def transfer(arena: Arena) -> Injection:
    """Refusals are answers too: the one who is asked may be behind, or paused by another fault."""
    done = []
    with arena.ask() as kv:
        for _ in range(TRANSFERS):
            name = arena.draw.choice(arena.nodes).name
            try:
                done.append(str(kv.move_leader(name)["name"]))
            except RaftKVError as error:
                done.append(f"not to {name} ({error.code})")
            time.sleep(BETWEEN_S)
    return Injection(", ".join(done), lambda: None)


KINDS: Final = (Kind("transfer", "leadership", transfer, own=True),)

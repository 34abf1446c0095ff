"""Members that leave and come back with an empty disk, while clients go on: joint configurations, learners, snapshots, promotions."""

from typing import Final

from raftkv.errors import RaftKVError
from raftkv_jepsen.machines.node import Node
from raftkv_jepsen.machines.waiting import wait_until
from raftkv_jepsen.nemesis.arena import Arena, Injection, Kind

CHANGE_S: Final = 30.0
GONE_S: Final = 15.0


def voters(arena: Arena) -> set[str]:
    """Names of those who have a vote, by a linearizable word; nobody when nobody answers."""
    try:
        with arena.ask() as kv:
            return {member.name for member in kv.members() if member.voter}
    except RaftKVError:
        return set()


def remove(arena: Arena, node: Node) -> None:
    """Raises DeadlinePassed when it is still a member after CHANGE_S."""
    arena.down.add(node.name)

    def removed() -> bool:
        with arena.ask() as kv:
            try:
                if node.name not in {member.name for member in kv.members()}:
                    return True
                kv.member_remove(node.name)
            except RaftKVError as error:
                if error.code == "member_not_found":
                    return True  # the table of members shows it for some more seconds
                arena.say(f"removing {node.name}: {error.code}")
        return False

    wait_until(removed, f"{node.name} to be removed", deadline_s=CHANGE_S, interval_s=0.3)


def rejoin(arena: Arena, node: Node) -> None:
    """With an empty data directory. Raises DeadlinePassed when it has no vote after CHANGE_S."""
    node.kill()
    others = [other for other in arena.nodes if other is not node and other.running]
    node.begin_anew(others[0])
    arena.start(node)
    wait_until(
        lambda: node.name in voters(arena), f"{node.name} to have a vote again", deadline_s=CHANGE_S, interval_s=0.3
    )


def replace(arena: Arena, node: Node) -> None:
    """For a member whose data is of no use any more."""
    remove(arena, node)
    rejoin(arena, node)


def churn(arena: Arena) -> Injection:
    """Removed now, joins anew when healed; the leader half of the time, which hands over first."""
    if arena.down:
        return Injection("nobody, others are down", lambda: None)
    node = arena.take_any()
    remove(arena, node)
    try:
        wait_until(lambda: not node.running, f"{node.name} to stop", deadline_s=GONE_S)
    except AssertionError:
        pass  # it is cut off: who does not hear that it is removed goes on alone, and may
    return Injection(node.name, lambda: rejoin(arena, node))


KINDS: Final = (Kind("churn", "membership", churn, own=True, alone=True),)

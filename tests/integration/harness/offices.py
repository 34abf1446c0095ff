"""Terms and hand-overs on a machine that may stop any process for most of a second.

Then there is now and then an election that no test has ordered, which is no fault but changes what may be expected of times; and whoever is handed
the office may let it pass.
"""

import raftkv
from raftkv.errors import TransferRefused
from raftkv_jepsen.machines.cluster import Cluster
from raftkv_jepsen.machines.waiting import wait_until

LEADER_DEADLINE_S = 15.0
MOVE_DEADLINE_S = 30.0
TOO_SLOW = ("not taken over", "has not answered for")
"""In refusals of a hand-over whose target stands still, the second one while it still does: nothing has changed, and it may be asked for again."""


def leading_term(cluster: Cluster) -> int:
    """The newest leader's, once there is one. Another one than before: all leases have got their time again, from that office on."""

    def newest() -> int:
        return max((int(each["term"]) for each in cluster.statuses().values() if each["role"] == "leader"), default=0)

    return wait_until(newest, "a leader", deadline_s=LEADER_DEADLINE_S)


def is_too_slow(refusal: str) -> bool:
    """Whether a hand-over was refused because its target stood still."""
    return any(words in refusal for words in TOO_SLOW)


def move_leader(kv: raftkv.Client, name: str) -> None:
    """To a member that may be slow for a while."""

    def is_moved() -> bool:
        try:
            kv.move_leader(name)
        except TransferRefused as refusal:
            if not is_too_slow(refusal.message):
                raise
            return False
        return True

    wait_until(is_moved, f"{name} to take the office over", deadline_s=MOVE_DEADLINE_S)

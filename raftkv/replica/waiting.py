"""Writes that wait for the leader's next entry: who goes into it, and who has waited in vain.

First come, first served; but under more load than the cluster can carry that alone would serve nobody: whoever reaches the front has
almost no time left, is proposed, committed too late, and asks again. So a write that has lost most of its time in the queue, and has
little more left than what an entry takes, ends here, where it is certain that it did not happen. Those behind it get their time.
"""

from typing import Final

from raftkv.errors import DeadlineExceeded, RaftKVError
from raftkv.replica.groups import WriteGroup
from raftkv.units import Milliseconds

ROUNDS_NEEDED: Final = 4  # in what is left: the next entry may be slower than the quickest of late, and answers travel


class WaitingWrites:
    """A queue of groups; each leaves it once, with `take`, or refused."""

    __slots__ = ("_entry_bytes_max", "_groups", "size_bytes")

    def __init__(self, entry_bytes_max: int) -> None:
        self._entry_bytes_max = entry_bytes_max
        self._groups: list[WriteGroup] = []
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._groups)

    def add(self, group: WriteGroup, now_ms: Milliseconds) -> None:
        """To the end."""
        group.since_ms = now_ms
        self._groups.append(group)
        self.size_bytes += group.size_bytes

    def add_first(self, group: WriteGroup, now_ms: Milliseconds) -> None:
        """In front of what clients wait for."""
        group.since_ms = now_ms
        self._groups.insert(0, group)
        self.size_bytes += group.size_bytes

    def take(self, now_ms: Milliseconds, round_ms: Milliseconds) -> list[WriteGroup]:
        """What goes into one entry: at most `entry_bytes_max`, or one group. `round_ms`: what an entry takes at least, at present.

        Refuses the hopeless on its way; empty when nobody else was there.
        """
        groups: list[WriteGroup] = []
        hopeless: list[WriteGroup] = []
        size_bytes = looked_at = 0
        needed_until = now_ms + ROUNDS_NEEDED * round_ms
        for group in self._groups:
            deadline_ms = group.deadline_ms
            if deadline_ms <= needed_until and deadline_ms - now_ms <= now_ms - group.since_ms:
                hopeless.append(group)
            elif groups and size_bytes + group.size_bytes > self._entry_bytes_max:
                break
            else:
                groups.append(group)
                size_bytes += group.size_bytes
            looked_at += 1
        del self._groups[:looked_at]
        self.size_bytes -= size_bytes
        if hopeless:
            self.size_bytes -= sum(group.size_bytes for group in hopeless)
            _refuse(hopeless, _too_late())
        return groups

    def expire(self, now_ms: Milliseconds) -> None:
        """Groups whose deadline has passed end now."""
        late = [group for group in self._groups if group.deadline_ms <= now_ms]
        if not late:
            return
        self._groups = [group for group in self._groups if group.deadline_ms > now_ms]
        self.size_bytes = sum(group.size_bytes for group in self._groups)
        _refuse(late, _too_late())

    def refuse_all(self, error: RaftKVError) -> None:
        """None of them will be proposed here."""
        groups, self._groups, self.size_bytes = self._groups, [], 0
        _refuse(groups, error)


def _too_late() -> DeadlineExceeded:
    return DeadlineExceeded("the write waited too long for its turn", may_have_happened=False)


def _refuse(groups: list[WriteGroup], error: RaftKVError) -> None:
    for group in groups:
        group.origin.on_refused(group, error)


__all__ = ["ROUNDS_NEEDED", "WaitingWrites"]

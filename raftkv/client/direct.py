"""Calls to one member in person, which go nowhere else whatever happens: `status`, `defragment`, `backup`. SANS-IO.

They are decided as all others are (retry.py), but for what follows from there being nobody else: connecting may take all the time there is, a
broken connection is made anew once, and silence is borne for longer.
"""

from typing import Final

from raftkv.client.decisions import PATIENT_READ, STALE_READ, Decision, Send, Stop
from raftkv.client.endpoints import Directory
from raftkv.client.retry import Retry
from raftkv.errors import RaftKVError

SILENT_ATTEMPTS_MAX: Final = 5
"""Of a PATIENT_READ, in a row: some seconds, in which a member may stand still without being gone."""


class Direct(Retry):
    """A call to one member that goes nowhere else: `status` asks everyone in person."""

    __slots__ = ("_address", "_repeated", "_silences")

    def __init__(
        self, directory: Directory, address: str, now: float, deadline: float, attempt_s: float, kind: int = STALE_READ
    ) -> None:
        super().__init__(directory, kind, now, deadline, attempt_s, lambda: 0.0)
        self._address = address
        self._repeated = False
        self._silences = 0  # attempts in a row without a sign of life

    def _send(self, now: float, address: str, forward: bool) -> Send:
        """Nobody else waits for his turn, so that connecting may take as long as all of it."""
        send = super()._send(now, address, forward)
        self.current = send._replace(connect_deadline=send.attempt_deadline)
        return self.current

    def on_silence(self, now: float, *, heard: bool) -> Decision:
        """Who does what takes long may be silent for a while, too: nobody else can be asked, and to ask again would begin anew."""
        self._silences = 0 if heard else self._silences + 1
        return super().on_silence(
            now, heard=heard or (self._kind == PATIENT_READ and self._silences < SILENT_ATTEMPTS_MAX)
        )

    def on_lost(self, now: float, error: RaftKVError) -> Decision:
        """An old connection may have died unnoticed, so the member is asked once more on a new one."""
        decision = super().on_lost(now, error)
        if self._repeated or now >= self.deadline:
            return decision
        self._repeated = True
        return self._send(now, self._address, False)

    def _choose(self, now: float) -> Decision:
        if now >= self.deadline:
            return self._expired(now)
        if self.current is None:
            return self._send(now, self._address, False)
        return Stop(self._tried[self._address])

    def _back_off(self, now: float) -> Decision:
        return self._choose(now)

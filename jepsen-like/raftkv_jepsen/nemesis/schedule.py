"""What goes wrong when: rest, one fault or several at once, heal, wait for health, and again; all of it drawn from the seed.

Every kind is drawn once before any is drawn again. After each healing the cluster has to be ready and to take writes within a bound: that is
a promise too, and checked as one.
"""

import time
from typing import Final, Sequence

from raftkv_jepsen.checkers.verdict import Verdict
from raftkv_jepsen.history import Fault
from raftkv_jepsen.machines.waiting import wait_until
from raftkv_jepsen.nemesis.arena import Arena, FaultUnavailable, Injection, Kind, Occupied
from raftkv_jepsen.recorder import Recorder

REST_S: Final = (1.0, 3.0)
HOLD_S: Final = (1.5, 6.0)
LOOK_S: Final = 0.25
TOGETHER: Final = (1, 1, 1, 2, 2, 3)
WRITES_AFTER: Final = 5
INJECTED_S: Final = 12.0
"""A fault is not begun when less than this is left: it would only be cut short."""


class Schedule:
    """Runs on the main thread until the time is over."""

    def __init__(self, arena: Arena, kinds: Sequence[Kind], recorder: Recorder, *, recovery_s: float) -> None:
        self._arena = arena
        self._kinds = list(kinds)
        self._recorder = recorder
        self._recovery_s = recovery_s
        self._deck: list[Kind] = []
        self._on: list[tuple[Kind, Injection, Fault]] = []
        self.skipped: dict[str, str] = {}
        self.recoveries_s: list[float] = []
        self.recovery = Verdict("recovery")
        for kind in self._kinds:
            reason = arena.lacks.get(kind.group, "") or kind.unavailable(arena)
            if kind.own and not arena.is_raftkv:
                reason = "it is made for raftkv's own files, command line and protocol"
            if reason:
                self.skipped[kind.name] = reason
        self._kinds = [kind for kind in self._kinds if kind.name not in self.skipped]
        self.used: set[Kind] = set()

    def run(self, ends_s: float) -> None:
        """Until this reading of the monotonic clock; everything is healed then."""
        draw = self._arena.draw
        while time.monotonic() < ends_s:
            left_s = ends_s - time.monotonic()
            self._hold(min(left_s, draw.uniform(*REST_S)))
            if not self._kinds or ends_s - time.monotonic() < INJECTED_S / 4:
                continue
            self._inject_some(draw.choice(TOGETHER))
            self._hold(max(0.0, min(ends_s - time.monotonic(), draw.uniform(*HOLD_S))))
            self.heal()
            self.wait_healthy()

    def heal(self) -> None:
        """Everything, in the opposite order."""
        while self._on:
            kind, injection, fault = self._on.pop()
            try:
                injection.heal()
            except AssertionError as error:
                self.recovery.accuse(f"{kind.name} ({injection.detail}) could not be healed: {error}")
            self._recorder.history.fault_ended(fault, self._recorder.now_ns())
        for node in self._arena.nodes:
            self._arena.start(node)
        self._arena.busy.clear()

    def wait_healthy(self) -> None:
        """Everybody is ready and writes are acknowledged, or a promise is broken."""
        arena, began_s = self._arena, time.monotonic()
        wanted = arena.writes_ok() + WRITES_AFTER

        def healthy() -> bool:
            arena.look_for_crashes()
            return arena.writes_ok() >= wanted and all(node.running and node.is_ready() for node in arena.nodes)

        def seen() -> object:
            return {node.name: node.http_get("/readyz") if node.running else "ended" for node in arena.nodes}

        try:
            wait_until(healthy, "health", deadline_s=self._recovery_s, seen=seen, interval_s=0.1)
        except AssertionError as error:
            self.recovery.accuse(f"not healthy within the bound after healing: {error}")
            arena.say(f"NOT HEALTHY: {error}")
        self.recoveries_s.append(time.monotonic() - began_s)
        slowest_s = max(self.recoveries_s)
        self.recovery.detail = f"{len(self.recoveries_s)} healings, at most {slowest_s:.1f} s to health"

    def _inject_some(self, count: int) -> None:
        for _ in range(count):
            self._inject_one()
            if not self._on or self._on[-1][0].alone:
                return

    def _inject_one(self) -> None:
        arena, history = self._arena, self._recorder.history
        if not self._deck:
            self._deck = list(self._kinds)
            arena.draw.shuffle(self._deck)
        for position in range(len(self._deck) - 1, -1, -1):
            kind = self._deck[position]
            if kind.alone and self._on:
                continue
            began_ns = self._recorder.now_ns()
            try:
                injection = kind.inject(arena)
            except Occupied:
                continue
            except FaultUnavailable as error:
                del self._deck[position]
                self.skipped[kind.name] = str(error)
                self._kinds = [other for other in self._kinds if other is not kind]
                arena.say(f"skipping {kind.name}: {error}")
                return
            except AssertionError as error:
                self.recovery.accuse(f"{kind.name} could not be carried out: {error}")
                injection = Injection(f"given up: {str(error)[:200]}", lambda: None)
            del self._deck[position]
            self.used.add(kind)
            if kind.begins_late:
                began_ns = self._recorder.now_ns()
            self._on.append((kind, injection, history.fault_began(kind.name, injection.detail, began_ns)))
            arena.say(f"{kind.name}: {injection.detail}")
            return

    def _hold(self, seconds: float) -> None:
        ends_s = time.monotonic() + seconds
        while (left_s := ends_s - time.monotonic()) > 0:
            time.sleep(min(LOOK_S, left_s))
            self._arena.look_for_crashes()

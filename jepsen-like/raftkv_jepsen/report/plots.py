"""Plots over time as inline SVG: latency and throughput, with the time of each fault shaded behind them and named in lanes above.

A fault has a bar in the first lane that has room for it and its name, so faults that overlap stay readable, and a shade through the whole plot; where
several are on, the shade is darker. Where an hour's faults would need too many lanes, names that have no room in their bars are left to hovering.
"""

from html import escape
from math import log10
from typing import Final, Sequence

from raftkv_jepsen.history import FAIL, INFO, NEVER_NS, OK, Fault
from raftkv_jepsen.report.figures import NS_PER_S, WAITS, Figures

WIDTH: Final = 1100
BODY: Final = 230
"""Height of what is plotted."""
LEFT, RIGHT, TITLE, BOTTOM = 62, 26, 22, 26
LANE: Final = 15
LANES_MAX: Final = 12
LETTER: Final = 5.6
"""Width of a letter in a lane."""
COLOURS: Final = {OK: "#2b7a3f", FAIL: "#b86e00", INFO: "#b3261e"}
WORDS: Final = {OK: "ok", FAIL: "refused (surely not done)", INFO: "unknown"}
DOTS_MAX: Final = 12_000
BARS: Final = ("#5c6bc0", "#c2564b", "#3f8f5a", "#b08400", "#8e5aa8", "#2f8f8a", "#7a6a58", "#6b7f2a")
"""One per kind of fault, dark enough for white letters."""


class Axes:
    """Time to the right, something else upwards; `top` is where the body begins."""

    def __init__(self, seconds: float, low: float, high: float, lanes: int = 0) -> None:
        self.seconds = max(seconds, 0.001)
        self.low, self.high = low, high
        self.top = TITLE + LANE * lanes + 4
        self.bottom = self.top + BODY
        self.height = self.bottom + BOTTOM

    def x(self, at_s: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * min(max(at_s / self.seconds, 0.0), 1.0)

    def y(self, value: float) -> float:
        share = (value - self.low) / max(self.high - self.low, 1e-9)
        return self.bottom - BODY * min(max(share, 0.0), 1.0)


def lanes_of(faults: Sequence[Fault], axes: Axes, *, names: bool) -> list[int]:
    """The lane of each fault: the first that has room for its bar, and with `names` for its name beside a bar that is too short."""
    ends: list[float] = []
    lanes = []
    for fault in faults:
        begin, end = _span(fault, axes)
        if names and not _fits(fault, begin, end):
            room = LETTER * len(fault.name) + 3
            begin, end = (begin - room, end) if end + room > WIDTH else (begin, end + room)
        lane = next((lane for lane, until in enumerate(ends) if until <= begin), len(ends))
        ends[lane:] = [end + 4, *ends[lane + 1 :]]
        lanes.append(lane)
    return lanes


def _span(fault: Fault, axes: Axes) -> tuple[float, float]:
    ended_s = axes.seconds if fault.ended_ns == NEVER_NS else fault.ended_ns / NS_PER_S
    return axes.x(fault.began_ns / NS_PER_S), axes.x(ended_s)


def _fits(fault: Fault, begin: float, end: float) -> bool:
    return LETTER * len(fault.name) + 4 <= end - begin


def _faults(faults: Sequence[Fault], lanes: Sequence[int], axes: Axes, *, names: bool) -> list[str]:
    kinds = list(dict.fromkeys(fault.name for fault in faults))
    parts = []
    for fault, lane in zip(faults, lanes, strict=True):
        begin, end = _span(fault, axes)
        colour = BARS[kinds.index(fault.name) % len(BARS)]
        width, y = max(2.0, end - begin), TITLE + LANE * lane
        words = escape(f"{fault.name}: {fault.detail}")
        parts.append(
            f'<g><title>{words}</title><rect x="{begin:.1f}" y="{axes.top}" width="{width:.1f}" height="{BODY}"'
            f' fill="{colour}" fill-opacity=".13"/>'
            f'<rect x="{begin:.1f}" y="{y}" width="{width:.1f}" height="{LANE - 2}" rx="2" fill="{colour}"/>'
            f"{_name(fault, begin, begin + width, y + 10, names=names)}</g>"
        )
    return parts


def _name(fault: Fault, begin: float, end: float, y: int, *, names: bool) -> str:
    if _fits(fault, begin, end):
        return f'<text x="{begin + 3:.1f}" y="{y}" class="on">{escape(fault.name)}</text>'
    if not names:
        return ""
    if end + LETTER * len(fault.name) + 3 > WIDTH:
        return f'<text x="{begin - 3:.1f}" y="{y}" class="beside" text-anchor="end">{escape(fault.name)}</text>'
    return f'<text x="{end + 3:.1f}" y="{y}" class="beside">{escape(fault.name)}</text>'


def _frame(title: str, axes: Axes, faults: list[str], marks: Sequence[tuple[float, str]]) -> list[str]:
    parts = [
        f'<div class="wide"><svg viewBox="0 0 {WIDTH} {axes.height}" role="img" aria-label="{escape(title)}">',
        f'<text x="{LEFT}" y="14" class="title">{escape(title)}</text>',
        *faults,
    ]
    for value, words in marks:
        y = axes.y(value)
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#bbb" stroke-width=".6"/>'
            f'<text x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{escape(words)}</text>'
        )
    step_s = next(step for step in (1, 2, 5, 10, 30, 60, 300, 600, 3600, 1e9) if axes.seconds / step <= 14)
    at_s = 0.0
    while at_s <= axes.seconds:
        x = axes.x(at_s)
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{axes.bottom}" y2="{axes.bottom + 4}" stroke="#777"/>'
            f'<text x="{x:.1f}" y="{axes.bottom + 16}" text-anchor="middle">{at_s:g} s</text>'
        )
        at_s += step_s
    return parts


def _axes(figures: Figures, low: float, high: float) -> tuple[Axes, list[str]]:
    """Axes with room for the lanes, and the faults drawn."""
    seconds = figures.ended_ns / NS_PER_S
    scale = Axes(seconds, low, high)
    lanes, names = lanes_of(figures.faults, scale, names=True), True
    if max(lanes, default=0) >= LANES_MAX:
        lanes, names = lanes_of(figures.faults, scale, names=False), False
    axes = Axes(seconds, low, high, max(lanes, default=-1) + 1)
    return axes, _faults(figures.faults, lanes, axes, names=names)


def latency_plot(figures: Figures) -> str:
    """One dot per operation, on a logarithmic scale; unknown ones at the top. What waits for others is left out."""
    axes, faults = _axes(figures, -0.5, 4.3)
    marks = [(0.0, "1 ms"), (1.0, "10 ms"), (2.0, "100 ms"), (3.0, "1 s"), (4.0, "10 s")]
    parts = _frame("latency of each operation, by when it began (unknown: at the top)", axes, faults, marks)
    dots = [o for o in figures.operations if o.function not in WAITS and o.invoked_ns <= figures.ended_ns]
    stride = max(1, len(dots) // DOTS_MAX)
    for number, operation in enumerate(dots):
        if operation.outcome == OK and number % stride:
            continue
        if operation.completed_ns == NEVER_NS:
            height = 4.2
        else:
            height = log10(max(0.35, (operation.completed_ns - operation.invoked_ns) / 1e6))
        size = "1.4" if operation.outcome == OK else "1.9"
        parts.append(
            f'<circle cx="{axes.x(operation.invoked_ns / NS_PER_S):.1f}" cy="{axes.y(height):.1f}" r="{size}"'
            f' fill="{COLOURS[operation.outcome]}"/>'
        )
    return "".join([*parts, _legend(), "</svg></div>"])


def throughput_plot(figures: Figures) -> str:
    """Operations per second, by what came of them."""
    seconds = max(1, int(figures.ended_ns / NS_PER_S) + 1)
    rates = {outcome: [0] * seconds for outcome in COLOURS}
    for operation in figures.operations:
        at_ns = operation.invoked_ns if operation.completed_ns == NEVER_NS else operation.completed_ns
        if at_ns < figures.ended_ns:
            rates[operation.outcome][int(at_ns / NS_PER_S)] += 1
    highest = max(max(row) for row in rates.values()) or 1
    axes, faults = _axes(figures, 0, highest * 1.05)
    marks = [(0, "0"), (highest / 2, f"{highest / 2:g}"), (highest, str(highest))]
    parts = _frame("operations that ended in each second", axes, faults, marks)
    for outcome, row in rates.items():
        points = " ".join(f"{axes.x(at_s + 0.5):.1f},{axes.y(rate):.1f}" for at_s, rate in enumerate(row))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{COLOURS[outcome]}" stroke-width="1.6"/>')
    return "".join([*parts, _legend(), "</svg></div>"])


def _legend() -> str:
    places = {OK: WIDTH - 320, FAIL: WIDTH - 270, INFO: WIDTH - 100}
    return "".join(
        f'<circle cx="{x}" cy="10" r="4.5" fill="{COLOURS[outcome]}"/><text x="{x + 8}" y="14">{WORDS[outcome]}</text>'
        for outcome, x in places.items()
    )

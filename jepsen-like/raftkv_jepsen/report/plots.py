"""Plots over time as inline SVG: latency and throughput, with the time of each fault shaded behind them."""

from html import escape
from math import log10
from typing import Final, Sequence

from raftkv_jepsen.history import FAIL, INFO, NEVER_NS, OK, Fault
from raftkv_jepsen.report.figures import NS_PER_S, WAITS, Figures

WIDTH, HEIGHT = 1100, 280
LEFT, TOP, BOTTOM = 60, 34, 26
COLOURS: Final = {OK: "#2b7a3f", FAIL: "#c77c02", INFO: "#b3261e"}
WORDS: Final = {OK: "ok", FAIL: "refused", INFO: "unknown"}
DOTS_MAX: Final = 12_000
SHADES: Final = ("#e8eaf6", "#fde9e7", "#e6f4ea", "#fff4d6", "#f3e5f5", "#e0f2f1")


class Axes:
    """Time to the right, something else upwards."""

    def __init__(self, seconds: float, low: float, high: float) -> None:
        self.seconds = max(seconds, 0.001)
        self.low, self.high = low, high

    def x(self, at_s: float) -> float:
        return LEFT + (WIDTH - LEFT - 10) * min(max(at_s / self.seconds, 0.0), 1.0)

    def y(self, value: float) -> float:
        share = (value - self.low) / max(self.high - self.low, 1e-9)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(max(share, 0.0), 1.0)


def _frame(title: str, axes: Axes, faults: Sequence[Fault], marks: Sequence[tuple[float, str]]) -> list[str]:
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">',
        f'<text x="{LEFT}" y="12" class="title">{escape(title)}</text>',
    ]
    names = list(dict.fromkeys(fault.name for fault in faults))
    for fault in faults:
        begin = axes.x(fault.began_ns / NS_PER_S)
        end = axes.x(axes.seconds if fault.ended_ns == NEVER_NS else fault.ended_ns / NS_PER_S)
        shade = SHADES[names.index(fault.name) % len(SHADES)]
        words = escape(f"{fault.name}: {fault.detail}")
        parts.append(
            f'<rect x="{begin:.1f}" y="{TOP}" width="{max(1.0, end - begin):.1f}" height="{HEIGHT - TOP - BOTTOM}"'
            f' fill="{shade}" stroke="#bbb" stroke-width=".4"><title>{words}</title></rect>'
            f'<text x="{begin:.1f}" y="{TOP - 3}" class="fault" transform="rotate(-9 {begin:.1f} {TOP - 3})">{escape(fault.name)}</text>'
        )
    for value, words in marks:
        y = axes.y(value)
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - 10}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ccc" stroke-width=".5"/>'
            f'<text x="{LEFT - 5}" y="{y + 3:.1f}" text-anchor="end">{escape(words)}</text>'
        )
    step_s = next(step for step in (1, 2, 5, 10, 30, 60, 300, 600, 3600, 1e9) if axes.seconds / step <= 14)
    at_s = 0.0
    while at_s <= axes.seconds:
        parts.append(f'<text x="{axes.x(at_s):.1f}" y="{HEIGHT - 8}" text-anchor="middle">{at_s:g} s</text>')
        at_s += step_s
    return parts


def latency_plot(figures: Figures) -> str:
    """One dot per operation, on a logarithmic scale; unknown ones at the time that was waited for them."""
    seconds = figures.ended_ns / NS_PER_S
    axes = Axes(seconds, -0.5, 4.2)
    marks = [(0.0, "1 ms"), (1.0, "10 ms"), (2.0, "100 ms"), (3.0, "1 s"), (4.0, "10 s")]
    parts = _frame("latency", axes, figures.faults, marks)
    dots = [o for o in figures.operations if o.function not in WAITS]
    stride = max(1, len(dots) // DOTS_MAX)
    for number, operation in enumerate(dots):
        if operation.outcome == OK and number % stride:
            continue
        if operation.completed_ns == NEVER_NS:
            height = 4.1
        else:
            height = log10(max(0.3, (operation.completed_ns - operation.invoked_ns) / 1e6))
        parts.append(
            f'<circle cx="{axes.x(operation.invoked_ns / NS_PER_S):.1f}" cy="{axes.y(height):.1f}" r="1.3"'
            f' fill="{COLOURS[operation.outcome]}"/>'
        )
    return "".join([*parts, _legend(), "</svg>"])


def throughput_plot(figures: Figures) -> str:
    """Operations per second, by what came of them."""
    seconds = max(1, int(figures.ended_ns / NS_PER_S) + 1)
    rates = {outcome: [0] * seconds for outcome in COLOURS}
    for operation in figures.operations:
        at_ns = operation.invoked_ns if operation.completed_ns == NEVER_NS else operation.completed_ns
        if at_ns < figures.ended_ns:
            rates[operation.outcome][int(at_ns / NS_PER_S)] += 1
    highest = max(max(row) for row in rates.values()) or 1
    axes = Axes(seconds, 0, highest * 1.1)
    parts = _frame(
        "operations per second",
        axes,
        figures.faults,
        [(0, "0"), (highest / 2, f"{highest / 2:g}"), (highest, str(highest))],
    )
    for outcome, row in rates.items():
        points = " ".join(f"{axes.x(at_s + 0.5):.1f},{axes.y(rate):.1f}" for at_s, rate in enumerate(row))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{COLOURS[outcome]}" stroke-width="1.4"/>')
    return "".join([*parts, _legend(), "</svg>"])


def _legend() -> str:
    return "".join(
        f'<circle cx="{WIDTH - 250 + 85 * number}" cy="8" r="4" fill="{COLOURS[outcome]}"/>'
        f'<text x="{WIDTH - 242 + 85 * number}" y="12">{WORDS[outcome]}</text>'
        for number, outcome in enumerate(COLOURS)
    )

"""The operations around an anomaly, as Jepsen draws them: a row per process, a bar per operation, what was asked and answered in it.

The evidence has a border and its number in the list below the drawing; words that have no room in a bar are left out, and shown by hovering.
"""

from html import escape
from typing import Final, Sequence

from raftkv_jepsen.history import NEVER_NS, Fault, Operation
from raftkv_jepsen.report.plots import COLOURS

WIDTH: Final = 1100
LEFT: Final = 50
RIGHT: Final = 20
TOP: Final = 34
ROW: Final = 30
BAR: Final = 16
LETTER: Final = 5.2
AROUND_NS: Final = 200_000_000
BARS_MAX: Final = 160
TICKS: Final = 6


def around(evidence: Sequence[Operation], operations: Sequence[Operation]) -> list[Operation]:
    """What happened to the same objects at the same time, the evidence included."""
    keys = {operation.key for operation in evidence}
    begin_ns = min(operation.invoked_ns for operation in evidence) - AROUND_NS
    ends = [operation.completed_ns for operation in evidence if operation.completed_ns != NEVER_NS]
    end_ns = max([*ends, max(operation.invoked_ns for operation in evidence)]) + AROUND_NS
    found = [
        operation
        for operation in operations
        if operation.key in keys and operation.invoked_ns <= end_ns and operation.completed_ns >= begin_ns
    ]
    chosen = {id(operation) for operation in evidence}
    spare = [operation for operation in found if id(operation) not in chosen]
    kept = [operation for operation in found if id(operation) in chosen] + spare[-BARS_MAX:]
    return sorted(kept, key=lambda operation: operation.invoked_ns)


class _Scale:
    """From time to a place."""

    def __init__(self, begin_ns: int, end_ns: int) -> None:
        self.begin_ns, self.end_ns = begin_ns, max(end_ns, begin_ns + 1)

    def x(self, at_ns: int) -> float:
        at_ns = min(max(at_ns, self.begin_ns), self.end_ns)
        return LEFT + (WIDTH - LEFT - RIGHT) * (at_ns - self.begin_ns) / (self.end_ns - self.begin_ns)


def timeline(evidence: Sequence[Operation], operations: Sequence[Operation], faults: Sequence[Fault] = ()) -> str:
    """An SVG. Hovering shows an operation as the history has it."""
    shown = around(evidence, operations)
    # What began long before is shown from the edge on: a slow one must not make all others thin.
    begin_ns = min(operation.invoked_ns for operation in evidence) - AROUND_NS
    ends = [operation.completed_ns for operation in evidence if operation.completed_ns != NEVER_NS]
    scale = _Scale(max(0, begin_ns), max([*ends, max(o.invoked_ns for o in evidence)]) + AROUND_NS)
    rows = {process: number for number, process in enumerate(sorted({operation.process for operation in shown}))}
    height = TOP + ROW * len(rows) + 4
    numbers = {id(operation): number for number, operation in enumerate(evidence, 1)}
    parts = [
        f'<div class="wide"><svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="operations around the anomaly">',
        *_background(scale, height, faults),
    ]
    for process, number in rows.items():
        y = TOP + ROW * number
        parts.append(
            f'<text x="6" y="{y + 20}">p{process}</text><line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}" stroke="#e4e4e4"/>'
        )
    parts += [
        _bar(operation, scale, TOP + ROW * rows[operation.process], numbers.get(id(operation))) for operation in shown
    ]
    return "".join([*parts, "</svg></div>"])


def _background(scale: _Scale, height: int, faults: Sequence[Fault]) -> list[str]:
    parts = []
    for fault in faults:
        if fault.began_ns <= scale.end_ns and fault.ended_ns >= scale.begin_ns:
            begin, end = scale.x(fault.began_ns), scale.x(fault.ended_ns)
            parts.append(
                f'<rect x="{begin:.1f}" y="18" width="{max(1.0, end - begin):.1f}" height="{height - 18}" fill="#5c6bc0" fill-opacity=".1">'
                f"<title>{escape(fault.name)}: {escape(fault.detail)}</title></rect>"
                f'<text x="{begin + 3:.1f}" y="28">{escape(fault.name)}</text>'
            )
    for tick in range(TICKS + 1):
        at_ns = scale.begin_ns + (scale.end_ns - scale.begin_ns) * tick // TICKS
        x = scale.x(at_ns)
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="15" y2="{height}" stroke="#ddd" stroke-width=".7"/>'
            f'<text x="{x:.1f}" y="12" text-anchor="{"end" if tick == TICKS else "middle"}">{at_ns / 1e9:.3f} s</text>'
        )
    return parts


def _bar(operation: Operation, scale: _Scale, y: int, number: int | None) -> str:
    x = scale.x(operation.invoked_ns)
    width = max(2.5, scale.x(operation.completed_ns) - x)
    words = f"{operation.function} {_short(operation.argument)} {_short(operation.result)}".replace("  ", " ")
    room = int((width - 4) / LETTER)
    label = words if len(words) <= room else words[: room - 2] + ".." if room > 6 else ""
    border = "none" if number is None else "#000"
    mark = "" if number is None else f'<text x="{x:.1f}" y="{y + 9}" class="mark">{number}</text>'
    return (
        f'<g><title>{escape(str(operation))}</title><rect x="{x:.1f}" y="{y + 11}" width="{width:.1f}" height="{BAR}" rx="2"'
        f' fill="{COLOURS[operation.outcome]}" fill-opacity=".35" stroke="{border}" stroke-width="1.3"/>'
        f'<text x="{x + 3:.1f}" y="{y + 22}" class="bar">{escape(label)}</text>{mark}</g>'
    )


def _short(value: object) -> str:
    text = "" if value is None else str(value)
    return text if len(text) <= 40 else text[:38] + ".."

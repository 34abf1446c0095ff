"""The operations around an anomaly, as Jepsen draws them: a row per process, a bar per operation, what was asked and answered in it."""

from html import escape
from typing import Final, Sequence

from raftkv_jepsen.history import NEVER_NS, Operation
from raftkv_jepsen.report.plots import COLOURS

WIDTH: Final = 1100
LEFT: Final = 50
ROW: Final = 22
AROUND_NS: Final = 200_000_000
BARS_MAX: Final = 160


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


def timeline(evidence: Sequence[Operation], operations: Sequence[Operation]) -> str:
    """An SVG; the evidence has a thick border. Hovering shows an operation as the history has it."""
    shown = around(evidence, operations)
    begin_ns = min(operation.invoked_ns for operation in shown)
    ends = [operation.completed_ns for operation in shown if operation.completed_ns != NEVER_NS]
    end_ns = max([*ends, max(operation.invoked_ns for operation in shown) + AROUND_NS])
    rows = {process: number for number, process in enumerate(sorted({operation.process for operation in shown}))}
    height = 20 + ROW * len(rows)
    scale = (WIDTH - LEFT - 10) / max(1, end_ns - begin_ns)
    marked = {id(operation) for operation in evidence}
    parts = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="operations around the anomaly">']
    for process, number in rows.items():
        parts.append(f'<text x="4" y="{20 + ROW * number + 14}">p{process}</text>')
    for operation in shown:
        x = LEFT + (operation.invoked_ns - begin_ns) * scale
        width = max(2.0, (min(operation.completed_ns, end_ns) - operation.invoked_ns) * scale)
        y = 20 + ROW * rows[operation.process]
        border = "#000" if id(operation) in marked else "none"
        words = f"{operation.function} {_short(operation.argument)} {_short(operation.result)}"
        parts.append(
            f'<g><title>{escape(str(operation))}</title><rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{ROW - 4}" rx="2"'
            f' fill="{COLOURS[operation.outcome]}" fill-opacity=".35" stroke="{border}" stroke-width="1.5"/>'
            f'<text x="{x + 2:.1f}" y="{y + 13}" class="bar">{escape(words)}</text></g>'
        )
    span = f"{begin_ns / 1e9:.3f} s to {end_ns / 1e9:.3f} s"
    return "".join([*parts, f'<text x="{LEFT}" y="12">{span}</text></svg>'])


def _short(value: object) -> str:
    text = "" if value is None else str(value)
    return text if len(text) <= 18 else text[:16] + ".."

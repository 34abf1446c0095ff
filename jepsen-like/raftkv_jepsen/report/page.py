"""The page: verdict, what each checker says, plots, what clients felt under each fault, and the operations around every anomaly.

One HTML file without scripts and without anything from elsewhere, so that it can be mailed and still be read in ten years.
"""

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Final, Mapping, Sequence

from raftkv_jepsen.checkers.verdict import INVALID, UNKNOWN, VALID, Verdict
from raftkv_jepsen.history import NEVER_NS, Operation
from raftkv_jepsen.report.figures import Figures, UnderFault
from raftkv_jepsen.report.plots import latency_plot, throughput_plot
from raftkv_jepsen.report.timeline import timeline

if TYPE_CHECKING:
    from raftkv_jepsen.runner import Result

NAME: Final = "report.html"
COLOURS: Final = {VALID: "#2b7a3f", INVALID: "#b3261e", UNKNOWN: "#c77c02"}
STYLE: Final = """
body{font:14px/1.45 system-ui,sans-serif;max-width:1140px;margin:2em auto;padding:0 1em;color:#222}
svg{width:100%;height:auto;border:1px solid #ddd;background:#fff;margin:.4em 0}
svg text{font:10px sans-serif;fill:#444} svg .title{font-weight:bold;font-size:12px} svg .fault{font-size:7px} svg .bar{font-size:8px}
table{border-collapse:collapse;margin:.6em 0} th,td{padding:.2em .7em;border-bottom:1px solid #ddd;text-align:left;vertical-align:top}
td.n{text-align:right;font-variant-numeric:tabular-nums} h1 span{padding:.05em .4em;border-radius:.2em;color:#fff} code,pre{font-size:12px}
pre{white-space:pre-wrap;background:#f6f6f6;padding:.6em}
"""


def write_report(result: "Result", folder: Path) -> Path:
    """The file in `folder`."""
    path = folder / NAME
    path.write_text(page(result))
    return path


def page(result: "Result") -> str:
    """The whole page."""
    options, figures = result.options, result.figures
    body = [
        f'<h1>raftkv under faults: <span style="background:{COLOURS[result.word]}">{result.word}</span></h1>',
        f"<p>{escape(result.line())}</p>",
        f"<p>{options.nodes} nodes, {options.time_s:g} s, seed {options.seed}, {options.rate:g} operations per second asked for,"
        f" faults: {escape(', '.join(options.nemesis))}, workloads: {escape(', '.join(options.workloads))},"
        f" engine: {escape(options.engine)}</p>",
        _verdicts(result.verdicts),
        latency_plot(figures),
        throughput_plot(figures),
        "<h2>What clients felt under each fault</h2>",
        _under_faults(figures.under_faults()),
        _side_by_side(options.engine, figures, result.beside),
        _skipped({**result.skipped_workloads, **result.skipped}),
        _anomalies(result.verdicts, result.operations),
        "<h2>All faults</h2>",
        _faults(result),
        "<p>Beside this page: history.jsonl (all operations and faults), the log of every node.</p>",
    ]
    title = f"raftkv under faults: {result.word}"
    return f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>{"".join(body)}</html>'


def _verdicts(verdicts: Sequence[Verdict]) -> str:
    rows = "".join(
        f'<tr><td style="color:{COLOURS[verdict.word]}"><b>{verdict.word}</b></td><td>{escape(verdict.checker)}</td>'
        f"<td>{escape(verdict.detail)}</td></tr>"
        for verdict in verdicts
    )
    return f"<table><tr><th>verdict</th><th>checker</th><th>what was checked</th></tr>{rows}</table>"


def _under_faults(rows: Sequence[UnderFault]) -> str:
    if not rows:
        return "<p>There was none.</p>"
    head = "<tr><th>fault</th><th>times</th><th>longest without an acknowledged write, s</th><th>median, ms</th><th>p99, ms</th><th>refused</th><th>unknown</th></tr>"
    lines = "".join(
        f'<tr><td>{escape(row.name)}</td><td class="n">{row.times}</td><td class="n">{row.gap_s:.2f}</td><td class="n">{row.median_ms:.1f}</td>'
        f'<td class="n">{row.p99_ms:.0f}</td><td class="n">{row.failed}</td><td class="n">{row.unknown}</td></tr>'
        for row in rows
    )
    return f"<table>{head}{lines}</table>"


def _side_by_side(engine: str, figures: Figures, beside: Mapping[str, Figures]) -> str:
    """Unavailability and latency under each fault that more than one of them met."""
    if not beside:
        return ""
    tables = {
        name: {row.name: row for row in each.under_faults()} for name, each in {engine: figures, **beside}.items()
    }
    head = "".join(f'<th colspan="3">{escape(name)}</th>' for name in tables)
    units = "<th>longest gap, s</th><th>median, ms</th><th>p99, ms</th>" * len(tables)
    lines = []
    for fault in dict.fromkeys(name for table in tables.values() for name in table):
        cells = []
        for table in tables.values():
            row = table.get(fault)
            values = ("", "", "") if row is None else (f"{row.gap_s:.2f}", f"{row.median_ms:.1f}", f"{row.p99_ms:.0f}")
            cells += [f'<td class="n">{value}</td>' for value in values]
        lines.append(f"<tr><td>{escape(fault)}</td>{''.join(cells)}</tr>")
    return f"<h2>Side by side</h2><table><tr><th></th>{head}</tr><tr><th>fault</th>{units}</tr>{''.join(lines)}</table>"


def _skipped(skipped: dict[str, str]) -> str:
    if not skipped:
        return ""
    rows = "".join(f"<li>{escape(name)}: {escape(reason)}</li>" for name, reason in skipped.items())
    return f"<h2>What was skipped, and why</h2><ul>{rows}</ul>"


def _anomalies(verdicts: Sequence[Verdict], operations: Sequence[Operation]) -> str:
    parts = []
    for verdict in verdicts:
        if not verdict.faults:
            continue
        words = "\n".join(verdict.faults[:20])
        parts.append(f"<h2>{escape(verdict.checker)}: {verdict.word}</h2><pre>{escape(words)}</pre>")
        if verdict.evidence:
            parts.append(timeline(verdict.evidence, operations))
            lines = "\n".join(str(operation) for operation in verdict.evidence)
            parts.append(f"<pre>{escape(lines)}</pre>")
    return "".join(parts)


def _faults(result: "Result") -> str:
    rows = "".join(
        f'<tr><td class="n">{fault.began_ns / 1e9:.1f}</td><td class="n">{"" if fault.ended_ns == NEVER_NS else f"{fault.ended_ns / 1e9:.1f}"}</td>'
        f"<td>{escape(fault.name)}</td><td>{escape(fault.detail)}</td></tr>"
        for fault in result.faults
    )
    return f"<table><tr><th>from, s</th><th>to, s</th><th>fault</th><th></th></tr>{rows}</table>"

"""The page: verdict, what each checker says, plots, what clients felt under each fault, and the operations around every anomaly.

One HTML file without scripts and without anything from elsewhere, so that it can be mailed and still be read in ten years.
"""

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Final, Mapping, Sequence

from raftkv_jepsen.checkers.verdict import INVALID, UNKNOWN, VALID, Verdict
from raftkv_jepsen.history import NEVER_NS, Operation
from raftkv_jepsen.report.figures import Figures, UnderFault, quantile
from raftkv_jepsen.report.plots import latency_plot, throughput_plot
from raftkv_jepsen.report.timeline import timeline

if TYPE_CHECKING:
    from raftkv_jepsen.runner import Result

NAME: Final = "report.html"
COLOURS: Final = {VALID: "#2b7a3f", INVALID: "#b3261e", UNKNOWN: "#c77c02"}
STYLE: Final = """
:root{color-scheme:light}
body{font:15px/1.5 system-ui,sans-serif;max-width:1140px;margin:1.5em auto;padding:0 1em;color:#1b1b1b;background:#fff}
h1{font-size:1.7em;line-height:1.3} h2{font-size:1.25em;margin:1.6em 0 .4em} h1 span{padding:.05em .4em;border-radius:.2em;color:#fff}
.wide{overflow-x:auto;margin:.5em 0} svg{display:block;box-sizing:border-box;width:100%;min-width:760px;height:auto;border:1px solid #ccc;background:#fff}
svg text{font:11px system-ui,sans-serif;fill:#333} svg .title{font-weight:600;font-size:13px} svg .bar{font-size:10px;fill:#111}
svg .on{fill:#fff;font-size:10px} svg .beside{font-size:10px;fill:#111} svg .mark{font-size:9px;font-weight:700;fill:#000}
table{border-collapse:collapse} th,td{padding:.25em .7em;border-bottom:1px solid #ddd;text-align:left;vertical-align:top} th{color:#444}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums} code,pre{font-size:12.5px} p.small{color:#555;font-size:13px;margin:.3em 0}
pre{white-space:pre-wrap;overflow-wrap:anywhere;background:#f4f4f4;padding:.7em;margin:.5em 0;border-radius:.3em}
"""
SHOWN_MAX: Final = 20
"""Sentences of one checker."""


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
        f'<p class="small">{options.nodes} nodes, {options.time_s:g} s, seed {options.seed}, {options.rate:g} operations per second asked for,'
        f" faults: {escape(', '.join(options.nemesis))}, workloads: {escape(', '.join(options.workloads))},"
        f" engine: {escape(options.engine)}</p>",
        _verdicts(result.verdicts),
        _anomalies(result),
        "<h2>Over time</h2>",
        latency_plot(figures),
        throughput_plot(figures),
        "<h2>What clients felt under each fault</h2>",
        _under_faults(figures.under_faults()),
        _side_by_side(options.engine, figures, result.beside),
        _skipped({**result.skipped_workloads, **result.skipped}),
        "<h2>All faults</h2>",
        _faults(result),
        '<p class="small">Beside this page: history.jsonl (all operations and faults), result.json (these figures), the log of every node.</p>',
    ]
    title = f"raftkv under faults: {result.word}"
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style>{''.join(body)}</html>"
    )


def _table(head: str, rows: str) -> str:
    """Wide ones scroll by themselves on small screens."""
    return f'<div class="wide"><table>{head}{rows}</table></div>'


def _verdicts(verdicts: Sequence[Verdict]) -> str:
    """The gravest first."""
    order = [INVALID, UNKNOWN, VALID]
    rows = "".join(
        f'<tr><td style="color:{COLOURS[verdict.word]}"><b>{verdict.word}</b></td><td>{escape(verdict.checker)}</td>'
        f"<td>{escape(verdict.detail)}</td></tr>"
        for verdict in sorted(verdicts, key=lambda verdict: order.index(verdict.word))
    )
    return _table("<tr><th>verdict</th><th>checker</th><th>what was checked</th></tr>", rows)


def _under_faults(rows: Sequence[UnderFault]) -> str:
    if not rows:
        return "<p>There was no fault.</p>"
    head = (
        '<tr><th>fault</th><th class="n">times</th><th class="n">longest without an acknowledged write, s</th>'
        '<th class="n">median, ms</th><th class="n">p99, ms</th><th class="n">refused</th><th class="n">unknown</th></tr>'
    )
    lines = "".join(
        f'<tr><td>{escape(row.name)}</td><td class="n">{row.times}</td><td class="n">{row.gap_s:.2f}</td><td class="n">{row.median_ms:.1f}</td>'
        f'<td class="n">{row.p99_ms:.0f}</td><td class="n">{row.failed}</td><td class="n">{row.unknown}</td></tr>'
        for row in rows
    )
    note = "Faults that overlap share what was felt. Latencies are those of operations that began while the fault was on and were answered."
    return f'{_table(head, lines)}<p class="small">{note}</p>'


def _side_by_side(engine: str, figures: Figures, beside: Mapping[str, Figures]) -> str:
    """Unavailability and latency under each fault that more than one of them met."""
    if not beside:
        return ""
    tables = {
        name: {row.name: row for row in each.under_faults()} for name, each in {engine: figures, **beside}.items()
    }
    head = "".join(f'<th colspan="3">{escape(name)}</th>' for name in tables)
    units = '<th class="n">longest gap, s</th><th class="n">median, ms</th><th class="n">p99, ms</th>' * len(tables)
    everything = "".join(
        f'<td class="n">{each.longest_gap_s:.2f}</td><td class="n">{quantile(latencies, 0.5):.1f}</td><td class="n">{quantile(latencies, 0.99):.0f}</td>'
        for each in (figures, *beside.values())
        for latencies in (each.latencies_ms(),)
    )
    lines = [f"<tr><td><b>the whole run</b></td>{everything}</tr>"]
    for fault in dict.fromkeys(name for table in tables.values() for name in table):
        cells = []
        for table in tables.values():
            row = table.get(fault)
            values = (
                ("-", "-", "-") if row is None else (f"{row.gap_s:.2f}", f"{row.median_ms:.1f}", f"{row.p99_ms:.0f}")
            )
            cells += [f'<td class="n">{value}</td>' for value in values]
        lines.append(f"<tr><td>{escape(fault)}</td>{''.join(cells)}</tr>")
    body = _table(f"<tr><th></th>{head}</tr><tr><th>fault</th>{units}</tr>", "".join(lines))
    note = "Each engine has its own leaders and its own luck: which member was hit, and which faults came at the same time, differs."
    return f'<h2>Side by side</h2>{body}<p class="small">{note} -: it did not meet this fault.</p>'


def _skipped(skipped: dict[str, str]) -> str:
    if not skipped:
        return ""
    rows = "".join(f"<li>{escape(name)}: {escape(reason)}</li>" for name, reason in skipped.items())
    return f"<h2>What was skipped, and why</h2><ul>{rows}</ul>"


def _anomalies(result: "Result") -> str:
    parts = []
    for verdict in result.verdicts:
        if not verdict.faults:
            continue
        words = "\n".join(verdict.faults[:SHOWN_MAX])
        more = len(verdict.faults) - SHOWN_MAX
        parts.append(f"<h2>{escape(verdict.checker)}: {verdict.word}</h2><pre>{escape(words)}</pre>")
        if more > 0:
            parts.append(f'<p class="small">and {more} more</p>')
        if verdict.evidence:
            parts.append(f"<p>Around the first of them, with what proves it numbered{_on_keys(verdict.evidence)}:</p>")
            parts.append(timeline(verdict.evidence, result.operations, result.faults))
            lines = "\n".join(f"{number:2}. {operation}" for number, operation in enumerate(verdict.evidence, 1))
            parts.append(f"<pre>{escape(lines)}</pre>")
    return "".join(parts)


def _on_keys(evidence: Sequence[Operation]) -> str:
    return f" ({escape(', '.join(sorted({operation.key for operation in evidence})[:4]))})"


def _faults(result: "Result") -> str:
    rows = "".join(
        f'<tr><td class="n">{fault.began_ns / 1e9:.1f}</td><td class="n">{"" if fault.ended_ns == NEVER_NS else f"{fault.ended_ns / 1e9:.1f}"}</td>'
        f"<td>{escape(fault.name)}</td><td>{escape(fault.detail)}</td></tr>"
        for fault in result.faults
    )
    head = '<tr><th class="n">from, s</th><th class="n">to, s</th><th>fault</th><th>of what</th></tr>'
    return _table(head, rows) if rows else "<p>There was none.</p>"

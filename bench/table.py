"""Turns rows into the tables that are printed: medians over rounds, and the ratio of the systems round by round."""

import statistics
from typing import Any, Callable, Iterable, Sequence

from speed import Row

SPEED_SECTIONS = ("puts", "gets", "txns", "open", "xl")


def summarize(rows: Iterable[Row]) -> list[Row]:
    """One row per section, load and driver of the speed sections: medians over the rounds."""
    groups: dict[tuple[str, str, str, str], list[Row]] = {}
    for row in rows:
        if row["section"] in SPEED_SECTIONS:
            groups.setdefault((row["section"], row["load"], row["system"], row["driver"]), []).append(row)
    return [_median_row(key, group) for key, group in groups.items()]


def _median_row(key: tuple[str, str, str, str], group: list[Row]) -> Row:
    section, load, system, driver = key
    summary: Row = {"section": section, "load": load, "system": system, "driver": driver, "rounds": len(group)}
    for name in ("ops_per_second", "p50_ms", "p99_ms", "p999_ms", "max_ms", "leader_stall_ms"):
        summary[name] = statistics.median(row[name] for row in group)
    summary["errors"] = sum(row["errors"] for row in group)
    summary["refused"] = sum(row["refused"] for row in group)
    summary["capped"] = any(row.get("capped", False) for row in group)
    who = group[0]["cpu_us_per_op"]
    summary["cpu_us_per_op"] = {
        name: statistics.median(row["cpu_us_per_op"].get(name, 0.0) for row in group) for name in who
    }
    return summary


def ratios(rows: list[Row]) -> list[Row]:
    """raftkv's throughput over etcd's, for each pair of drivers: in each round, and the median of those.

    Rounds are paired because the machine's mood changes over minutes and hits neighbours alike.
    """
    by_load: dict[tuple[str, str], dict[str, dict[int, float]]] = {}
    for row in rows:
        if row["section"] in ("puts", "gets", "txns", "xl"):
            drivers = by_load.setdefault((row["section"], row["load"]), {})
            drivers.setdefault(row["driver"], {})[row["round"]] = row["ops_per_second"]
    result = []
    for (section, load), drivers in by_load.items():
        for ours in (name for name in drivers if name.startswith("raftkv")):
            for theirs in (name for name in drivers if name.startswith("etcd")):
                common = sorted(drivers[ours].keys() & drivers[theirs].keys())
                if common:
                    each = [drivers[ours][number] / drivers[theirs][number] for number in common]
                    pair = {"section": section, "load": load, "raftkv": ours, "etcd": theirs}
                    result.append({**pair, "ratio": statistics.median(each), "per_round": each})
    return result


def render(rows: list[Row]) -> str:
    """Everything as text, for a terminal of about 120 columns."""
    parts = []
    summary = summarize(rows)
    for section in SPEED_SECTIONS:
        lines = [_speed_line(row) for row in summary if row["section"] == section]
        if lines:
            parts.append(
                _grid(
                    (
                        "load",
                        "driver",
                        "ops/s",
                        "p50 ms",
                        "p99 ms",
                        "max ms",
                        "loop held ms",
                        "CPU-us/op c/l/f",
                        "notes",
                    ),
                    lines,
                    section,
                )
            )
    pairs = [
        (
            row["section"],
            row["load"],
            row["raftkv"],
            row["etcd"],
            f"{row['ratio']:.2f}",
            " ".join(f"{one:.2f}" for one in row["per_round"]),
        )
        for row in ratios(rows)
    ]
    if pairs:
        parts.append(_grid(("section", "load", "raftkv by", "etcd by", "ratio", "per round"), pairs, "raftkv / etcd"))
    others = [_other_line(row) for row in rows if row["section"] not in SPEED_SECTIONS]
    if others:
        parts.append(_grid(("section", "load", "system", "figures"), others, "at rest and in trouble"))
    return "\n\n".join(parts)


def _speed_line(row: Row) -> tuple[str, ...]:
    cpu = "/".join(f"{us:.0f}" for us in row["cpu_us_per_op"].values())
    notes = [f"{row['errors']} errors"] if row["errors"] else []
    notes += [f"{row['refused']} not sent"] if row["refused"] else []
    notes += ["capped by its own limit"] if row["capped"] else []
    times = (f"{row[name]:.2f}" if row[name] else "" for name in ("p50_ms", "p99_ms", "max_ms", "leader_stall_ms"))
    return (row["load"], row["driver"], f"{row['ops_per_second']:.0f}", *times, cpu, ", ".join(notes))


def _other_line(row: Row) -> tuple[str, ...]:
    return (row["section"], row["load"], row["system"], _OTHER[row["section"]](row))


def _memory_text(row: Row) -> str:
    def mib(members: dict[str, Any], what: str) -> str:
        return "/".join(f"{member[what] / 2**20:.0f}" for member in members.values())

    text = f"RSS {mib(row['members'], 'rss')} MiB, of it anonymous {mib(row['members'], 'anonymous')}"
    if "disk_bytes" in row:
        text += ", disk " + "/".join(f"{size / 2**20:.0f}" for size in row["disk_bytes"].values())
    return text


def _startup_text(row: Row) -> str:
    return f"one member {row['one_member_seconds']:.2f} s, killed {row['one_killed_member_seconds']:.2f} s, whole cluster {row['whole_cluster_seconds']:.2f} s"


_OTHER: dict[str, Callable[[Row], str]] = {
    "memory": _memory_text,
    "startup": _startup_text,
    "idle": lambda row: f"{row['percent_total']:.2f} % of a core for all three",
    "failover": lambda row: f"median {row['median_ms']:.0f} ms, worst {row['worst_ms']:.0f} ms",
}


def _grid(header: tuple[str, ...], lines: Sequence[tuple[str, ...]], title: str) -> str:
    widths = [max(len(cell) for cell in column) for column in zip(header, *lines, strict=True)]

    def text(cells: tuple[str, ...]) -> str:
        return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()

    return "\n".join([f"== {title}", text(header), text(tuple("-" * width for width in widths)), *map(text, lines)])

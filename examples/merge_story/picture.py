"""A picture of both runs as SVG, drawn by hand: queue length, utilisation and delay over the hours. No library, so that the example runs anywhere."""

from pathlib import Path
from typing import Callable, Sequence

from merge_story.books import Books, Sample
from merge_story.platform import MACHINES

WIDTH, HEIGHT, LEFT, TOP, GAP = 900, 220, 70, 40, 60
COLOURS = ("#1f6f8b", "#c8553d")


def draw(path: Path, runs: Sequence[Books]) -> None:
    """Write the file."""
    hours = max((run.samples[-1].hour for run in runs if run.samples), default=1.0)
    delays = {run.name: running_delay(run) for run in runs}
    panels: list[tuple[str, list[list[tuple[float, float]]]]] = [
        ("merges that wait", [series(run, lambda sample: sample.waiting) for run in runs]),
        (f"machines that do useful work, of {MACHINES}", [series(run, lambda sample: sample.useful) for run in runs]),
        ("delay in hours (mean of the last 20 to begin)", [delays[run.name] for run in runs]),
    ]
    total = TOP + len(panels) * (HEIGHT + GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH + LEFT + 30} {total}" font-family="sans-serif">',
        f'<rect width="100%" height="{total}" fill="white"/>',
    ]
    for place, run in enumerate(runs):
        parts.append(f'<text x="{LEFT + place * 320}" y="22" fill="{COLOURS[place]}" font-size="16">{run.name}</text>')
    for place, (title, lines) in enumerate(panels):
        parts += panel(title, lines, hours, TOP + place * (HEIGHT + GAP))
    parts.append("</svg>")
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(parts) + "\n")


def series(run: Books, value: Callable[[Sample], float]) -> list[tuple[float, float]]:
    return [(sample.hour, value(sample)) for sample in run.samples]


def running_delay(run: Books) -> list[tuple[float, float]]:
    points = []
    for place, hour in enumerate(run.begun_hours):
        recent = run.delays[max(0, place - 19) : place + 1]
        points.append((hour, sum(recent) / len(recent)))
    return points


def ticks(highest: float, count_max: int) -> list[float]:
    """Round numbers from 0 up to `highest`."""
    steps = (step * ten for ten in (0.1, 1, 10, 100, 1_000) for step in (1, 2, 5))
    step = next((step for step in steps if highest / step <= count_max), highest)
    return [number * step for number in range(int(highest / step) + 1)]


def panel(title: str, lines: Sequence[list[tuple[float, float]]], hours: float, top: int) -> list[str]:
    highest = max((value for line in lines for _, value in line), default=1.0) or 1.0
    left, bottom, high = LEFT, top + HEIGHT, HEIGHT - 20
    parts = [f'<text x="{left}" y="{top + 14}" font-size="14">{title}</text>']
    for value in ticks(highest, 4):
        y = bottom - value / highest * high
        parts.append(f'<path d="M{left} {y:.1f}h{WIDTH}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 8}" y="{y + 4:.1f}" font-size="12" text-anchor="end">{value:g}</text>')
    for hour in ticks(hours, 12):
        x = left + hour / hours * WIDTH
        parts.append(f'<path d="M{x:.1f} {bottom}v-{high}" stroke="#eee"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 16}" font-size="12" text-anchor="middle">{hour:g}</text>')
    parts.append(
        f'<text x="{left + WIDTH}" y="{top + 14}" font-size="12" text-anchor="end">over the hours of the platform</text>'
    )
    parts.append(f'<rect x="{left}" y="{top + 20}" width="{WIDTH}" height="{high}" fill="none" stroke="#bbb"/>')
    for place, line in enumerate(lines):
        points = " ".join(
            f"{LEFT + hour / hours * WIDTH:.1f},{top + HEIGHT - value / highest * (HEIGHT - 20):.1f}"
            for hour, value in line
        )
        parts.append(f'<polyline points="{points}" fill="none" stroke="{COLOURS[place]}" stroke-width="1.5"/>')
    return parts

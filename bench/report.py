"""What the bench tells: the table, the figures for machines, and the picture."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from bench.deployments import Run
from bench.rows import Line

COLOURS = {"queued": "#94a3b8", "container": "#38bdf8", "imports": "#6366f1", "ops": "#22c55e"}


def figures(line: Line, samples: Sequence[float]) -> str:
    """Return the typical sample and the range: `3.7 (3.1-4.2)`."""
    if not samples:
        return ""
    shown = [line.typical(list(samples)), min(samples), max(samples)]
    typical, least, most = (
        f"{value:.0f}" if value >= 100 else f"{value:.2g}" if value < 1 else f"{value:.1f}" for value in shown
    )
    return typical if len(samples) == 1 else f"{typical} ({least}-{most})"


def table(lines: Sequence[Line]) -> str:
    """Return the table in Markdown; what misses its reach is in bold."""
    rows = ["| | ours: median (min-max) | the other | ratio | reach |", "|---|---|---|---|---|"]
    for line in lines:
        ratio = f"{line.result:.2f}" if line.reference else ""
        reach = f"<= {line.reach:.2g}" + ("" if line.reference else f" {line.unit}")
        what = f"{line.what}, {line.unit}"
        if not line.reached:
            what, reach = f"**{what}**", f"**{reach}: missed**"
        rows.append(f"| {what} | {figures(line, line.ours)} | {figures(line, line.reference)} | {ratio} | {reach} |")
    return "\n".join(rows)


def results(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Return every sample, what came of it, and whether that is within reach."""
    return [{**asdict(line), "result": line.result, "reached": line.reached} for line in lines]


def picture(runs: dict[str, list[Run]]) -> str:
    """Draw where the time of a run goes, as an SVG: a bar for each deployment, of the medians of the parts."""
    medians = {
        name: {phase: statistics.median(run.phases[phase] for run in samples) for phase in COLOURS}
        for name, samples in runs.items()
    }
    scale = 560 / max(sum(parts.values()) for parts in medians.values())
    shapes = []
    for row, (name, parts) in enumerate(medians.items()):
        x, y = 90.0, 20 + row * 40
        shapes.append(f'<text x="80" y="{y + 18}" text-anchor="end">{name}</text>')
        for phase, seconds in parts.items():
            width = seconds * scale
            shapes.append(f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="26" fill="{COLOURS[phase]}"/>')
            if width > 30:
                shapes.append(f'<text x="{x + width / 2:.1f}" y="{y + 18}" text-anchor="middle">{seconds:.1f}</text>')
            x += width
        shapes.append(f'<text x="{x + 8:.1f}" y="{y + 18}">{sum(parts.values()):.1f} s</text>')
    for column, (phase, colour) in enumerate(COLOURS.items()):
        x = 90 + column * 110
        shapes.append(f'<rect x="{x}" y="108" width="12" height="12" fill="{colour}"/>')
        shapes.append(f'<text x="{x + 18}" y="119">{phase}</text>')
    return "\n".join(
        [
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 135" font-family="sans-serif" font-size="13">',
            '<rect width="720" height="135" fill="#ffffff"/>',
            *shapes,
            "</svg>\n",
        ]
    )

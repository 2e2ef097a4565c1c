"""The results of the bench: the table, every sample as JSON, and the picture."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from matplotlib.figure import Figure

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
    """Return the table in Markdown; a row that misses its target is in bold."""
    rows = ["| | ours: median (min-max) | baseline | ratio | target |", "|---|---|---|---|---|"]
    for line in lines:
        ratio = f"{line.result:.2f}" if line.baseline else ""
        target = f"<= {line.target:.2g}" + ("" if line.baseline else f" {line.unit}")
        what = f"{line.what}, {line.unit}"
        if not line.met:
            what, target = f"**{what}**", f"**{target}: missed**"
        rows.append(f"| {what} | {figures(line, line.ours)} | {figures(line, line.baseline)} | {ratio} | {target} |")
    return "\n".join(rows)


def results(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Return every sample, the result, and whether it meets the target."""
    return [{**asdict(line), "result": line.result, "met": line.met} for line in lines]


def picture(runs: dict[str, list[Run]]) -> Figure:
    """Draw where the time of a run goes: a bar for each deployment, of the medians of the phases."""
    figure = Figure(figsize=(7.2, 1.8), layout="constrained")
    axes = figure.subplots()
    names = list(runs)
    ends = [0.0] * len(names)
    for phase, colour in COLOURS.items():
        seconds = [statistics.median(run.phases[phase] for run in runs[name]) for name in names]
        bars = axes.barh(names, seconds, left=ends, color=colour, label=phase)
        wide = [f"{width:.1f}" if width > 0.4 else "" for width in seconds]
        axes.bar_label(bars, wide, label_type="center", color="white")
        ends = [end + width for end, width in zip(ends, seconds, strict=True)]
    axes.bar_label(bars, [f"{end:.1f} s" for end in ends], padding=4)
    axes.invert_yaxis()
    axes.set_xticks([])
    axes.tick_params(left=False)
    axes.spines[:].set_visible(False)
    figure.legend(loc="outside lower center", ncols=len(COLOURS), frameon=False)
    return figure

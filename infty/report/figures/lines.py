"""Figures as SVG and PNG: readable without colour, and the same bytes for the same data."""

import math
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from infty.report.figures.data import Chart, Point

# Okabe and Ito's colour-blind safe palette; each line has its own marker and dash as well.
STYLES = [
    ("#0072B2", "o", "-"),
    ("#D55E00", "s", "--"),
    ("#009E73", "^", "-."),
    ("#CC79A7", "D", ":"),
    ("#E69F00", "v", "-"),
    ("#56B4E9", "P", "--"),
    ("#000000", "X", "-."),
    ("#8C6D31", "*", ":"),
]
STYLE: dict[Any, Any] = {"svg.hashsalt": "infty", "svg.fonttype": "none", "font.size": 10}
SHADES = ("0.45", "0.7")  # of lines to read the others by


def draw_chart(chart: Chart, stem: Path) -> list[Path]:
    """Draw a line per row with its standard deviation, or a point per row, over lines to read them by."""
    with matplotlib.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(6.4, 4.4), layout="constrained")
        for (row, points), (colour, marker, dash) in zip(chart.lines.items(), STYLES * len(chart.lines), strict=False):
            x, y, deviations = _split(points)
            style: dict[str, Any] = {"linestyle": dash} if chart.joined else {"linestyle": "none", "markersize": 8}
            often = max(1, len(x) // 12)  # markers of a long line would hide it
            known = deviations if not all(map(math.isnan, deviations)) else None
            axes.errorbar(x, y, known, color=colour, marker=marker, capsize=3, label=row, markevery=often, **style)
        for (name, points), shade in zip(chart.references.items(), SHADES, strict=False):
            x, y, _ = _split(points)
            axes.plot(x, y, color=shade, linewidth=1, marker=".", linestyle=(0, (1, 2)), label=name)
        _dress(axes, chart)
        figure.legend(loc="outside lower center", frameon=False, ncols=4)
        return save(figure, stem)


def _dress(axes: Axes, chart: Chart) -> None:
    """Dress the axes with labels, title and ticks."""
    axes.set_xlabel(chart.x)
    axes.set_ylabel(chart.y)
    axes.set_title(chart.title, parse_math=False)
    if chart.zero:
        axes.axhline(0, color="0.7", linewidth=1)
    if chart.limits:
        axes.set_ylim(chart.limits)
    if chart.base:
        axes.set_xscale("log", base=chart.base)
    if chart.ticks:
        axes.set_xticks(chart.ticks, [f"{at:,.0f}" for at in chart.ticks], rotation=45 if len(chart.ticks) > 8 else 0)
        axes.minorticks_off()
    axes.grid(axis="y", color="0.9")


def _split(points: list[Point]) -> tuple[list[float], list[float], list[float]]:
    """Split points into x, y, and deviations, which are no number if there is but one seed."""
    x, y, deviations = zip(*points, strict=True)
    return list(x), list(y), [math.nan if value is None else value for value in deviations]


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write a figure as SVG and PNG, laid out once."""
    paths = [stem.with_name(f"{stem.name}.svg"), stem.with_name(f"{stem.name}.png")]
    figure.savefig(paths[0], metadata={"Date": None})
    figure.set_layout_engine("none")
    figure.savefig(paths[1], dpi=160)
    plt.close(figure)
    return paths

"""Charts, and the memories of a row, as SVG and PNG: readable without colour, and the same bytes for the same data."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps, style
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from infty.report.figures.data import Chart
from infty.runs.schemas import MemoryTrace, Phrase, Reconstruction

# Okabe and Ito's colour-blind safe palette; each line has its own marker and dash as well.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
STYLES = list(zip(COLOURS, "os^DvPX*", ("-", "--", "-.", ":") * 2, strict=True))
STYLE: dict[Any, Any] = {"svg.hashsalt": "infty", "svg.fonttype": "none", "font.size": 10}  # beside the defaults
SHADES = ("0.45", "0.7")  # of lines to read the others by
MAP = "cividis"  # from dark to light in grey as well, and the same to the colour-blind
PLACE = "place in the memory (0 oldest, 1 newest)"
LONGEST = 44  # signs of a phrase
FEW = 5  # layers that have a name in the legend each
LOWEST = -0.5  # share explained: what is worse is drawn there


def draw_chart(chart: Chart, stem: Path) -> list[Path]:
    """Draw a line per row with its standard deviation, or a point per row, over lines to read them by."""
    with style.context(["default", STYLE]):
        figure = Figure(figsize=(6.4, 4.4), layout="constrained")
        axes = figure.subplots()
        for (row, points), (colour, marker, dash) in zip(chart.lines.items(), STYLES * len(chart.lines), strict=False):
            x, y, deviations = np.array(points, dtype=float).T  # a deviation is no number if there is but one seed
            line: dict[str, Any] = {"linestyle": dash} if chart.joined else {"linestyle": "none", "markersize": 8}
            often = max(1, len(x) // 12)  # markers of a long line would hide it
            known = None if np.isnan(deviations).all() else deviations
            axes.errorbar(x, y, known, color=colour, marker=marker, capsize=3, label=row, markevery=often, **line)
        for (name, points), shade in zip(chart.references.items(), SHADES, strict=False):
            x, y, _ = np.array(points, dtype=float).T
            axes.plot(x, y, color=shade, linewidth=1, marker=".", linestyle=(0, (1, 2)), label=name)
        _dress(axes, chart)
        figure.legend(loc="outside lower center", frameon=False, ncols=4)
        return save(figure, stem)


def _dress(axes: Axes, chart: Chart) -> None:
    """Dress the axes with labels, title and ticks."""
    axes.set(xlabel=chart.x, ylabel=chart.y)
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


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write a figure as SVG and PNG, laid out once."""
    paths = [stem.with_name(f"{stem.name}.svg"), stem.with_name(f"{stem.name}.png")]
    figure.savefig(paths[0], metadata={"Date": None})
    figure.set_layout_engine("none")
    figure.savefig(paths[1], dpi=160)
    return paths


def draw_memory(trace: MemoryTrace, title: str, stem: Path) -> list[Path]:
    """Draw where each head looks, that over all heads, what is left of each segment, and which phrases stay."""
    phrases, stream = trace.room or [], trace.stream
    heights = [6.0, 1.0 + 0.3 * len(phrases)][: 2 if phrases else 1]
    with style.context(["default", {**STYLE, "axes.titlesize": 10}]):
        figure = Figure(figsize=(10.0, 0.4 + sum(heights)), layout="constrained")
        parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
        axes = parts[0].subplot_mosaic([["density", "histogram"], ["density", "reconstruction"]])
        _draw_density(parts[0], axes["density"], np.array(trace.density))
        _draw_histogram(axes["histogram"], np.array(trace.histogram))
        _draw_reconstruction(axes["reconstruction"], trace.reconstruction)
        if phrases:
            _draw_room(parts[1].subplots(), phrases)
            parts[1].suptitle("phrases with the most attention, and the number of their first token", fontsize=10)
        read = f"{stream.kind} {stream.index}, {stream.tokens:,} tokens in {stream.segments} segments"
        figure.suptitle(f"{title}: {read}", parse_math=False)
        with warnings.catch_warnings():  # signs that the font lacks stand in the SVG, and in the PNG as boxes
            warnings.filterwarnings("ignore", r"Glyph|Matplotlib currently does not support", UserWarning)
            return save(figure, stem)


def _draw_density(figure: SubFigure, axes: Axes, shares: np.ndarray) -> None:
    """Draw a row per head, layers one under another. shares: layers heads bins."""
    layers, heads, bins = shares.shape
    times_even = bins * shares.reshape(-1, bins)
    top = max(2.0, float(np.percentile(times_even, 99)))
    image = axes.imshow(
        times_even, cmap=MAP, vmin=0, vmax=top, aspect="auto", interpolation="nearest", extent=(0, 1, layers, 0)
    )
    for layer in range(1, layers):
        axes.axhline(layer, color="white", linewidth=1.5)
    axes.set_yticks(np.arange(layers) + 0.5, [str(layer + 1) for layer in range(layers)])
    axes.tick_params(axis="y", length=0)
    axes.set(xlabel=PLACE, ylabel=f"layer, {heads} head{'s' * (heads > 1)} each", title="where the last segment looked")
    extend = "max" if times_even.max() > top else "neither"
    figure.colorbar(image, ax=axes, label="attention (1: even)", extend=extend)


def _draw_histogram(axes: Axes, shares: np.ndarray) -> None:
    """Draw a step line per layer. shares: layers bins."""
    layers, bins = shares.shape
    for layer, (colour, _, dash) in enumerate(_line_styles(layers)):
        name = f"layer {layer + 1}" if layers <= FEW or layer in (0, layers - 1) else None
        axes.stairs(bins * shares[layer], np.linspace(0, 1, bins + 1), baseline=None, color=colour, linestyle=dash,
                    linewidth=1.2, label=name)  # fmt: skip
    axes.axhline(1, color="0.7", linewidth=1)
    top = 1.25 * max(1.0, bins * float(shares.max()))  # room for the legend
    axes.set(xlim=(0, 1), ylim=(0, top), xlabel=PLACE, ylabel="attention (1: even)",
             title="all heads together: the sticky histogram")  # fmt: skip
    axes.legend(frameon=False, fontsize=8, ncols=FEW, loc="upper center")


def _draw_reconstruction(axes: Axes, kept: list[Reconstruction]) -> None:
    """Draw a line per number of updates: mean over layers, and from the least to the most of them."""
    for shift, found, (colour, marker, dash) in zip((-0.12, -0.04, 0.04, 0.12), kept, STYLES, strict=False):
        shares, segments = np.array(found.layers), np.arange(found.updates) + 1 + shift  # shares: layers segments
        least, mean, most = np.clip([shares.min(0), shares.mean(0), shares.max(0)], LOWEST, 1)
        spread = np.maximum([mean - least, most - mean], 0)  # rounding may make a mean the greater one
        axes.errorbar(segments, mean, spread, color=colour, marker=marker, markersize=4, linestyle=dash, capsize=2,
                      linewidth=1.2, elinewidth=0.8, label=f"{found.updates}")  # fmt: skip
    axes.axhline(0, color="0.7", linewidth=1)
    last, worst = max(found.updates for found in kept), min(min(map(min, found.layers)) for found in kept)
    axes.set_xticks(range(1, last + 1))
    axes.set(xlim=(0.5, last + 0.5), xlabel="segment that was taken in (1 oldest)")
    axes.set_ylabel("share explained" if worst >= LOWEST else "share explained (−0.5: or less)")
    axes.set_ylim(top=1.45)  # room for the legend
    axes.set_yticks([tick for tick in (-0.5, -0.25, 0, 0.25, 0.5, 0.75, 1) if tick >= axes.get_ylim()[0]])
    axes.grid(axis="y", color="0.9")
    axes.set_title("left of each segment: mean of layers, least and most")
    axes.legend(frameon=False, fontsize=8, ncols=4, loc="upper center", title="after so many updates",
                title_fontsize=8)  # fmt: skip


def _draw_room(axes: Axes, phrases: list[Phrase]) -> None:
    """Draw attention beside room, the most attended first."""
    rows = np.arange(len(phrases))
    texts = [p.text if len(p.text) <= LONGEST else f"{p.text[: LONGEST - 1]}…" for p in phrases]
    labels = [f"{text}  {p.token:,}" for text, p in zip(texts, phrases, strict=True)]
    axes.barh(rows - 0.2, [100 * p.attention for p in phrases], 0.38, color=STYLES[0][0], label="attention")
    axes.barh(rows + 0.2, [100 * p.room for p in phrases], 0.38, color="white", edgecolor="0.2", hatch="////",
              label="room")  # fmt: skip
    axes.set_yticks(rows, labels, fontsize=8, parse_math=False)
    axes.invert_yaxis()
    axes.set(xlabel="share of all (%)")
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderpad=0)


def _line_styles(count: int) -> list[tuple[Any, str, Any]]:
    """Choose line styles as everywhere; of many, colours from dark to light."""
    if count <= FEW:
        return STYLES[:count]
    shades = colormaps[MAP](np.linspace(0, 0.9, count))
    return [(shade, "", STYLES[i % FEW][2]) for i, shade in enumerate(shades)]

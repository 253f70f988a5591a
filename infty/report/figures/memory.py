"""Pictures of one row's memories, from the trace that `infty eval` wrote beside the test: no torch, no model."""

import warnings
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from infty.report.figures.lines import STYLE, STYLES, save
from infty.runs.schemas import MemoryTrace, Phrase, Reconstruction

MAP = "cividis"  # from dark to light in grey as well, and the same to the colour-blind
PLACE = "place in the memory (0 oldest, 1 newest)"
LONGEST = 44  # signs of a phrase
FEW = 5  # layers that have a name in the legend each
LOWEST = -0.5  # share explained: what is worse is drawn there


def draw_memory(trace: MemoryTrace, title: str, stem: Path) -> list[Path]:
    """Draw where each head looks, that over all heads, what is left of each segment, and which phrases stay."""
    phrases, stream = trace.room or [], trace.stream
    heights = [6.0, 1.0 + 0.3 * len(phrases)][: 2 if phrases else 1]
    with matplotlib.rc_context({**STYLE, "axes.titlesize": 10}):
        figure = plt.figure(figsize=(10.0, 0.4 + sum(heights)), layout="constrained")
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
        return _save(figure, stem)


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
    axes.set(xlabel=PLACE, ylabel=f"layer, {heads} head{'s' * (heads > 1)} each")
    axes.set_title("where the last segment looked")
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
    axes.set(xlim=(0, 1), ylim=(0, top), xlabel=PLACE, ylabel="attention (1: even)")
    axes.set_title("all heads together: the sticky histogram")
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
    axes.barh(rows - 0.2, [100 * p.attention for p in phrases], 0.38, color=STYLES[0][0], label="attention")
    axes.barh(rows + 0.2, [100 * p.room for p in phrases], 0.38, color="white", edgecolor="0.2", hatch="////",
              label="room")  # fmt: skip
    axes.set_yticks(rows, [_shorten(p.text, p.token) for p in phrases], fontsize=8, parse_math=False)
    axes.invert_yaxis()
    axes.set(xlabel="share of all (%)")
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderpad=0)


def _shorten(text: str, token: int) -> str:
    return f"{text if len(text) <= LONGEST else text[: LONGEST - 1] + '…'}  {token:,}"


def _line_styles(count: int) -> list[tuple[Any, str, Any]]:
    """Choose line styles as everywhere; of many, colours from dark to light."""
    if count <= FEW:
        return STYLES[:count]
    shades = matplotlib.colormaps[MAP](np.linspace(0, 0.9, count))
    return [(shade, "", STYLES[i % FEW][2]) for i, shade in enumerate(shades)]


def _save(figure: Figure, stem: Path) -> list[Path]:
    """Save a figure; signs that the font lacks stand in the SVG all the same, and in the PNG as boxes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph|Matplotlib currently does not support", UserWarning)
        return save(figure, stem)

"""Figures as SVG and PNG: readable without colour, and the same bytes for the same data."""

import math
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from infty.report.results import ResultSet, Run, mean_and_deviation

# Okabe and Ito's colour-blind safe palette; each line has its own marker and dash as well.
STYLES = [
    ("#0072B2", "o", "-"),
    ("#D55E00", "s", "--"),
    ("#009E73", "^", "-."),
    ("#CC79A7", "D", ":"),
    ("#E69F00", "v", "-"),
]
STYLE: dict[Any, Any] = {"svg.hashsalt": "infty", "svg.fonttype": "none", "font.size": 10}
FEWEST = 100  # tokens at a distance, for its mean to be drawn


def draw_accuracy(results: ResultSet, stem: Path) -> list[Path]:
    """Accuracy by length, a line a model with its standard deviation, over chance and the last-window oracle."""
    with matplotlib.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
        cases = [case for case in results.cases if results.of(None, case)]
        for model, (colour, marker, dash) in zip(results.models, STYLES * len(results.models), strict=False):
            points = [
                (runs[0].length, *_figures([run.accuracy for run in runs]))
                for c in cases
                if (runs := results.of(model, c))
            ]
            if points:
                lengths, means, deviations = zip(*points, strict=True)
                axes.errorbar(
                    lengths, means, deviations, color=colour, marker=marker, linestyle=dash, capsize=3, label=model
                )
        for key, label, shade in (("oracle", "last-window oracle", "0.45"), ("chance", "chance", "0.7")):
            values = [
                (runs[0].length, 100 * runs[0].result["calibration"][key])
                for c in cases
                if (runs := results.of(None, c))
            ]
            axes.plot(
                *zip(*values, strict=True), color=shade, linewidth=1, marker=".", linestyle=(0, (1, 2)), label=label
            )
        axes.set(xlabel="length of the sequence (symbols)", ylabel="test accuracy (%)", ylim=(0, 100), xscale="log")
        lengths = [results.of(None, case)[0].length or 0 for case in cases]
        axes.set_xticks(lengths, [f"{length:,}" for length in lengths])
        axes.minorticks_off()
        axes.set_title(f"{results.experiment}, {results.scale} scale", parse_math=False)
        axes.grid(axis="y", color="0.9")
        axes.legend(frameon=False, ncols=2)
        return _save(figure, stem)


def draw_distance(results: ResultSet, case: str, stem: Path) -> list[Path]:
    """Loss by how many tokens ago a word last came in its document, a line a model: what a long memory is tested on.

    Mean over seeds, less the mean over models at that distance: far words are rarer and harder for every model.
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
        lines = {model: found for model in results.rows if (found := _by_distance(results.of(model, case)))}
        shared = sorted(set.intersection(*map(set, lines.values()))) if lines else []
        means = {low: math.fsum(line[low] for line in lines.values()) / len(lines) for low in shared}
        for (model, line), (colour, marker, dash) in zip(lines.items(), STYLES * len(lines), strict=False):
            values = [line[low] - means[low] for low in shared]
            axes.plot(shared, values, color=colour, marker=marker, linestyle=dash, label=model)
        axes.axhline(0, color="0.7", linewidth=1)
        axes.set(
            xlabel="tokens since the word last came (from, to twice as many)", ylabel="nats a token, less the mean"
        )
        if shared:
            axes.set_xscale("log", base=2)
            axes.set_xticks(shared, [f"{low:,}" for low in shared], rotation=45)
        axes.minorticks_off()
        title = f"{results.experiment}, {results.scale} scale"
        axes.set_title(title if case == "main" else f"{title}, {case}", parse_math=False)
        axes.grid(axis="y", color="0.9")
        if lines:
            axes.legend(frameon=False, ncols=2)
        return _save(figure, stem)


def _by_distance(runs: list[Run]) -> dict[int, float]:
    """Mean loss over seeds at each distance that has at least 100 tokens."""
    found: dict[int, list[float]] = {}
    for run in runs:
        if run.details:
            bins = run.details["by_distance"]
            for low, nats, tokens in zip(bins["from"], bins["nats"], bins["tokens"], strict=True):
                if tokens >= FEWEST:
                    found.setdefault(low, []).append(nats / tokens)
    return {low: math.fsum(values) / len(values) for low, values in found.items()}


def _save(figure: Figure, stem: Path) -> list[Path]:
    paths = [stem.with_suffix(".svg"), stem.with_suffix(".png")]
    figure.savefig(paths[0], metadata={"Date": None})
    figure.savefig(paths[1], dpi=160)
    plt.close(figure)
    return paths


def _figures(accuracies: list[float]) -> tuple[float, float]:
    mean, deviation = mean_and_deviation([100 * value for value in accuracies])
    return mean, math.nan if deviation is None else deviation

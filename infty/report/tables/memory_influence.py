"""Whether memories are read: how much of a layer comes from them, where it looks, and whether the loss gets there."""

from statistics import fmean
from typing import Any

from infty.base.table import Table
from infty.report.load.results import ResultSet, mean_and_deviation
from infty.report.tables.sorting import column

GAZE = {"center": "μ", "apart": "μ apart", "width": "σ", "there": "signal at μ"}
GROUPS = {"gate": "gate", "where": "W_K, w_μ, w_σ", "what": "W_V, W_O"}


def reach_tables(results: ResultSet) -> list[Table]:
    """A line a row and column, its layers from first to last; none where no run's memory was looked into."""
    rows = []
    for case in results.cases:
        for model in results.models:
            reaches = [run.memory["reach"] for run in results.of(model, case) if run.memory and run.memory["reach"]]
            if reaches:
                gradients = [_layers(reaches, name, "rest") for name in GROUPS]
                rows.append([results.place(model, case), _layers(reaches, "share"), *gradients])
    notes = [
        "By layer, of the last segment of one test stream, mean over seeds. Read: size (norm) of what comes from the "
        "long-term memory, divided by that of what attention reads; 0: nothing is read. Gradient: root mean square "
        "over parameters, of the loss without KL, divided by that over all parameters outside of memories; 0: nothing "
        "reaches them. It is of one segment of a trained model. Adam rescales gradients, so their size says little "
        "about the step."
    ]
    headings = ["row", "read", *(f"gradient, {name}" for name in GROUPS.values())]
    return [Table(f"{results.title}: reading the memory", headings, rows, notes)] if rows else []


def gaze_tables(results: ResultSet) -> list[Table]:
    """A table of the attention's densities: a line a row and column, its layers from first to last."""
    rows = []
    for case in results.cases:
        for model in results.models:
            gazes = [run.memory["gaze"] for run in results.of(model, case) if run.memory and run.memory.get("gaze")]
            if gazes:
                figures = [_means([[layer[name] for layer in gaze] for gaze in gazes]) for name in GAZE]
                rows.append([results.place(model, case), *figures])
    notes = [
        "By layer, of the last segment of one test stream, mean over seeds. The memory is [0, 1], 0 its oldest end, "
        "and a query looks with N(μ, σ²). μ: mean over queries and heads. μ apart: standard deviation over a head's "
        "queries, mean over heads; 0: all look at one place. σ: median; from a third on it spans the memory, and what "
        "is read is nearly its mean. Signal at μ: its size there, divided by its mean size; far below 1: a look at "
        "next to nothing."
    ]
    return [Table(f"{results.title}: where it looks", ["row", *GAZE.values()], rows, notes)] if rows else []


def _layers(reaches: list[dict[str, Any]], name: str, unit: str | None = None) -> str:
    """A figure a layer, divided by the run's `unit`, if there is one; none where there is nothing to tell."""
    if None in reaches[0][name]:
        return "–"
    return _means([[_share(value, reach[unit] if unit else 1.0) for value in reach[name]] for reach in reaches])


def _means(runs: list[list[float]]) -> str:
    """Means over runs, layer by layer."""
    return " · ".join(f"{fmean(values):.2g}" for values in zip(*runs, strict=True))


def _share(value: float, unit: float) -> float:
    return value / unit if unit else 0.0


def fit_tables(results: ResultSet) -> list[Table]:
    """The error of the long-term memories' own fits by case; none where there is no such memory, or nothing is told."""
    metric = "test/regression_error"
    found = {
        model: [[run.result["metrics"].get(metric) for run in results.of(model, case)] for case in results.cases]
        for model in results.models
    }
    rows = [
        [model, *(_mean_error([value for value in values if value is not None]) for values in columns)]
        for model, columns in found.items()
        if any(value is not None for values in columns for value in values)
    ]
    notes = [
        "Of each update's fit, as a share of what was to be fitted (squared): mean over updates and layers of one test "
        "stream, then over seeds. It is not what the memory lost since: each update fits anew what the one before left."
    ]
    headings = ["model", *(f"{column(results, case)} ↓" for case in results.cases)]
    return [Table(f"{results.title}: error of the fit", headings, rows, notes)] if rows else []


def _mean_error(values: list[float]) -> str:
    if not values:
        return "–"
    mean, deviation = mean_and_deviation(values)
    return f"{mean:.4f}" + ("" if deviation is None else f" ± {deviation:.4f}")

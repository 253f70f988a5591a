"""Readings of memories: how much of a layer comes from them, where it looks, and whether gradients reach them."""

from collections.abc import Sequence
from statistics import fmean

from infty.base.table import Table
from infty.report.load.results import ResultSet, format_average, list_metric
from infty.report.tables.scores import name_column
from infty.runs.schemas import Reach

GAZE = {"center": "μ", "apart": "μ apart", "width": "σ", "there": "signal at μ"}
GROUPS = {"gate": "gate", "where": "W_K, w_μ, w_σ", "what": "W_V, W_O"}
BY_LAYER = "By layer, of the last segment of one test stream, mean over seeds. "
READING = (
    f"{BY_LAYER}Read: size (norm) of what comes from the long-term memory, divided by that of what attention reads; 0: "
    "nothing is read. Gradient: root mean square over parameters, of the loss without KL, divided by that over all "
    "parameters outside of memories; 0: nothing reaches them. It is of one segment of a trained model. Adam rescales "
    "gradients, so their size says little about the step."
)
LOOKING = (
    f"{BY_LAYER}The memory is [0, 1], 0 its oldest end, and a query looks with N(μ, σ²). μ: mean over queries and "
    "heads. μ apart: standard deviation over a head's queries, mean over heads; 0: all look at one place. σ: median; "
    "from a third on it spans the memory, and what is read is nearly its mean. Signal at μ: its size there, divided by "
    "its mean size; far below 1: a look at next to nothing."
)
FITTING = (
    "Of each update's fit, as a share of what was to be fitted (squared): mean over updates and layers of one test "
    "stream, then over seeds. It is not what the memory lost since: each update fits anew what the one before left."
)


def describe_memories(results: ResultSet) -> list[Table]:
    """Tell how memories are read and where they are looked at, a line per row and column, and how well they fit."""
    reads, looks = [], []
    for model, case, runs in results.cells():
        if traces := [run.trace for run in runs if run.trace]:
            gradients = [[_scale_gradients(trace.reach, name) for trace in traces] for name in GROUPS]
            shares = [trace.reach.share for trace in traces]
            gazes = [[[getattr(gaze, name) for gaze in trace.gaze] for trace in traces] for name in GAZE]
            reads.append([results.place(model, case), *map(_average_layers, [shares, *gradients])])
            looks.append([results.place(model, case), *map(_average_layers, gazes)])
    headings = ["row", "read", *(f"gradient, {name}" for name in GROUPS.values())]
    return [
        results.table("reading the memory", headings, reads, [READING]),
        results.table("where it looks", ["row", *GAZE.values()], looks, [LOOKING]),
        _list_fits(results),
    ]


def _scale_gradients(reach: Reach, name: str) -> list[float | None]:
    """Divide the gradients of a group of parameters by that of those outside of memories, if that is not 0."""
    values: list[float | None] = getattr(reach, name)
    return [None if value is None else value / reach.rest if reach.rest else 0.0 for value in values]


def _average_layers(runs: Sequence[Sequence[float | None]]) -> str:
    """Average over runs, layer by layer; a dash if a layer has no value."""
    layers = [[value for value in values if value is not None] for values in zip(*runs, strict=True)]
    return " · ".join(f"{fmean(values):.2g}" for values in layers) if all(layers) else "–"


def _list_fits(results: ResultSet) -> Table:
    """List the error of the long-term memories' own fits by case."""
    rows = []
    for model in results.models:
        errors = [list_metric(results.of(model, case), "test/regression_error") for case in results.cases]
        if any(errors):
            rows.append([model, *(format_average(column, 4) for column in errors)])
    headings = ["model", *(f"{name_column(results, case)} ↓" for case in results.cases)]
    return results.table("error of the fit", headings, rows, [FITTING])

"""Whether memories are read at all: how much of a layer comes from them, and whether the loss reaches them."""

from statistics import fmean
from typing import Any

from infty.report.results import ResultSet
from infty.table import Table

GROUPS = {"gate": "gate", "where": "W_K, w_μ, w_σ", "what": "W_V, W_O"}


def reach_tables(results: ResultSet) -> list[Table]:
    """A line a row and column, its layers from first to last; none where no run's memory was looked into."""
    rows = []
    for case in results.cases:
        for model in results.models:
            reaches = [run.memory["reach"] for run in results.of(model, case) if run.memory]
            if reaches:
                gradients = [_layers(reaches, name, "rest") for name in GROUPS]
                rows.append([results.place(model, case), _layers(reaches, "share"), *gradients])
    notes = [
        "By layer, of the last segment of one test stream, mean over seeds. Read: size (norm) of what comes from the "
        "long-term memory, as a share of what attention reads. Gradient: root mean square over parameters, of the loss "
        "without KL, as a share of that over all parameters outside of memories. Near 0: not read, or out of reach."
    ]
    headings = ["row", "read", *(f"gradient, {name}" for name in GROUPS.values())]
    return [Table(f"{results.title}: reading the memory", headings, rows, notes)] if rows else []


def _layers(reaches: list[dict[str, Any]], name: str, unit: str | None = None) -> str:
    """A figure a layer, as a share of the run's `unit`, if there is one."""
    layers = zip(
        *([_share(value, reach[unit] if unit else 1.0) for value in reach[name]] for reach in reaches), strict=True
    )
    return " · ".join(f"{fmean(values):.2g}" for values in layers)


def _share(value: float, unit: float) -> float:
    return value / unit if unit else 0.0

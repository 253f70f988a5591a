"""The cost of each row: parameters, slots, seconds, floating-point operations."""

import statistics

from infty.base.table import Table
from infty.report.load.results import ResultSet
from infty.runs.folder import Run


def list_costs(results: ResultSet) -> list[Table]:
    """List each row's parameters and slots, and seconds and FLOPs of training by case."""
    counted = any(run.result.training_flops for run in results.plain())
    units = [("seconds", "wall_seconds", 1, ",.0f"), *([("TFLOP", "training_flops", 1e12, ",.3g")] if counted else [])]
    rows = []
    for model in results.models:
        runs = [run for run in results.plain() if run.key.model == model]
        costs = [_average_cost(results.of(model, case), *how) for _, *how in units for case in results.cases]
        rows.append([model, _format_range(runs, "parameters"), _format_range(runs, "memory_slots"), *costs])
    headings = ["model", "parameters", "memory slots", *(f"{c} {unit} ↓" for unit, *_ in units for c in results.cases)]
    notes = ["Memory slots a layer. Seconds of optimiser steps, mean over seeds, on the machine of each run."]
    if counted:
        notes.append("TFLOP: 10¹² floating-point operations of all optimiser steps, products of matrices only.")
    return [results.table("cost", headings, rows, notes)]


def _average_cost(runs: list[Run], key: str, unit: float, form: str) -> str:
    values = [cost / unit for run in runs if (cost := getattr(run.result, key)) is not None]
    return format(statistics.fmean(values), form) if values else "–"


def _format_range(runs: list[Run], key: str) -> str:
    """Write a figure that all runs share, or its range."""
    values = sorted({getattr(run.result, key) for run in runs})
    return " to ".join(f"{value:,}" for value in dict.fromkeys((values[0], values[-1]))) if values else "–"

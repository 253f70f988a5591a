"""The cost of each row: parameters, slots, seconds, floating-point operations."""

import statistics

from infty.base.table import Table
from infty.report.load.results import ResultSet, Run


def cost_table(results: ResultSet) -> Table:
    """What each row costs: parameters, slots, and seconds and FLOPs of training by case."""
    counted = any(run.result["training_flops"] for run in results.plain())
    rows = []
    for model in results.models:
        runs = [run for run in results.plain() if run.cell.model == model]
        costs = [_mean(results.of(model, case), "wall_seconds", 1, ",.0f") for case in results.cases]
        if counted:
            costs += [_mean(results.of(model, case), "training_flops", 1e12, ",.3g") for case in results.cases]
        rows.append([model, _same(runs, "parameters"), _same(runs, "memory_slots"), *costs])
    units = ["seconds", *(["TFLOP"] if counted else [])]
    headings = [
        "model",
        "parameters",
        "memory slots",
        *(f"{case} {unit} ↓" for unit in units for case in results.cases),
    ]
    notes = ["Memory slots a layer. Seconds of optimiser steps, mean over seeds, on the machine of each run."]
    if counted:
        notes.append("TFLOP: 10¹² floating-point operations of all optimiser steps, products of matrices only.")
    return Table(f"{results.title}: cost", headings, rows, notes)


def _mean(runs: list[Run], key: str, unit: float, form: str) -> str:
    values = [run.result[key] / unit for run in runs if run.result[key] is not None]
    return format(statistics.fmean(values), form) if values else "–"


def _same(runs: list[Run], key: str) -> str:
    """A figure that all runs share, or its range."""
    values = sorted({run.result[key] for run in runs})
    return " to ".join(f"{value:,}" for value in dict.fromkeys((values[0], values[-1]))) if values else "–"

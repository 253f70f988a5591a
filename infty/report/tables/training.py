"""The cost of training each row, and the points that `infty tune` tried for it, from `tuning-<column>.json`."""

import statistics

from infty.base.errors import one_line
from infty.base.table import Entry, Table
from infty.report.load.results import ResultSet
from infty.runs.folder import Run
from infty.runs.schemas import Trial


def list_costs(results: ResultSet) -> list[Table]:
    """List each row's parameters and slots, and seconds and FLOPs of training by case."""
    counted = any(run.result.comparable_flops for run in results.plain())
    units = [
        ("seconds", "wall_seconds", 1, ",.0f"),
        *([("TFLOP", "comparable_flops", 1e12, ",.3g")] if counted else []),
    ]
    rows = []
    for model in results.models:
        runs = [run for run in results.plain() if run.key.model == model]
        costs = [_average_cost(results.of(model, case), *how) for _, *how in units for case in results.cases]
        sizes = [_format_range(runs, key) for key in ("parameters", "memory_slots", "state_bytes")]
        rows.append([model, *sizes, *costs])
    headings = [
        "model",
        "parameters",
        "memory slots",
        "state bytes",
        *(f"{c} {unit} ↓" for unit, *_ in units for c in results.cases),
    ]
    notes = [
        "Memory slots a layer; bytes of a stream's state over all layers, in float32. Seconds of optimiser steps, mean "
        "over seeds, on the machine of each run."
    ]
    if counted:
        notes.append(
            "TFLOP: 10¹² floating-point operations of all optimiser steps, products of matrices only, attention's in "
            "full, whatever the device and its kernels."
        )
    return [results.table("cost", headings, rows, notes)]


def _average_cost(runs: list[Run], key: str, unit: float, form: str) -> str:
    values = [cost / unit for run in runs if (cost := getattr(run.result, key)) is not None]
    return format(statistics.fmean(values), form) if values else "–"


def _format_range(runs: list[Run], key: str) -> str:
    """Write a figure that all runs share, or its range."""
    values = sorted({value for run in runs if (value := getattr(run.result, key)) is not None})
    return " to ".join(f"{value:,}" for value in dict.fromkeys((values[0], values[-1]))) if values else "–"


def list_tunings(results: ResultSet) -> list[Table]:
    """List per column the validation loss of each row at each point of its grid, the row's best in bold."""
    tables = []
    for case, tuning in results.tunings.items():
        losses: dict[str, dict[str, float | None]] = {}  # by row and point
        for trial in tuning.trials:
            losses.setdefault(trial.model, {})[_describe_point(trial)] = trial.validation_loss
        points = list(dict.fromkeys(map(_describe_point, tuning.trials)))
        rows = [[row, *(_format_loss(found, point) for point in points)] for row, found in losses.items()]
        notes = [
            f"Validation loss after {tuning.steps:,} steps each, column {tuning.case}, seed {tuning.seed}: "
            "every row had the same grid (in bold its best), and the test split was not read. Made by: "
            f"{tuning.command} (commit {(tuning.commit or 'unknown')[:12]})."
        ]
        name = f"tuning, {case}" if len(results.tunings) > 1 else "tuning"
        tables.append(results.table(name, ["model", *(f"{point} ↓" for point in points)], rows, notes))
    return tables


def _describe_point(trial: Trial) -> str:
    return ", ".join(f"{key.rpartition('.')[2]} {one_line(str(value), 40)}" for key, value in trial.settings.items())


def _format_loss(losses: dict[str, float | None], point: str) -> str:
    """Write the loss of a row at a point. losses: the row's at all of its points; None: training failed."""
    if (loss := losses.get(point)) is None:
        return "failed" if point in losses else "–"
    return Entry(f"{loss:.4f}", best=loss == min(value for value in losses.values() if value is not None))

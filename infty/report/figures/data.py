"""Charts as plain data: points from finished runs. They are drawn elsewhere, and only if they changed."""

import math
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from infty.report.load.results import FEWEST, ResultSet, average
from infty.runs.folder import Run

Point = tuple[float, float, float | None]  # x, y, and the standard deviation of y if there is one
Lines = dict[str, list[Point]]
BY_DISTANCE = "test/accuracy_"  # begins the names of metrics of recall


@dataclass(frozen=True)
class Chart:
    """A line per row over one axis. references: grey lines to compare them with. base: of a logarithmic axis."""

    name: str  # ends the file's name
    title: str
    x: str
    y: str
    lines: Lines
    references: Lines = field(default_factory=dict)
    base: int | None = None
    ticks: list[float] = field(default_factory=list)
    limits: tuple[float, float] | None = None
    joined: bool = True
    zero: bool = False


def make_charts(results: ResultSet) -> list[Chart]:
    """Make the charts that the runs have figures for."""
    columns = [] if results.is_text else _chart_columns(results)
    makers = (_chart_recall, _chart_bins, _chart_learning, _chart_state, _chart_flops)
    by_case = [chart for case in results.cases for make in makers for chart in make(results, case)]
    charts = sorted([*columns, *by_case], key=lambda chart: chart.name == "pace")  # what it costs comes last
    return [chart for chart in charts if chart.lines]


def _chart_columns(results: ResultSet) -> Iterator[Chart]:
    """Chart accuracy and pace by length, and accuracy and error of the fit by basis functions (Figure 3)."""
    lengths = {case: float(runs[0].length or 0) for case in results.cases if (runs := results.of(None, case))}
    found = {case: {run.num_basis for run in results.of(None, case) if run.num_basis} for case in results.cases}
    sizes = {case: float(*numbers) for case, numbers in found.items() if len(numbers) == 1}
    calibrations = {case: results.of(None, case)[0].result.calibration for case in lengths}
    references: Lines = {
        label: [(at, 100 * getattr(calibrations[case], key), None) for case, at in lengths.items()]
        for key, label in (("oracle", "last-window oracle"), ("chance", "chance"))
    }
    length, basis, accuracy = "length of the sequence (symbols)", "basis functions N", "test accuracy (%)"
    fit, pace = "error of the fit (share of what was to be fitted)", "training seconds a million tokens"
    charts: tuple[tuple[str, str, str, int, dict[str, float], Callable[[Run], float | None]], ...] = (
        ("accuracy", length, accuracy, 10, lengths, results.measure.of),
        ("basis", basis, accuracy, 2, sizes, results.measure.of),
        ("error", basis, fit, 2, sizes, lambda run: run.result.find_metric("test/regression_error")),
        ("pace", length, pace, 10, lengths, lambda r: 1e6 * r.result.wall_seconds / max(r.result.tokens_seen, 1)),
    )
    for name, x, y, base, at, figure in charts:
        read_by: dict[str, Any] = {"references": references, "limits": (0, 100)} if name == "accuracy" else {}
        if len(set(at.values())) > 1 or (read_by and len(results.cases) == 1):
            lines = _make_lines(results, at, figure)
            yield Chart(name, results.title, x, y, lines, base=base, ticks=[*at.values()], **read_by)


def _chart_recall(results: ResultSet, case: str) -> Iterator[Chart]:
    """Chart accuracy by the segments that a pair lies back, from 1 on."""
    ticks, lines = set[float](), Lines()
    for model in results.models:
        found: dict[float, list[float]] = {}
        for metrics in [run.result.metrics for run in results.of(model, case)]:
            for name, value in metrics.items():
                at = float(name.removeprefix(BY_DISTANCE)) if name.startswith(BY_DISTANCE) else 0
                if at >= 1 and value is not None:
                    found.setdefault(at, []).append(100 * value)
        if found:
            lines[model] = [(at, *average(values)) for at, values in sorted(found.items())]
            ticks |= found.keys()
    if ticks:
        x, y = "segments from a pair to the question", "test accuracy (%)"
        yield _make_chart(results, "recall", case, x, y, lines, base=2, ticks=sorted(ticks), limits=(0, 100))


def _chart_bins(results: ResultSet, case: str) -> Iterator[Chart]:
    """Chart loss, less its mean over rows, by tokens since a word last came and by place in the document."""
    for name, x in (("distance", "tokens since the word last came"), ("position", "token of the document")):
        found = {model: line for model in results.rows if (line := _average_bins(results.of(model, case), name))}
        shared = sorted(set.intersection(*map(set, found.values()))) if found else []
        means = {low: math.fsum(line[low] for line in found.values()) / len(found) for low in shared}
        if shared:
            lines: Lines = {row: [(low, line[low] - means[low], None) for low in shared] for row, line in found.items()}
            x, y = f"{x} (from, to twice as many)", "nats a token, less the mean"
            ticks = [float(low) for low in shared]
            yield _make_chart(results, name, case, x, y, lines, base=2, ticks=ticks, zero=True)


def _average_bins(runs: list[Run], by: str) -> dict[int, float]:
    """Average the loss over seeds in each bin that has at least 100 tokens."""
    found: dict[int, list[float]] = {}
    for parts in [run.parts for run in runs if run.parts]:
        bins = parts.by_distance if by == "distance" else parts.by_position
        for low, nats, tokens in zip(bins.lower, bins.nats, bins.tokens, strict=True):
            if tokens >= FEWEST:
                found.setdefault(low, []).append(nats / tokens)
    return {low: math.fsum(values) / len(values) for low, values in found.items()}


def _chart_learning(results: ResultSet, case: str) -> Iterator[Chart]:
    """Chart validation by step, a line per row; for a single row, a line per column, all in one chart."""
    if len(results.models) > 1:
        found = {model: results.of(model, case) for model in results.rows}
    elif case == results.cases[0]:
        found, case = {case: results.of(None, case) for case in results.cases}, "main"
    else:
        return
    label = "validation loss (nats a token)" if results.is_text else "validation accuracy (%)"
    lines = {name: line for name, runs in found.items() if (line := _average_curves(results, runs))}
    yield _make_chart(results, "learning", case, "optimiser steps", label, lines)


def _average_curves(results: ResultSet, runs: list[Run]) -> list[Point]:
    """Average over seeds at the steps that all of them have."""
    told = [{v.step: v.loss if results.is_text else v.accuracy for v in run.curve} for run in runs]
    curves = [known for curve in told if (known := {step: y for step, y in curve.items() if y is not None})]
    steps = sorted(set.intersection(*map(set, curves))) if curves else []
    return [(float(step), *average([results.measure.factor * curve[step] for curve in curves])) for step in steps]


def _chart_state(results: ResultSet, case: str) -> Iterator[Chart]:
    """Chart quality against the bytes of a stream's state: a point per row; a line for one that keeps nothing."""
    lines, nothing, label = Lines(), dict[str, tuple[float, float | None]](), _name_quality(results)
    for model in results.models:
        if runs := [run for run in results.of(model, case) if run.result.state_bytes is not None]:
            quality = average([results.measure.of(run) for run in runs])
            if size := runs[0].result.state_bytes:
                lines[model] = [(size, *quality)]
            else:
                nothing[model] = quality
    sizes = [at for ((at, *_),) in lines.values()]
    if len(lines) > 1:
        references: Lines = {row: [(at, y, None) for at in (min(sizes), max(sizes))] for row, (y, _) in nothing.items()}
        around = range(math.floor(math.log2(min(sizes))), math.ceil(math.log2(max(sizes))) + 1)
        more: dict[str, Any] = {"references": references, "base": 2, "ticks": [float(2**power) for power in around]}
        yield _make_chart(results, "state", case, "bytes of state a stream", label, lines, joined=False, **more)


def _chart_flops(results: ResultSet, case: str) -> Iterator[Chart]:
    """Chart quality against floating-point operations: a point per row."""
    lines: Lines = {}
    for model in results.models:
        if found := [run for run in results.of(model, case) if run.result.comparable_flops]:
            flops = statistics.fmean(run.result.comparable_flops or 0 for run in found)
            lines[model] = [(flops / 1e12, *average([results.measure.of(run) for run in found]))]
    if len(lines) > 1:  # a single point has nothing to be compared with
        yield _make_chart(results, "flops", case, "TFLOP of training", _name_quality(results), lines, joined=False)


def _name_quality(results: ResultSet) -> str:
    return "test loss (nats a token)" if results.is_text else "test accuracy (%)"


def _make_lines(results: ResultSet, ticks: dict[str, float], figure: Callable[[Run], float | None]) -> Lines:
    """Make a point per column for each row that has runs there."""
    found: Lines = {}
    for model in results.models:
        for case, at in ticks.items():
            values = [value for run in results.of(model, case) if (value := figure(run)) is not None]
            if values:
                found.setdefault(model, []).append((at, *average(values)))
    return found


def _make_chart(results: ResultSet, name: str, case: str, x: str, y: str, lines: Lines, **more: Any) -> Chart:
    """Make a chart of a column, which its name and title tell if there are several."""
    if case == "main":
        return Chart(name, results.title, x, y, lines, **more)
    return Chart(f"{case}-{name}", f"{results.title}, {case}", x, y, lines, **more)

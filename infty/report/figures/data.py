"""What figures show, as plain data: points from finished runs. Drawn elsewhere, and only where it changed."""

import math
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from infty.report.load.results import ResultSet, Run, mean_and_deviation

Point = tuple[float, float, float | None]  # x, y, and the standard deviation of y where there is one
FEWEST = 100  # tokens in a bin, for its mean to be drawn


@dataclass(frozen=True)
class Chart:
    """A line a row over one axis. references: grey lines to read them by. base: of a logarithmic axis."""

    name: str  # ends the file's name
    title: str
    x: str
    y: str
    lines: dict[str, list[Point]]
    references: dict[str, list[Point]] = field(default_factory=dict)
    base: int | None = None
    ticks: list[float] = field(default_factory=list)
    limits: tuple[float, float] | None = None
    joined: bool = True
    zero: bool = False

    @property
    def about(self) -> str:
        """What it shows, in words."""
        return f"{self.title}: {self.y} by {self.x}"


def all_charts(results: ResultSet) -> list[Chart]:
    """The charts that the runs have figures for."""
    by_case = [make(results, case) for case in results.cases for make in (_distance, _position, _learning, _flops)]
    charts = [_accuracy(results), *_by_basis(results), *by_case, _pace(results)]
    return [chart for chart in charts if chart and chart.lines]


def _accuracy(results: ResultSet) -> Chart | None:
    """Accuracy by length, over chance and the last-window oracle."""
    cases = [case for case in results.cases if results.of(None, case)]
    ticks = [float(results.of(None, case)[0].length or 0) for case in cases]
    if results.is_text or (len(set(ticks)) < 2 and len(results.cases) > 1):
        return None
    lines = _lines(results, cases, ticks, lambda run: 100 * run.accuracy)
    references: dict[str, list[Point]] = {
        label: [
            (at, 100 * results.of(None, c)[0].result["calibration"][key], None)
            for at, c in zip(ticks, cases, strict=True)
        ]
        for key, label in (("oracle", "last-window oracle"), ("chance", "chance"))
    }
    return Chart("accuracy", results.title, "length of the sequence (symbols)", "test accuracy (%)", lines, references,
                 10, ticks, (0, 100))  # fmt: skip


def _by_basis(results: ResultSet) -> Iterator[Chart]:
    """Accuracy, and the error of the fit, by the number of basis functions (Figure 3, right)."""
    sizes = {case: {run.num_basis for run in results.of(None, case) if run.num_basis} for case in results.cases}
    cases = [case for case in results.cases if len(sizes[case]) == 1]
    ticks = [float(*sizes[case]) for case in cases]
    if results.is_text or len(set(ticks)) < 2:
        return
    wanted = {
        "basis": ("test accuracy (%)", lambda run: 100 * run.accuracy),
        "error": ("error of the fit (share of what was to be fitted)",
                  lambda run: run.result["metrics"].get("test/regression_error")),
    }  # fmt: skip
    for name, (label, figure) in wanted.items():
        lines = _lines(results, cases, ticks, figure)
        yield Chart(name, results.title, "basis functions N", label, lines, base=2, ticks=ticks)


def _distance(results: ResultSet, case: str) -> Chart | None:
    """Loss by how many tokens ago a word last came in its document: what a long memory is tested on."""
    x = "tokens since the word last came (from, to twice as many)"
    return _less_the_mean(results, case, "distance", x)


def _position(results: ResultSet, case: str) -> Chart | None:
    """Loss by how far into its document a token is: what there is to remember grows."""
    return _less_the_mean(results, case, "position", "token of the document (from, to twice as many)")


def _less_the_mean(results: ResultSet, case: str, by: str, x: str) -> Chart | None:
    """Mean over seeds, less the mean over rows in that bin: far words, say, are rarer and harder for every row."""
    found = {model: line for model in results.rows if (line := _binned(results.of(model, case), by))}
    shared = sorted(set.intersection(*map(set, found.values()))) if found else []
    if not shared:
        return None
    means = {low: math.fsum(line[low] for line in found.values()) / len(found) for low in shared}
    lines: dict[str, list[Point]] = {
        model: [(low, line[low] - means[low], None) for low in shared] for model, line in found.items()
    }
    ticks, y = [float(low) for low in shared], "nats a token, less the mean"
    return Chart(_named(by, case), _titled(results, case), x, y, lines, base=2, ticks=ticks, zero=True)


def _binned(runs: list[Run], by: str) -> dict[int, float]:
    """Mean loss over seeds in each bin that has at least 100 tokens."""
    found: dict[int, list[float]] = {}
    for run in runs:
        bins = (run.details or {}).get(f"by_{by}", {"from": [], "nats": [], "tokens": []})
        for low, nats, tokens in zip(bins["from"], bins["nats"], bins["tokens"], strict=True):
            if tokens >= FEWEST:
                found.setdefault(low, []).append(nats / tokens)
    return {low: math.fsum(values) / len(values) for low, values in found.items()}


def _learning(results: ResultSet, case: str) -> Chart | None:
    """Validation by step, a line a row; where there is but one row, a line a column, all in one chart."""
    if len(results.models) > 1:
        found = {model: results.of(model, case) for model in results.rows}
    elif case == results.cases[0]:
        found, case = {case: results.of(None, case) for case in results.cases}, "main"
    else:
        return None
    metric, label = (
        ("loss", "validation loss (nats a token)") if results.is_text else ("accuracy", "validation accuracy (%)")
    )
    lines = {name: line for name, runs in found.items() if (line := _curve(runs, metric))}
    return Chart(_named("learning", case), _titled(results, case), "optimiser steps", label, lines)


def _curve(runs: list[Run], metric: str) -> list[Point]:
    """Mean over seeds at the steps that all of them have."""
    scale = 100.0 if metric == "accuracy" else 1.0
    told = [[(step, figures) for step, figures in run.curve if metric in figures] for run in runs]
    curves = [dict(curve) for curve in told if curve]
    steps = sorted(set.intersection(*map(set, curves))) if curves else []
    return [(float(step), *mean_and_deviation([scale * curve[step][metric] for curve in curves])) for step in steps]


def _pace(results: ResultSet) -> Chart | None:
    """Cost by context: seconds of training for a million tokens."""
    cases = [case for case in results.cases if results.of(None, case)]
    ticks = [float(results.of(None, case)[0].length or 0) for case in cases]
    if results.is_text or len(set(ticks)) < 2:
        return None
    lines = _lines(
        results, cases, ticks, lambda run: 1e6 * run.result["wall_seconds"] / max(run.result["tokens_seen"], 1)
    )
    return Chart("pace", results.title, "length of the sequence (symbols)", "training seconds a million tokens", lines,
                 base=10, ticks=ticks)  # fmt: skip


def _flops(results: ResultSet, case: str) -> Chart | None:
    """Quality against floating-point operations: a point a row."""
    scale, label = (1.0, "test loss (nats a token)") if results.is_text else (100.0, "test accuracy (%)")
    lines: dict[str, list[Point]] = {}
    for model in results.models:
        runs = [run for run in results.of(model, case) if run.result["training_flops"]]
        if runs:
            flops = statistics.fmean(run.result["training_flops"] for run in runs)
            figures = [scale * run.result["metrics"][results.metric] for run in runs]
            lines[model] = [(flops / 1e12, *mean_and_deviation(figures))]
    lines = lines if len(lines) > 1 else {}  # one alone stands beside nothing
    return Chart(_named("flops", case), _titled(results, case), "TFLOP of training", label, lines, joined=False)


def _lines(
    results: ResultSet, cases: list[str], ticks: list[float], figure: Callable[[Run], float | None]
) -> dict[str, list[Point]]:
    """A point a column for each row that has runs there."""
    found: dict[str, list[Point]] = {}
    for model in results.models:
        for at, case in zip(ticks, cases, strict=True):
            values = [value for run in results.of(model, case) if (value := figure(run)) is not None]
            if values:
                found.setdefault(model, []).append((at, *mean_and_deviation(values)))
    return found


def _named(kind: str, case: str) -> str:
    return kind if case == "main" else f"{case}-{kind}"


def _titled(results: ResultSet, case: str) -> str:
    return results.title if case == "main" else f"{results.title}, {case}"

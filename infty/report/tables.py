"""The tables of an experiment from its finished runs: of sorting, and what every experiment has."""

import statistics

from infty.report.against import interval, published_tables
from infty.report.distances import distance_tables
from infty.report.knocked import knock_out_tables
from infty.report.paired import Paired, best_row, paired_over_seeds
from infty.report.pairs import column_tables, pair_tables
from infty.report.reach import gaze_tables, reach_tables
from infty.report.results import ResultSet, Run, mean_and_deviation
from infty.report.texts import perplexity_table
from infty.report.tuned import tuned_tables
from infty.table import Entry, Table


def all_tables(results: ResultSet) -> list[Table]:
    """Quality, the differences between rows, what is in print beside it, and the cost."""
    if not results.cases:  # runs with other settings alone
        return []
    if results.is_text:
        quality = [perplexity_table(results, case) for case in results.cases]
    else:
        quality = [accuracy_table(results), *difference_tables(results)]
    memories = [*knock_out_tables(results), *reach_tables(results), *gaze_tables(results), *fit_tables(results)]
    orders = [*pair_tables(results), *column_tables(results), *distance_tables(results), *published_tables(results)]
    return [*quality, *orders, *memories, cost_table(results), *tuned_tables(results)]


def accuracy_table(results: ResultSet) -> Table:
    """Test accuracy by case, a row a model; chance and the last-window oracle stand below."""
    best = {case: best_row(results, case) for case in results.cases}
    rows = [
        [model, *(_accuracy(results, model, case, best=best[case] == model) for case in results.cases)]
        for model in results.models
    ]
    rows.append(["chance", *(_calibration(results, case, "chance") for case in results.cases)])
    rows.append(["last-window oracle", *(_calibration(results, case, "oracle") for case in results.cases)])
    notes = [
        f"Test accuracy in %, mean ± standard deviation over n seeds; {results.protocol}. In bold: ahead of every "
        "other row with each of two or more seeds, and by the 95 % interval.",
        "The paper shows this figure without numbers: compare the ordering of the models, not values.",
        "Chance: guessing among the symbols that the answer has not named yet.",
        "Oracle: exact counts of as many last symbols as one layer's attention sees with the same number of slots.",
    ]
    if results.scale != "paper":
        notes.insert(1, f"Scale: {results.scale}, smaller than the paper's; its figures are not the paper's.")
    notes += [f"Column {case}: tested on different data, not comparable." for case in results.mixed_data()]
    notes += [f"Column {case}: rows were trained on different numbers of tokens." for case in results.mixed_training()]
    notes += [f"Column {case}: rows keep different numbers of memory slots." for case in results.mixed_slots()]
    if missing := results.missing():
        notes.append(f"{len(missing)} of {len(results.wanted)} runs are missing. Next: {missing[0].command()}")
    if others := [run for run in results.runs if run.cell.variant]:
        notes.append(f"{len(others)} runs with other settings stand in no cell; the list of runs has them.")
    headings = ["model", *(f"{_column(results, case)} ↑ ({_length(results, case)})" for case in results.cases)]
    return Table(f"{results.title}: accuracy", headings, rows, notes)


def difference_tables(results: ResultSet) -> list[Table]:
    """How many points of accuracy each row is ahead of the first, by case; none where no two rows can be paired."""
    others = [model for model in results.models if model != results.baseline]
    pairs = {
        (model, case): paired_over_seeds(results.of(model, case), results.of(results.baseline, case))
        for model in others
        for case in results.cases
    }
    if not (found := [pair for pair in pairs.values() if pair]):
        return []
    rows = [[model, *(_points(pairs[model, case]) for case in results.cases)] for model in others]
    notes = [
        f"Points of accuracy ahead of {results.baseline} on the same test sequences, over the seeds that both rows "
        f"have. In brackets the 95 % interval: bootstrap (percentiles) over {found[0].samples} sequences. One that "
        "holds 0 means no difference seen; it says nothing of what another seed would give."
    ]
    headings = ["model", *(f"{case} ↑" for case in results.cases)]
    return [Table(f"{results.title}: difference to {results.baseline}", headings, rows, notes)]


def fit_tables(results: ResultSet) -> list[Table]:
    """The error of the long-term memories' own fits by case; none where there is no such memory, or nothing is told."""
    metric = "test/regression_error"
    found = {
        model: [[run.result["metrics"].get(metric) for run in results.of(model, case)] for case in results.cases]
        for model in results.models
    }
    rows = [
        [model, *(_share([value for value in values if value is not None]) for values in columns)]
        for model, columns in found.items()
        if any(value is not None for values in columns for value in values)
    ]
    notes = [
        "Of each update's fit, as a share of what was to be fitted (squared): mean over updates and layers of one test "
        "stream, then over seeds. It is not what the memory lost since: each update fits anew what the one before left."
    ]
    headings = ["model", *(f"{_column(results, case)} ↓" for case in results.cases)]
    return [Table(f"{results.title}: error of the fit", headings, rows, notes)] if rows else []


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


def _accuracy(results: ResultSet, model: str, case: str, *, best: bool) -> str:
    runs = results.of(model, case)
    if not runs:
        return Entry("–", runs=results.anchor(model, case))
    mean, deviation = mean_and_deviation([100 * run.accuracy for run in runs])
    text = f"{mean:.1f} (n = 1)" if deviation is None else f"{mean:.1f} ± {deviation:.1f} (n = {len(runs)})"
    return Entry(text, best=best, runs=results.anchor(model, case))


def _points(pair: Paired | None) -> str:
    return interval(pair, 1) if pair else "–"


def _calibration(results: ResultSet, case: str, key: str) -> str:
    found = results.of(None, case)
    return f"{100 * found[0].result['calibration'][key]:.1f}" if found else "–"


def _column(results: ResultSet, case: str) -> str:
    """A column's name, and its number of basis functions where columns differ by it."""
    sizes = {run.num_basis for run in results.of(None, case) if run.num_basis}
    several = {run.num_basis for run in results.plain() if run.num_basis}
    return f"{case}, N = {sizes.pop()}" if len(several) > 1 and len(sizes) == 1 else case


def _share(values: list[float]) -> str:
    if not values:
        return "–"
    mean, deviation = mean_and_deviation(values)
    return f"{mean:.4f}" + ("" if deviation is None else f" ± {deviation:.4f}")


def _length(results: ResultSet, case: str) -> str:
    found = results.of(None, case)
    return f"{found[0].length:,} symbols" if found and found[0].length else "no run"


def _mean(runs: list[Run], key: str, unit: float, form: str) -> str:
    values = [run.result[key] / unit for run in runs if run.result[key] is not None]
    return format(statistics.fmean(values), form) if values else "–"


def _same(runs: list[Run], key: str) -> str:
    """A figure that all runs share, or its range."""
    values = sorted({run.result[key] for run in runs})
    return " to ".join(f"{value:,}" for value in dict.fromkeys((values[0], values[-1]))) if values else "–"

"""Tables of sorting from finished runs: accuracy, and how far each row is ahead of the first."""

from infty.base.table import Entry, Table
from infty.report.load.results import ResultSet, format_average
from infty.report.paired_bootstrap import compare_rows, find_best_row
from infty.report.tables.notes import note_mixtures, note_runs, note_scale


def list_accuracies(results: ResultSet) -> list[Table]:
    """List test accuracy by case, a row per model, with chance and the last-window oracle below, and differences."""
    if results.is_text:
        return []
    best = {case: find_best_row(results, case) for case in results.cases}
    rows: list[list[str]] = [
        [model, *(_format_accuracy(results, model, case, best=best[case] == model) for case in results.cases)]
        for model in results.models
    ]
    rows.append(["chance", *(_format_calibration(results, case, "chance") for case in results.cases)])
    rows.append(["last-window oracle", *(_format_calibration(results, case, "oracle") for case in results.cases)])
    notes = [
        f"Test accuracy in %, mean ± standard deviation over n seeds; {results.protocol}. In bold: ahead of every "
        "other row with each of two or more seeds, and by the 95 % interval.",
        *note_scale(results),
        "The paper shows this figure without numbers: compare the ordering of the models, not values.",
        "Chance: guessing among the symbols that the answer has not named yet.",
        "Oracle: exact counts of as many last symbols as one layer's attention sees with the same number of slots.",
        *note_mixtures(results, results.cases),
        *note_runs(results),
    ]
    headings = [f"{name_column(results, case)} ↑ ({_format_length(results, case)})" for case in results.cases]
    return [results.table("accuracy", ["model", *headings], rows, notes), *_compare_with_first(results)]


def _compare_with_first(results: ResultSet) -> list[Table]:
    """Tell how many points of accuracy each row is ahead of the first, by case; nothing if no two can be paired."""
    found = {
        model: [compare_rows(results.of(model, c), results.of(results.baseline, c)) for c in results.cases]
        for model in results.models[1:]
    }
    paired = [pair for pairs in found.values() for pair in pairs if pair]
    if not paired:
        return []
    rows = [[model, *(pair.format(1) if pair else "–" for pair in pairs)] for model, pairs in found.items()]
    notes = [
        f"Points of accuracy ahead of {results.baseline} on the same test sequences, over the seeds that both rows "
        f"have. In brackets the 95 % interval: bootstrap (percentiles) over {paired[0].samples} sequences. One that "
        "holds 0 means no difference seen; it says nothing of what another seed would give."
    ]
    headings = ["model", *(f"{case} ↑" for case in results.cases)]
    return [results.table(f"difference to {results.baseline}", headings, rows, notes)]


def _format_accuracy(results: ResultSet, model: str, case: str, *, best: bool) -> str:
    values = [results.measure.of(run) for run in results.of(model, case)]
    text = f"{format_average(values, 1)} (n = {len(values)})" if values else "–"
    return Entry(text, best=best, runs=results.anchor(model, case))


def _format_calibration(results: ResultSet, case: str, key: str) -> str:
    found = results.of(None, case)
    return f"{100 * getattr(found[0].result.calibration, key):.1f}" if found else "–"


def name_column(results: ResultSet, case: str) -> str:
    """Name a column, with its number of basis functions if columns differ by it."""
    sizes = {run.num_basis for run in results.of(None, case) if run.num_basis}
    several = {run.num_basis for run in results.plain() if run.num_basis}
    return f"{case}, N = {sizes.pop()}" if len(several) > 1 and len(sizes) == 1 else case


def _format_length(results: ResultSet, case: str) -> str:
    found = results.of(None, case)
    return f"{found[0].length:,} symbols" if found else "no run"

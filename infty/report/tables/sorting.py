"""The tables of an experiment from its finished runs: of sorting, and what every experiment has."""

from infty.base.table import Entry, Table
from infty.report.load.results import ResultSet, mean_and_deviation
from infty.report.paired_bootstrap import Paired, best_row, interval, paired_over_seeds


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
    headings = ["model", *(f"{column(results, case)} ↑ ({_length(results, case)})" for case in results.cases)]
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


def column(results: ResultSet, case: str) -> str:
    """A column's name, and its number of basis functions where columns differ by it."""
    sizes = {run.num_basis for run in results.of(None, case) if run.num_basis}
    several = {run.num_basis for run in results.plain() if run.num_basis}
    return f"{case}, N = {sizes.pop()}" if len(several) > 1 and len(sizes) == 1 else case


def _length(results: ResultSet, case: str) -> str:
    found = results.of(None, case)
    return f"{found[0].length:,} symbols" if found and found[0].length else "no run"

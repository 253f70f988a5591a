"""Every order of two rows that a reader might claim: the difference, its interval, and what each seed says of it."""

from itertools import combinations

from infty.report.against import interval
from infty.report.paired import Paired, paired_difference, paired_over_seeds
from infty.report.results import ResultSet, signed
from infty.table import Table


def pair_tables(results: ResultSet) -> list[Table]:
    """A line for each two rows of a column, the one further down less the one above; none where no two pair."""
    rows = [
        found
        for case in results.cases
        for above, below in combinations(results.models, 2)
        if (found := _line(results, case, below, above))
    ]
    better = "Above" if results.higher_is_better else "Below"
    notes = [
        f"Difference in {results.unit} on the same test data, mean over the seeds that both rows have, with its 95 % "
        f"interval over the test data: bootstrap over sequences or chunks, of texts over every token. {better} 0 the "
        "row is the better one. No difference seen: the interval holds 0. It says nothing of what other seeds would "
        "give; the seeds' own differences, in the order of their numbers, say a little. Of twenty pairs without a "
        "difference one is expected to show one."
    ]
    headings = ["column", "row", "against", "difference", "each seed", "so the row is"]
    return [Table(f"{results.title}: pairs", headings, rows, notes, figures=False)] if rows else []


def _line(results: ResultSet, case: str, model: str, other: str) -> list[str] | None:
    runs, others = results.of(model, case), {run.cell.seed: run for run in results.of(other, case)}
    whole = paired_over_seeds(runs, list(others.values()))
    if whole is None:
        return None
    both = sorted((run for run in runs if run.cell.seed in others), key=lambda run: run.cell.seed)
    own = [pair.difference for run in both if (pair := paired_difference(run, others[run.cell.seed]))]
    each = ", ".join(signed(value, results.digits) for value in own)
    return [case, model, other, interval(whole, results.digits), each, _said(results, whole, own)]


def _said(results: ResultSet, whole: Paired, own: list[float]) -> str:
    if results.scale == "smoke":  # a few steps, to see that everything runs
        return "–"
    if not whole.seen:
        return "no difference seen"
    side = "ahead" if (whole.low > 0) == results.higher_is_better else "behind"
    agreeing = sum((value > 0) == (whole.difference > 0) for value in own)
    if len(own) == 1:
        return f"{side}, with one seed"
    return f"{side} with {agreeing} of {len(own)} seeds"

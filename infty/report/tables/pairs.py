"""Every order of two rows or columns that a reader might claim: difference, interval, and what each seed says."""

from itertools import combinations, pairwise

from infty.base.table import Table
from infty.report.load.results import ResultSet, signed
from infty.report.paired_bootstrap import Paired, interval, paired_over_seeds


def pair_tables(results: ResultSet) -> list[Table]:
    """A line for each two rows of a column, the one further down less the one above; none where no two pair."""
    rows = [
        [case, below, above, *found]
        for case in results.cases
        for above, below in combinations(results.models, 2)
        if (found := _difference(results, (below, case), (above, case)))
    ]
    better = "Above" if results.higher_is_better else "Below"
    notes = [
        f"Difference in {results.unit} on the same test data, mean over the seeds that both rows have, with its 95 % "
        f"interval over the test data: bootstrap over sequences or chunks, of texts over every token. {better} 0 the "
        "row is the better one. No difference seen: the interval holds 0. It is for another sample of test data, not "
        "for other seeds, which often move a difference several times as far: an interval that leaves out 0 does not "
        "settle an order. The seeds' own differences stand in the order of their numbers; without a true difference "
        "two seeds agree in every second pair, three in every fourth."
    ]
    headings = ["column", "row", "against", "difference", "each seed", "so the row is"]
    return [Table(f"{results.title}: pairs", headings, rows, notes, figures=False)] if rows else []


def column_tables(results: ResultSet) -> list[Table]:
    """A line for each column less the one before it, in the same row; none where columns have other test data."""
    rows = [
        [model, case, before, *found]
        for model in results.models
        for before, case in pairwise(results.cases)
        if (found := _difference(results, (model, case), (model, before)))
    ]
    notes = [
        f"Difference in {results.unit} on the same test data, mean over the seeds that both columns have, with its "
        "95 % interval over the test data, which says nothing of what other seeds would give."
    ]
    headings = ["row", "column", "against", "difference", "each seed", "so the column is"]
    return [Table(f"{results.title}: neighbouring columns", headings, rows, notes, figures=False)] if rows else []


def _difference(results: ResultSet, cell: tuple[str, str], other: tuple[str, str]) -> list[str] | None:
    """One cell (row, column) less another; None where they can't be paired."""
    whole = paired_over_seeds(results.of(*cell), results.of(*other))
    if whole is None:
        return None
    each = ", ".join(signed(value, results.digits) for value in whole.each)
    return [interval(whole, results.digits), each, _said(results, whole)]


def _said(results: ResultSet, whole: Paired) -> str:
    if results.scale == "smoke":  # a few steps, to see that everything runs
        return "–"
    if not whole.seen:
        return "no difference seen"
    side = "ahead" if (whole.low > 0) == results.higher_is_better else "behind"
    return f"{side}{whole.agreement}"

"""Every order of two rows or columns that a reader might claim: difference, interval, and what each seed says."""

from itertools import combinations, pairwise

from infty.base.table import Table
from infty.report.load.results import ResultSet, add_sign
from infty.report.paired_bootstrap import compare_rows

ROWS = (
    "Difference in {unit} on the same test data, mean over the seeds that both rows have, with its 95 % interval over "
    "the test data: bootstrap over sequences or chunks, of texts over every token. {better} 0 the row is the better "
    "one. No difference seen: the interval holds 0. It is for another sample of test data, not for other seeds, which "
    "often move a difference several times as far: an interval that leaves out 0 does not settle an order. The seeds' "
    "own differences stand in the order of their numbers; without a true difference two seeds agree in every second "
    "pair, three in every fourth."
)
COLUMNS = (
    "Difference in {unit} on the same test data, mean over the seeds that both columns have, with its 95 % interval "
    "over the test data, which says nothing of what other seeds would give."
)


def compare_neighbours(results: ResultSet) -> list[Table]:
    """Compare each two rows of a column, the lower less the upper, and each column with the one before it."""
    rows = [
        [case, below, above, *found]
        for case in results.cases
        for above, below in combinations(results.models, 2)
        if (found := _compare_cells(results, (below, case), (above, case)))
    ]
    columns = [
        [model, case, before, *found]
        for model in results.models
        for before, case in pairwise(results.cases)
        if (found := _compare_cells(results, (model, case), (model, before)))
    ]
    unit, (better, _) = results.measure.unit, results.measure.order("Above", "Below")
    headings, notes = ["against", "difference", "each seed"], [ROWS.format(unit=unit, better=better)]
    pairs = results.table("pairs", ["column", "row", *headings, "so the row is"], rows, notes, figures=False)
    headings, notes = ["row", "column", *headings, "so the column is"], [COLUMNS.format(unit=unit)]
    return [pairs, results.table("neighbouring columns", headings, columns, notes, figures=False)]


def _compare_cells(results: ResultSet, cell: tuple[str, str], other: tuple[str, str]) -> list[str] | None:
    """Take one cell (row, column) from another; None if they can't be paired."""
    whole, measure = compare_rows(results.of(*cell), results.of(*other)), results.measure
    if whole is None:
        return None
    each = ", ".join(add_sign(value, measure.digits) for value in whole.each)
    smoke = results.scale == "smoke"  # a few steps, to see that everything runs
    return [whole.format(measure.digits), each, "–" if smoke else whole.judge(*measure.order("ahead", "behind"))]

"""The debt of rows to their memories: their figures with the memory emptied, shuffled, or another document's."""

from infty.base.table import Table
from infty.report.load.results import ResultSet
from infty.report.paired_bootstrap import compare_rows
from infty.tasks.protocols import KnockOut

KINDS: dict[KnockOut, str] = {"zero": "emptied", "shuffle": "shuffled", "other": "another's"}


def compare_knock_outs(results: ResultSet) -> list[Table]:
    """Compare runs with themselves without their memories, on the same test data: a line per row and column."""
    rows = []
    for model, case, runs in results.cells():
        pairs = [compare_rows([found for run in runs for found in run.without(kind)], runs) for kind in KINDS]
        if any(pairs):
            figures = [pair.format(results.measure.digits) if pair else "–" for pair in pairs]
            rows.append([results.place(model, case), *figures])
    worse, _ = results.measure.order("below", "above")
    notes = [
        f"Difference to the same run with its memory, in {results.measure.unit}, with the 95 % interval over the test "
        f"data. What is {worse} 0 is worse without it: so much does the row owe to its memory. Emptied: made by "
        "infty train; all: by infty eval --knock-out zero, shuffle or other. Mean over seeds, which can differ much."
    ]
    return [results.table("memory knocked out", ["row", *KINDS.values()], rows, notes)]

"""What rows owe to their memories: their figures with the memory emptied, shuffled, or another document's."""

from infty.base.table import Table
from infty.report.load.results import ResultSet
from infty.report.paired_bootstrap import interval, paired_over_seeds
from infty.tasks.protocols import KnockOut

KINDS: dict[KnockOut, str] = {"zero": "emptied", "shuffle": "shuffled", "other": "another's"}


def knock_out_tables(results: ResultSet) -> list[Table]:
    """A line a row and column; none where no run was evaluated so, on the same test data and with its details."""
    rows = []
    for case in results.cases:
        for model in results.models:
            runs = results.of(model, case)
            knocked = {kind: [run.knock_outs[kind] for run in runs if kind in run.knock_outs] for kind in KINDS}
            pairs = {kind: paired_over_seeds(found, runs) for kind, found in knocked.items()}
            if any(pairs.values()):
                shown = [interval(pair, results.digits) if pair else "–" for pair in pairs.values()]
                rows.append([results.place(model, case), *shown])
    worse = "below" if results.higher_is_better else "above"
    notes = [
        f"Difference to the same run with its memory, in {results.unit}, with the 95 % interval over the test data. "
        f"What is {worse} 0 is worse without it: so much does the row owe to its memory. Emptied: made by "
        "infty train; all: by infty eval --knock-out zero, shuffle or other. Mean over seeds, which can differ much."
    ]
    headings = ["row", *KINDS.values()]
    return [Table(f"{results.title}: memory knocked out", headings, rows, notes)] if rows else []

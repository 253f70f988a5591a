"""Differences between rows or columns, to a row without its memory, and by how long ago a word occurred."""

import math
from itertools import combinations, pairwise

from infty.base.table import Table
from infty.report.load.results import FEWEST, ResultSet, add_sign
from infty.report.paired_bootstrap import compare_rows, pair_up
from infty.runs.folder import Run
from infty.tasks.protocols import KnockOut

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
KNOCK_OUTS: dict[KnockOut, str] = {"zero": "emptied", "shuffle": "shuffled", "other": "another's"}
NEW = math.inf  # distance of words that never came before
Distances = dict[float, float]  # nats per token by the least distance of a column, in tokens: 1, 4, 16 …, or NEW


def compare_neighbours(results: ResultSet) -> list[Table]:
    """Compare each two rows of a column, lower minus upper, and each column with the one before it."""
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
    """Subtract the cell `other` (row, column) from `cell`; None if they can't be paired."""
    whole, measure = compare_rows(results.of(*cell), results.of(*other)), results.measure
    if whole is None:
        return None
    each = ", ".join(add_sign(value, measure.digits) for value in whole.each)
    smoke = results.scale == "smoke"  # a few steps, to see that everything runs
    return [whole.format(measure.digits), each, "–" if smoke else whole.judge(*measure.order("ahead", "behind"))]


def compare_knock_outs(results: ResultSet) -> list[Table]:
    """Compare runs with themselves without their memories, on the same test data: a line per row and column."""
    rows = []
    for model, case, runs in results.cells():
        pairs = [compare_rows([found for run in runs for found in run.without(kind)], runs) for kind in KNOCK_OUTS]
        if any(pairs):
            figures = [pair.format(results.measure.digits) if pair else "–" for pair in pairs]
            rows.append([results.place(model, case), *figures])
    worse, _ = results.measure.order("below", "above")
    notes = [
        f"Difference to the same run with its memory, in {results.measure.unit}, with the 95 % interval over the test "
        f"data. What is {worse} 0 is worse without it: so much does the row owe to its memory. Emptied: made by "
        "infty train; all: by infty eval --knock-out zero, shuffle or other. Mean over seeds, which can differ much."
    ]
    return [results.table("memory knocked out", ["row", *KNOCK_OUTS.values()], rows, notes)]


def compare_by_distance(results: ResultSet) -> list[Table]:
    """Compare rows, also with emptied memory, with the first on words that occurred recently, long ago or never."""
    lines: dict[str, Distances] = {}
    for model, case, runs in results.cells():
        baselines, place = results.of(results.baseline, case), results.place(model, case)
        emptied = [found for run in runs for found in run.without("zero")]
        if model != results.baseline:
            lines[place] = _average_differences(runs, baselines)
        lines[f"{place}, emptied"] = _average_differences(emptied, baselines)
    columns = sorted({column for found in lines.values() for column in found})
    rows = [
        [row, *(add_sign(found[column], 3) if column in found else "–" for column in columns)]
        for row, found in lines.items()
        if found
    ]
    notes = [
        f"Nats a token less {results.baseline}'s, by how many tokens ago a word last came in its document, mean over "
        f"the seeds that both rows have; below 0 is better. Of at least {FEWEST} tokens each, without an interval. "
        "Emptied: the same row without what its memory holds, which leaves what its other weights have learnt."
    ]
    headings = ["new words" if column == NEW else f"{column:,} to {4 * column - 1:,}" for column in columns]
    return [results.table("by distance", ["row", *headings], rows, notes)]


def _average_differences(runs: list[Run], baselines: list[Run]) -> Distances:
    """Average the differences of what can be paired."""
    found: dict[float, list[float]] = {}
    for own, other in ((_sum_columns(run), _sum_columns(baseline)) for run, baseline in pair_up(runs, baselines)):
        for column, (nats, tokens) in own.items():
            if column in other and tokens >= FEWEST:
                found.setdefault(column, []).append((nats - other[column][0]) / tokens)
    return {column: math.fsum(values) / len(values) for column, values in found.items()}


def _sum_columns(run: Run) -> dict[float, tuple[float, int]]:
    """Sum nats and tokens of each column, which is two of the stored bins; nothing without parts of a text."""
    found: dict[float, tuple[float, int]] = {}
    if run.parts:
        bins = run.parts.by_distance
        for low, nats, tokens in zip(bins.lower, bins.nats, bins.tokens, strict=True):
            column = 4 ** (int(math.log2(low)) // 2)
            before = found.get(column, (0.0, 0))
            found[column] = before[0] + nats, before[1] + tokens
        found[NEW] = bins.new_word.nats, bins.new_word.tokens
    return found

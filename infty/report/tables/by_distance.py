"""The advantage of a row over the first on words that came lately, long ago, or never before in a text."""

import math

from infty.base.table import Table
from infty.report.figures.data import FEWEST
from infty.report.load.results import ResultSet, add_sign
from infty.report.paired_bootstrap import pair_up
from infty.runs.folder import Run

NEW = math.inf  # words that never came before
Column = float  # its least distance in tokens: 1, 4, 16 …, or NEW


def compare_by_distance(results: ResultSet) -> list[Table]:
    """Compare each row and column of the experiment, and below it the same row with its memory emptied."""
    lines: dict[str, dict[Column, float]] = {}
    for model, case, runs in results.cells():
        baselines, place = results.of(results.baseline, case), results.place(model, case)
        if model != results.baseline:
            lines[place] = _average_differences(runs, baselines)
        lines[f"{place}, emptied"] = _average_differences(
            [run for one in runs for run in one.without("zero")], baselines
        )
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


def _average_differences(runs: list[Run], baselines: list[Run]) -> dict[Column, float]:
    """Average differences in nats per token by column, of what can be paired."""
    found: dict[Column, list[float]] = {}
    for own, other in ((_sum_columns(run), _sum_columns(baseline)) for run, baseline in pair_up(runs, baselines)):
        for column, (nats, tokens) in own.items():
            if column in other and tokens >= FEWEST:
                found.setdefault(column, []).append((nats - other[column][0]) / tokens)
    return {column: math.fsum(values) / len(values) for column, values in found.items()}


def _sum_columns(run: Run) -> dict[Column, tuple[float, int]]:
    """Sum nats and tokens of each column, which is two of the stored bins; nothing without parts of a text."""
    found: dict[Column, tuple[float, int]] = {}
    if run.parts:
        bins = run.parts.by_distance
        for low, nats, tokens in zip(bins.lower, bins.nats, bins.tokens, strict=True):
            column = 4 ** (int(math.log2(low)) // 2)
            before = found.get(column, (0.0, 0))
            found[column] = before[0] + nats, before[1] + tokens
        found[NEW] = bins.new_word.nats, bins.new_word.tokens
    return found

"""Where in a text a row is better than the first: on words that came lately, long ago, or never before."""

import math

from infty.base.table import Table
from infty.report.figures.data import FEWEST
from infty.report.load.results import ResultSet, Run, signed
from infty.report.paired_bootstrap import pair_up

NEW = math.inf  # words that never came before
Column = float  # its least distance in tokens: 1, 4, 16 …, or NEW


def distance_tables(results: ResultSet) -> list[Table]:
    """A line a row and column of the experiment, and below it the same row with its memory emptied."""
    lines: dict[str, dict[Column, float]] = {}
    for case in results.cases:
        baselines = results.of(results.baseline, case)
        for model in results.models:
            runs, place = results.of(model, case), results.place(model, case)
            emptied = [run.knock_outs["zero"] for run in runs if "zero" in run.knock_outs]
            if model != results.baseline:
                lines[place] = _differences(runs, baselines)
            lines[f"{place}, emptied"] = _differences(emptied, baselines)
    lines = {row: found for row, found in lines.items() if found}
    columns = sorted({column for found in lines.values() for column in found})
    rows = [[row, *(signed(found[c], 3) if c in found else "–" for c in columns)] for row, found in lines.items()]
    notes = [
        f"Nats a token less {results.baseline}'s, by how many tokens ago a word last came in its document, mean over "
        f"the seeds that both rows have; below 0 is better. Of at least {FEWEST} tokens each, without an interval. "
        "Emptied: the same row without what its memory holds, which leaves what its other weights have learnt."
    ]
    return [Table(f"{results.title}: by distance", ["row", *map(_heading, columns)], rows, notes)] if rows else []


def _differences(runs: list[Run], baselines: list[Run]) -> dict[Column, float]:
    """Mean differences in nats a token by column, of what can be paired."""
    found: dict[Column, list[float]] = {}
    for own, other in ((_sums(run), _sums(baseline)) for run, baseline in pair_up(runs, baselines)):
        for column, (nats, tokens) in own.items():
            if column in other and tokens >= FEWEST:
                found.setdefault(column, []).append((nats - other[column][0]) / tokens)
    return {column: math.fsum(values) / len(values) for column, values in found.items()}


def _sums(run: Run) -> dict[Column, tuple[float, int]]:
    """Nats and tokens of each column, which is two of the stored bins; empty without details."""
    bins = (run.details or {}).get("by_distance", {"from": [], "nats": [], "tokens": []})
    found: dict[Column, tuple[float, int]] = {}
    for low, nats, tokens in zip(bins["from"], bins["nats"], bins["tokens"], strict=True):
        column = 4 ** (int(math.log2(low)) // 2)
        before = found.get(column, (0.0, 0))
        found[column] = before[0] + nats, before[1] + tokens
    if new := bins.get("new_word"):
        found[NEW] = new["nats"], new["tokens"]
    return found


def _heading(column: Column) -> str:
    return "new words" if column == NEW else f"{column:,} to {4 * column - 1:,}"

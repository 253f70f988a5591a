"""Where in a text a row is better than the first: on words that came lately, long ago, or never before."""

import math

from infty.report.charts import FEWEST
from infty.report.paired import pair_up
from infty.report.results import ResultSet, Run, signed
from infty.table import Table

FACTOR = 4  # of tokens, from a column to the next
Sums = dict[str, tuple[float, int]]  # by column: nats, tokens


def distance_tables(results: ResultSet) -> list[Table]:
    """A line a row and column of the experiment, and below it the same row with its memory emptied."""
    lines: dict[str, dict[str, float]] = {}
    for case in results.cases:
        baselines = results.of(results.baseline, case)
        for model in results.models:
            runs, place = results.of(model, case), results.place(model, case)
            emptied = [run.knock_outs["zero"] for run in runs if "zero" in run.knock_outs]
            if model != results.baseline:
                lines[place] = _differences(runs, baselines)
            lines[f"{place}, emptied"] = _differences(emptied, baselines)
    lines = {row: found for row, found in lines.items() if found}
    columns = sorted({column for found in lines.values() for column in found}, key=_first)
    rows = [[row, *(signed(found[c], 3) if c in found else "–" for c in columns)] for row, found in lines.items()]
    notes = [
        f"Nats a token less {results.baseline}'s, by how many tokens ago a word last came in its document, mean over "
        f"the seeds that both rows have; below 0 is better. Of at least {FEWEST} tokens each, without an interval. "
        "Emptied: the same row without what its memory holds, which leaves what its other weights have learnt."
    ]
    return [Table(f"{results.title}: by distance", ["row", *columns], rows, notes)] if rows else []


def _differences(runs: list[Run], baselines: list[Run]) -> dict[str, float]:
    """By column, of what can be paired."""
    found: dict[str, list[float]] = {}
    for own, other in ((_sums(run), _sums(baseline)) for run, baseline in pair_up(runs, baselines)):
        for column, (nats, tokens) in own.items():
            if column in other and tokens >= FEWEST:
                found.setdefault(column, []).append((nats - other[column][0]) / tokens)
    return {column: math.fsum(values) / len(values) for column, values in found.items()}


def _sums(run: Run) -> Sums:
    """Of each column's distances; empty without details."""
    bins = (run.details or {}).get("by_distance", {"from": [], "nats": [], "tokens": []})
    found: Sums = {}
    for low, nats, tokens in zip(bins["from"], bins["nats"], bins["tokens"], strict=True):
        column = _column(low)
        before = found.get(column, (0.0, 0))
        found[column] = before[0] + nats, before[1] + tokens
    if new := bins.get("new_word"):
        found["new words"] = new["nats"], new["tokens"]
    return found


def _column(distance: int) -> str:
    low = FACTOR ** int(math.log2(distance) / math.log2(FACTOR))
    return f"{low:,} to {FACTOR * low - 1:,}"


def _first(column: str) -> float:
    """What columns are put in order by."""
    return math.inf if column == "new words" else int(column.split(" ")[0].replace(",", ""))

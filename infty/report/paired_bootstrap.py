"""The difference between two rows on the same test data, and how far it would move with another sample of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from infty.report.load.results import ResultSet, Run, signed

DRAWS = 10_000
SEED = 0


@dataclass(frozen=True)
class Paired:
    """A row less another: of texts in nats a token (below 0 is better), of sorting in points of accuracy (above 0 is).

    `low` to `high` is the 95 % percentile interval of a bootstrap over `samples`: a text's chunks of consecutive
    tokens, or test sequences. They are drawn as if independent; chunks of a document are alike, so that the
    interval is too narrow. each: the difference with each seed that both have and that could be paired.
    """

    difference: float
    low: float
    high: float
    samples: int
    each: tuple[float, ...]

    @property
    def seen(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low > 0 or self.high < 0

    @property
    def agreement(self) -> str:
        """How many seeds by themselves are on the mean's side of 0."""
        agreeing = sum((value > 0) == (self.difference > 0) for value in self.each)
        return ", with one seed" if len(self.each) == 1 else f" with {agreeing} of {len(self.each)} seeds"


def paired_difference(run: Run, baseline: Run) -> Paired | None:
    """`run` less `baseline`; None where they can't be paired.

    That is where one has no details, the test data or its tokens or chunks or the weights that they were fine-tuned
    from are not the same, or there is but one sample.
    """
    return _difference([(run, baseline)]) if _comparable(run, baseline) else None


def paired_over_seeds(runs: Sequence[Run], baselines: Sequence[Run]) -> Paired | None:
    """A row less another, as a mean over the seeds that both have; None where none pair.

    Each sample's figures are averaged over these seeds before samples are drawn. So the interval is over the test data:
    it says nothing of what other seeds would give.
    """
    pairs = pair_up(runs, baselines)
    return _difference(pairs) if pairs else None


def pair_up(runs: Sequence[Run], baselines: Sequence[Run]) -> list[tuple[Run, Run]]:
    """Runs of both rows in pairs of one seed that can be compared; none unless all can, with each other."""
    by_seed = {run.cell.seed: run for run in baselines}
    in_order = sorted(runs, key=lambda run: run.cell.seed)
    shared = [(run, by_seed[run.cell.seed]) for run in in_order if run.cell.seed in by_seed]
    pairs = [(run, baseline) for run, baseline in shared if _comparable(run, baseline)]
    return pairs if all(_comparable(run, pairs[0][0]) for run, _ in pairs) else []


def best_row(results: ResultSet, case: str) -> str | None:
    """The row of a column that is better than every other one, by its interval and with each of two or more seeds."""
    rows = {model: runs for model in results.models if (runs := results.of(model, case))}
    best = [a for a in rows if len(rows) > 1 and all(_is_better(results, rows[a], rows[b]) for b in rows if b != a)]
    return best[0] if best else None


def _is_better(results: ResultSet, runs: list[Run], others: list[Run]) -> bool:
    sign = 1 if results.higher_is_better else -1
    by_seed = {run.cell.seed: run for run in others}
    pairs = [paired_difference(run, by_seed[run.cell.seed]) for run in runs if run.cell.seed in by_seed]
    if len(pairs) < 2 or not all(pair and sign * pair.difference > 0 for pair in pairs):
        return False
    whole = paired_over_seeds(runs, others)
    return whole is not None and whole.seen


def _comparable(run: Run, other: Run) -> bool:
    """Whether both were fine-tuned from the same weights, if at all, and tested on the same two and more samples."""
    (sizes, _), (others, _) = _samples(run), _samples(other)
    same = all(run.result["data"].get(key) == other.result["data"].get(key) for key in ("sha256", "tokens_sha256"))
    return same and run.start == other.start and len(sizes) > 1 and np.array_equal(sizes, others)


def _samples(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """How much each sample of the test data counts, and the sum of its figures; empty without details.

    A chunk of text has tokens and nats; a sequence's answer V symbols, and 100 for each right one.
    """
    details = run.details or {}
    if right := details.get("answers", {}).get("right"):
        return np.full(len(right), details["answers"]["symbols"]), 100 * np.array(right, dtype=np.float64)
    chunks = details.get("chunks", {"tokens": [], "nats": []})
    return np.array(chunks["tokens"], dtype=np.int64), np.array(chunks["nats"], dtype=np.float64)


def _difference(pairs: Sequence[tuple[Run, Run]]) -> Paired:
    sizes, _ = _samples(pairs[0][0])
    own = [_samples(run)[1] - _samples(baseline)[1] for run, baseline in pairs]
    sums = np.mean(own, axis=0)
    drawn = _times_drawn(len(sizes), DRAWS)
    low, high = np.percentile((drawn @ sums) / (drawn @ sizes), [2.5, 97.5])
    each = tuple(float(one.sum() / sizes.sum()) for one in own)
    return Paired(float(sums.sum() / sizes.sum()), float(low), float(high), len(sizes), each)


@lru_cache(maxsize=2)
def _times_drawn(count: int, draws: int) -> np.ndarray:
    """How often each of `count` samples is in each of so many draws: draws × count.

    RandomState draws the same in every version of NumPy, so the same runs give the same table.
    """
    drawn = np.random.RandomState(SEED).randint(count, size=(draws, count), dtype=np.int64)
    cells = (drawn + count * np.arange(draws)[:, None]).ravel()
    return np.bincount(cells, minlength=draws * count).reshape(draws, count).astype(np.float64)


def interval(pair: Paired, digits: int) -> str:
    """A difference with its 95 % interval; with more digits where one that leaves 0 out would read as ending at 0."""
    nearest = min(abs(pair.low), abs(pair.high))
    while pair.seen and round(nearest, digits) == 0:
        digits += 1
    return f"{signed(pair.difference, digits)} [{signed(pair.low, digits)}, {signed(pair.high, digits)}]"

"""The difference between two rows on the same test data, and how far it would move with another sample of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from infty.report.load.results import ResultSet, add_sign
from infty.runs.folder import Run

DRAWS = 10_000
SEED = 0
Pairs = Sequence[tuple[Run, Run]]


@dataclass(frozen=True)
class Difference:
    """A row minus another: nats per token for texts (below 0 is better), points of accuracy for sorting (above 0 is).

    `low` to `high` is the 95 % percentile interval of a bootstrap over `samples`: a text's chunks of consecutive
    tokens, or test sequences, drawn as if independent. each: the difference with each seed that could be paired.
    """

    difference: float
    low: float
    high: float
    samples: int
    each: tuple[float, ...]

    @property
    def seen(self) -> bool:
        """True if the interval excludes 0."""
        return self.low > 0 or self.high < 0

    def judge(self, above: str, below: str) -> str:
        """Say on which side of 0 the interval lies, and how many seeds, each alone, agree."""
        if not self.seen:
            return "no difference seen"
        agreeing = sum((value > 0) == (self.difference > 0) for value in self.each)
        seeds = ", with one seed" if len(self.each) == 1 else f" with {agreeing} of {len(self.each)} seeds"
        return f"{above if self.low > 0 else below}{seeds}"

    def format(self, digits: int) -> str:
        """Write it with its interval, with more digits if one that excludes 0 would read as ending at 0."""
        nearest = min(abs(self.low), abs(self.high))
        while self.seen and round(nearest, digits) == 0:
            digits += 1
        low, high = (add_sign(value, digits) for value in (self.low, self.high))
        return f"{add_sign(self.difference, digits)} [{low}, {high}]"


def compare_pair(run: Run, baseline: Run) -> Difference | None:
    """Subtract `baseline` from `run`; None if they can't be paired (see `_are_comparable`)."""
    return _bootstrap([(run, baseline)]) if _are_comparable(run, baseline) else None


def compare_rows(runs: Sequence[Run], baselines: Sequence[Run]) -> Difference | None:
    """Subtract `baselines` from `runs`, each sample averaged over the seeds that both have; None if none pair."""
    pairs = pair_up(runs, baselines)
    return _bootstrap(pairs) if pairs else None


def pair_up(runs: Sequence[Run], baselines: Sequence[Run]) -> Pairs:
    """Pair the comparable runs of each seed; none unless all pairs can be compared with each other."""
    pairs = [pair for pair in match_seeds(runs, baselines) if _are_comparable(*pair)]
    return pairs if all(_are_comparable(run, pairs[0][0]) for run, _ in pairs) else []


def match_seeds(runs: Sequence[Run], others: Sequence[Run]) -> Pairs:
    """Match the runs of both rows by the seeds that both have, in order."""
    by_seed = {run.key.seed: run for run in others}
    in_order = sorted(runs, key=lambda run: run.key.seed)
    return [(run, by_seed[run.key.seed]) for run in in_order if run.key.seed in by_seed]


def find_best_row(results: ResultSet, case: str) -> str | None:
    """Find the row that is better than every other in a column: by its interval, and with each of two or more seeds."""
    rows = {model: runs for model in results.models if (runs := results.of(model, case))}
    best = [a for a in rows if len(rows) > 1 and all(_is_better(results, rows[a], rows[b]) for b in rows if b != a)]
    return best[0] if best else None


def _is_better(results: ResultSet, runs: list[Run], others: list[Run]) -> bool:
    sign = 1 if results.measure.higher_is_better else -1
    each = [compare_pair(run, other) for run, other in match_seeds(runs, others)]
    if len(each) < 2 or not all(one and sign * one.difference > 0 for one in each):
        return False
    whole = compare_rows(runs, others)
    return whole is not None and whole.seen


def _are_comparable(run: Run, other: Run) -> bool:
    """Tell if both were fine-tuned from the same weights, if at all, and tested on the same samples, at least two."""
    (sizes, _), (others, _) = _samples(run), _samples(other)
    same = run.result.data.digests == other.result.data.digests and run.start == other.start
    return same and len(sizes) > 1 and np.array_equal(sizes, others)


def _samples(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Return how much each sample of the test data counts, and the sum of its figures; empty without an evaluation."""
    sizes, sums = run.evaluation.details.samples() if run.evaluation else ([], [])
    return np.array(sizes, dtype=np.int64), np.array(sums, dtype=np.float64)


def _bootstrap(pairs: Pairs) -> Difference:
    sizes, _ = _samples(pairs[0][0])
    own = [_samples(run)[1] - _samples(baseline)[1] for run, baseline in pairs]
    sums = np.mean(own, axis=0)
    times = _draw_samples(len(sizes), DRAWS)
    low, high = np.percentile((times @ sums) / (times @ sizes), [2.5, 97.5])
    each = tuple(float(one.sum() / sizes.sum()) for one in own)
    return Difference(float(sums.sum() / sizes.sum()), float(low), float(high), len(sizes), each)


@lru_cache(maxsize=2)
def _draw_samples(count: int, draws: int) -> np.ndarray:
    """Count how often each sample is in each draw: draws × count. RandomState draws the same in every NumPy."""
    drawn = np.random.RandomState(SEED).randint(count, size=(draws, count), dtype=np.int64)
    cells = (drawn + count * np.arange(draws)[:, None]).ravel()
    return np.bincount(cells, minlength=draws * count).reshape(draws, count).astype(np.float64)

"""The difference between two rows on the same test text, and how far it would move with another sample of the text."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from infty.report.results import Run

DRAWS = 10_000
SEED = 0


@dataclass(frozen=True)
class Paired:
    """Loss of a row less that of the baseline, in nats a token: below 0, the row is better.

    `low` to `high` is the 95 % percentile interval of a bootstrap over `chunks` chunks of consecutive tokens. Chunks
    are drawn as if independent; where neighbours are alike the interval is somewhat narrow.
    """

    difference: float
    low: float
    high: float
    chunks: int


def paired_difference(run: Run, baseline: Run) -> Paired | None:
    """Nats a token of `run` less those of `baseline`; None where they can't be paired.

    That is where one has no details, the text or its tokens or the chunks or the weights that they were fine-tuned from
    are not the same, or there is but one chunk.
    """
    return _difference([(run, baseline)]) if _comparable(run, baseline) else None


def paired_over_seeds(runs: Sequence[Run], baselines: Sequence[Run]) -> Paired | None:
    """Nats a token of a row less those of the baseline, as a mean over the seeds that both have; None where none pair.

    Each chunk's nats are averaged over these seeds before chunks are drawn. So the interval is over the text: it says
    nothing of what other seeds would give.
    """
    by_seed = {run.cell.seed: run for run in baselines}
    shared = [(run, by_seed[run.cell.seed]) for run in runs if run.cell.seed in by_seed]
    pairs = [(run, baseline) for run, baseline in shared if _comparable(run, baseline)]
    if not pairs or not all(_comparable(run, pairs[0][0]) for run, _ in pairs):
        return None
    return _difference(pairs)


def _comparable(run: Run, other: Run) -> bool:
    """Whether both were fine-tuned from the same weights, if at all, and tested on the same two and more chunks."""
    (tokens, _), (others, _) = _chunks(run), _chunks(other)
    same = all(run.result["data"][key] == other.result["data"][key] for key in ("sha256", "tokens_sha256"))
    return same and run.start == other.start and len(tokens) > 1 and np.array_equal(tokens, others)


def _chunks(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and nats of each chunk of the test text; empty without details."""
    chunks = (run.details or {}).get("chunks", {"tokens": [], "nats": []})
    return np.array(chunks["tokens"], dtype=np.int64), np.array(chunks["nats"], dtype=np.float64)


def _difference(pairs: Sequence[tuple[Run, Run]]) -> Paired:
    tokens, _ = _chunks(pairs[0][0])
    nats = np.mean([_chunks(run)[1] - _chunks(baseline)[1] for run, baseline in pairs], axis=0)
    # RandomState draws the same in every version of NumPy, so the same runs give the same table.
    drawn = np.random.RandomState(SEED).randint(len(tokens), size=(DRAWS, len(tokens)), dtype=np.int64)
    low, high = np.percentile(nats[drawn].sum(axis=1) / tokens[drawn].sum(axis=1), [2.5, 97.5])
    return Paired(float(nats.sum() / tokens.sum()), float(low), float(high), len(tokens))

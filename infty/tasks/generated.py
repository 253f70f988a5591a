"""Generate sequences from seeds, as the sorting task does (section 4.1), and make batches of them for a run."""

import hashlib
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache, partial

import numpy as np
import torch
from jaxtyping import Bool, Int64, UInt64
from numpy import ndarray

from infty.base.batch import ALL, UNSCORED, Batch, Share, Totals
from infty.corpora.registry import SPLITS
from infty.tasks.kept import Kept, Rows
from infty.tasks.protocols import Metrics
from infty.tasks.task import PerTarget, Sample, Task

# Each sequence is generated from one integer seed; the seeds of the splits are disjoint ranges.
FIRST_SEED = {"train": 0, "validation": 2**40, "test": 2**41}


class GeneratedTask(Task):
    """Generated sequences as batches of tokens and targets, each from one seed (section 4.1)."""

    continues, has_answers = False, True

    def __init__(self, vocab_size: int, name: str, sizes: tuple[int, int, int], sequence_length: int) -> None:
        """Prepare sequences. sizes: how many each split has. sequence_length: the tokens of each that a model reads."""
        self.name, self.vocab_size, self.sequence_length = name, vocab_size, sequence_length
        self.sizes: dict[str, int] = dict(zip(SPLITS, sizes, strict=True))
        self.tokens_per_epoch: int | None = sizes[0] * sequence_length
        numbers, greatest = sequence_length + 1, vocab_size - 1
        self._rows = {
            split: Kept(size, numbers, greatest, partial(self.make_rows, split)) for split, size in self.sizes.items()
        }

    @abstractmethod
    def make_rows(self, split: str, indices: Int64[ndarray, " n"]) -> Rows:
        """Make the tokens of some sequences, the last target included."""

    @abstractmethod
    def mark_scored(self, rows: Rows) -> Bool[ndarray, "n targets"]:
        """Mark the targets that are scored: `targets` is one less than the numbers of a row."""

    def training_batch(self, step: int, batch_size: int, seed: int, rows: range | None = None) -> Batch:
        """Make a batch of the training sequences, whose order is drawn anew in every epoch, from `seed`."""
        size = self.sizes["train"]
        places = step * batch_size + np.array(range(batch_size) if rows is None else rows)
        orders = {epoch: _permute(size, seed, epoch) for epoch in np.unique(places // size).tolist()}
        batch = self.make_batch("train", np.array([orders[p // size][p % size] for p in places.tolist()]))
        return replace(batch, streams=torch.from_numpy(seed * 2**31 + places))  # sticky draws differ between epochs

    def count_steps_per_epoch(self, batch_size: int) -> int:
        """Count the steps until each training sequence has been read once."""
        return -(-self.sizes["train"] // batch_size)

    def evaluation_batches(self, split: str, batch_size: int, share: Share = ALL) -> Iterator[Batch]:
        """Yield the sequences of a split in order."""
        own = share.select_indices(self.sizes[split])
        for start in range(0, len(own), batch_size):
            yield self.make_batch(split, np.array(own[start : start + batch_size]))

    def compute_metrics(self, split: str, totals: Totals) -> Metrics:
        """Compute `<split>/loss` in nats per scored target, and `<split>/accuracy` from 0 to 1."""
        return {f"{split}/loss": totals.nats / totals.scored, f"{split}/accuracy": totals.correct / totals.scored}

    def make_record(self, split: str) -> PerTarget:
        """Make an array that holds True for each target that is right."""
        return np.zeros(self.sizes[split] * self.sequence_length, dtype=bool)

    def choose_sample(self, split: str, segment_length: int) -> Sample:
        """Choose the first sequence."""
        return "sequence", 0, self.make_batch(split, np.array([0]))

    def make_batch(self, split: str, indices: Int64[ndarray, " batch"]) -> Batch:
        """Make a batch of the sequences `indices` of a split."""
        rows, seeds = self._rows[split].take(indices), FIRST_SEED[split] + indices
        tokens, targets = rows[:, :-1].copy(), np.where(self.mark_scored(rows), rows[:, 1:], UNSCORED)
        parts = tokens, targets, seeds, indices * self.sequence_length
        tokens, targets, names, places = map(torch.from_numpy, parts)
        return Batch(tokens, targets, names, places=places)

    def count_evaluation_steps(self, split: str, batch_size: int, share: Share = ALL) -> int:
        """Count the batches of `evaluation_batches`, which are its steps."""
        return -(-len(share.select_indices(self.sizes[split])) // batch_size)

    def pair_samples(self, split: str, batch_size: int, share: Share = ALL) -> Iterator[Batch]:
        """Yield sequences and, in the second, unscored half of the rows, the next ones, whose memories can be read."""
        places = share.select_indices(self.sizes[split])
        for start in range(0, len(places), batch_size):
            own = np.array(places[start : start + batch_size])
            batch = self.make_batch(split, np.concatenate([own, (own + 1) % self.sizes[split]]))
            batch.targets[len(own) :] = UNSCORED
            yield batch

    def count_tokens_seen(self, steps: int, batch_size: int) -> int:
        """Count the tokens of the first `steps` training batches."""
        return steps * batch_size * self.sequence_length

    def describe_data(self, split: str) -> dict[str, str]:
        """Describe a split: the seeds of training, else the SHA-256 of all tokens and targets."""
        if split == "train":
            return {"name": self.name, "sequences": f"seeds 0 to {self.sizes['train'] - 1:,}"}
        digest = hashlib.sha256()
        for batch in self.evaluation_batches(split, 50):
            digest.update(torch.cat([batch.tokens, batch.targets], 1).numpy().astype("<i8").tobytes())
        return {"name": self.name, "sha256": digest.hexdigest()}


def scale(random: UInt64[ndarray, "..."], below: int | Int64[ndarray, "..."]) -> Int64[ndarray, "..."]:
    """Map 32 random bits to 0 … below − 1."""
    return (random * np.asarray(below, dtype=np.uint64) >> np.uint64(32)).astype(np.int64)


@lru_cache(maxsize=4)
def _permute(size: int, seed: int, epoch: int) -> Int64[ndarray, " size"]:
    """Draw the permutation of an epoch from the seed."""
    key = np.array([2**63 + seed, epoch], dtype=np.uint64)
    return np.argsort(np.random.Philox(key=key).random_raw(size), kind="stable")

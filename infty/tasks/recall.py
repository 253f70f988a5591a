"""Recall values by their keys over growing distances: multi-query associative recall (Arora et al. 2023).

Pairs of a key and a value stand among fillers, some in the segment that is 1 segment before the last, some 2 before, 4
before and so on. The last segment asks for each of them by its key; only the values are scored (segments of 6, a pair
each at the distances 1 and 2, · a filler):

    tokens   · · b 2 · ·   a 7 · · · ·   a 7 b
    targets                              7   2

Sorting (section 4.1) asks for counts, which an average can hold; this asks for what a memory kept apart. Pairs at
distance 0 begin the last segment itself: by them a model learns to look values up, whatever it keeps.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Bool, Int64
from numpy import ndarray
from pydantic import Field

from infty.base.batch import Batch, Totals
from infty.base.errors import UsageError
from infty.corpora.text_pieces import Text
from infty.tasks.generated import FIRST_SEED, GeneratedTask, scale
from infty.tasks.kept import Rows
from infty.tasks.protocols import RECALL
from infty.tasks.task import PerTarget, TaskConfig, Values

Distances = Int64[ndarray, "n asked"]  # of each pair that is asked for, in segments


class RecallConfig(TaskConfig):
    """The sizes of the recall task. Tokens are keys, then values, then fillers."""

    kind: Literal["recall"] = Field(default="recall", description="values recalled by their keys, by distance")
    keys: int = Field(gt=1, description="keys, of which each sequence has each at most once")
    values: int = Field(gt=1, description="values, drawn for each pair")
    fillers: int = Field(gt=0, description="tokens that stand between pairs")
    pairs: int = Field(gt=0, description="pairs at each distance")
    distances: tuple[int, ...] = Field(
        strict=False, min_length=1, description="segments from a pair to the last segment, which asks for it; 0: in it"
    )
    curriculum: tuple[Annotated[int, Field(gt=0)], ...] = Field(
        default=(),
        strict=False,
        description="steps of training until the next distance is asked for too, in longer sequences; []: all at once",
    )
    train_sequences: int = Field(gt=0, le=2**40, description="different sequences to train on")
    validation_sequences: int = Field(gt=0, le=2**40, description="sequences to validate on")
    test_sequences: int = Field(gt=0, le=2**40, description="sequences to test on")

    @property
    def vocab_size(self) -> int:
        """The size of the vocabulary: keys, values and fillers."""
        return self.keys + self.values + self.fillers

    @property
    def asked(self) -> int:
        """The number of pairs in a sequence, all of which are asked for."""
        return self.pairs * len(self.distances)

    @property
    def pairs_within(self) -> int:
        """The number of pairs that stand in the last segment itself, at distance 0."""
        return self.pairs if self.distances[0] == 0 else 0

    def count_fitting(self, segment_length: int) -> int:
        """Count the keys that fit at each distance: the last segment asks for all, after pairs within it."""
        return segment_length // 2 // (len(self.distances) + (self.distances[0] == 0))

    def open(self, _data: Path, segment_length: int, *_: Any, **__: Any) -> "RecallTask":
        """Open the task; sequences are generated, so no corpus is read."""
        return RecallTask(self, segment_length)

    def find_faults(self, segment_length: int) -> list[tuple[str, str]]:
        """Find sizes that do not fit each other, or the model's segments."""
        faults = []
        if self.distances[0] < 0 or list(self.distances) != sorted(set(self.distances)):
            faults.append(("task.distances", f"{list(self.distances)} do not rise from 0 or more"))
        if self.asked > self.keys:
            faults.append(("task.keys", f"{self.keys} are fewer than the {self.asked} pairs of a sequence"))
        if self.pairs > (most := self.count_fitting(segment_length)):
            why = f"{self.asked} pairs do not fit into a segment of {segment_length}"
            faults.append(("task.pairs", f"{why}; at most {most} at each distance do"))
        if len(self.curriculum) not in (0, len(self.distances) - 1):
            wanted = f"{len(self.distances) - 1} numbers of steps, one for each distance but the last, or none"
            faults.append(("task.curriculum", f"{list(self.curriculum)} are not {wanted}"))
        return faults


class RecallTask(GeneratedTask):
    """The sequences of a `RecallConfig` as batches of tokens and targets."""

    protocol = RECALL

    def __init__(self, config: RecallConfig, segment_length: int) -> None:
        self.config, self.segment_length = config, segment_length
        self.last = config.distances[-1] * segment_length  # where the last segment begins
        self.start = self.last + 2 * config.pairs_within  # where the questions begin
        sizes = config.train_sequences, config.validation_sequences, config.test_sequences
        super().__init__(config, config.kind, sizes, self.start + 2 * config.asked - 1)

    def make_rows(self, split: str, indices: Int64[ndarray, " n"]) -> Rows:
        """Make sequences in integer arithmetic, so that they are the same on every machine."""
        c, count = self.config, len(indices)
        sizes = self.start, c.keys, c.asked, len(c.distances) * (self.segment_length // 2), c.asked
        raw = [np.random.Philox(key=int(seed)).random_raw(sum(sizes)) for seed in FIRST_SEED[split] + indices]
        random = np.split(np.stack(raw), np.cumsum(sizes)[:-1], axis=1)
        fillers, drawn = (part >> np.uint64(32) for part in (random[0], random[2]))
        rows = scale(fillers, c.fillers) + c.keys + c.values

        # Pairs at places of their own in the segments that are theirs; in the last one at its beginning.
        keys = random[1].argsort(1)[:, : c.asked].reshape(count, len(c.distances), c.pairs)
        values = (scale(drawn, c.values) + c.keys).reshape(keys.shape)
        within = 2 * random[3].reshape(count, len(c.distances), -1).argsort(2)[..., : c.pairs]
        if c.pairs_within:
            within[:, 0] = 2 * np.arange(c.pairs)
        places = (self.last - self.segment_length * np.array(c.distances))[:, None] + within
        which = np.arange(count)[:, None, None]
        rows[which, places], rows[which, places + 1] = keys, values

        # All of them once more, in another order.
        order = random[4].argsort(1)
        asked = [np.take_along_axis(part.reshape(count, -1), order, 1) for part in (keys, values)]
        return np.concatenate([rows, np.stack(asked, -1).reshape(count, -1)], 1)

    def mark_scored(self, rows: Rows) -> Bool[ndarray, "n targets"]:
        """Mark the values that are asked for: every other target of the last segment."""
        places = np.arange(self.sequence_length) - self.start
        return np.broadcast_to((places >= 0) & (places % 2 == 0), rows[:, 1:].shape)

    def measure_distances(self, tokens: Int64[ndarray, "n tokens"]) -> Distances:
        """Measure, in segments, how far before the last segment each key that is asked for has its value."""
        asked = tokens[:, self.start : self.sequence_length : 2]
        places = (tokens[:, None, : self.start] == asked[..., None]).argmax(-1)
        return (self.last - places + self.segment_length - 1) // self.segment_length

    @cached_property
    def curriculum(self) -> list["RecallTask"]:
        """The tasks of each stage: the nearest distance, the two nearest and so on, as many pairs as fit; then all."""
        c, stages = self.config.model_copy(update={"curriculum": ()}), []
        for count, _ in enumerate(self.config.curriculum, 1):
            stage = c.model_copy(update={"distances": c.distances[:count]})
            pairs = min(stage.count_fitting(self.segment_length), c.keys // count)
            stages.append(RecallTask(stage.model_copy(update={"pairs": pairs}), self.segment_length))
        return [*stages, RecallTask(c, self.segment_length)] if stages else [self]

    def list_stages(self, steps: int) -> Sequence[tuple[int, "RecallTask"]]:
        """List the stages of the curriculum that so many steps reach."""
        starts = [*accumulate(self.config.curriculum, initial=0), steps]
        counts = [min(end, steps) - start for start, end in pairwise(starts)]

        return [(count, stage) for count, stage in zip(counts, self.curriculum, strict=True) if count > 0]

    def training_batch(self, step: int, batch_size: int, seed: int, rows: range | None = None) -> Batch:
        """Make a batch of the training sequences: those of the curriculum's stage."""
        _, stage = self.list_stages(step + 1)[-1]
        return (super() if stage is self else stage).training_batch(step, batch_size, seed, rows)

    def count_tokens_seen(self, steps: int, batch_size: int) -> int:
        """Count the tokens of the first `steps` training batches."""
        return sum(count * batch_size * stage.sequence_length for count, stage in self.list_stages(steps))

    def score(self, split: str, totals: Totals, record: PerTarget, memory_slots: int, segment_length: int) -> Values:
        """Compute loss and accuracy, in all and by distance, and what accuracy is compared with.

        details: right values of each sequence, in all and by distance.
        """
        c = self.config
        right = record.reshape(-1, self.sequence_length)[:, self.start :: 2]
        tokens = self._rows[split].take(np.arange(self.sizes[split]))
        distances, metrics = self.measure_distances(tokens), self.compute_metrics(split, totals)
        by_distance = {}
        for distance in c.distances:
            own = (right & (distances == distance)).sum(1)
            by_distance[str(distance)] = own.tolist()
            metrics[f"{split}/accuracy_{distance}"] = float(own.mean() / c.pairs)
        answers = {"right": right.sum(1).tolist(), "symbols": c.asked}
        details = {"answers": answers, "recall": {"pairs": c.pairs, "right": by_distance}}
        calibration = self.calibrate(memory_slots)
        return {"metrics": metrics, "totals": vars(totals), "details": details, "calibration": calibration}

    def calibrate(self, memory_slots: int) -> dict[str, float]:
        """Compute what accuracy is compared with: chance, and an oracle that knows the last `memory_slots` tokens.

        It has as many tokens before the last segment as a layer has slots, and guesses what is farther.
        """
        c, chance = self.config, 1 / self.config.values
        seen = [min(1.0, max(0.0, memory_slots / self.segment_length - distance + 1)) for distance in c.distances]
        oracle = float(np.mean([share + (1 - share) * chance for share in seen]))
        return {"chance": chance, "oracle_window": memory_slots, "oracle": oracle}

    def cut_stream(self, file: Text, segment_length: int) -> Iterator[Batch]:
        """Refuse: a text holds no pairs to recall. UsageError says so."""
        raise UsageError("recall makes its own sequences: --stream is for sorting and for texts")

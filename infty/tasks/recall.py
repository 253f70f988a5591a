"""Recall values by their keys over growing distances: multi-query associative recall (Arora et al. 2023).

Pairs of a key and a value stand among fillers, some in the segment that is 1 segment before the last, some 2 before, 4
before and so on. The last segment asks for each of them by its key; only the values are scored (segments of 6, a pair
each at the distances 1 and 2, · a filler):

    tokens   · · b 2 · ·   a 7 · · · ·   a 7 b
    targets                              7   2

Sorting (section 4.1) asks for counts, which an average can hold; this asks for what a memory kept apart. Pairs at
distance 0 begin the last segment itself: by them a model learns to look values up, whatever it keeps.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Bool, Int64, UInt64
from numpy import ndarray
from pydantic import Field

from infty.base.batch import Batch, Totals
from infty.base.errors import UsageError
from infty.corpora.text_pieces import Text
from infty.corpora.tokenizers import Tokenizer
from infty.tasks.generated import FIRST_SEED, GeneratedTask, scale
from infty.tasks.kept import Rows
from infty.tasks.protocols import RECALL
from infty.tasks.task import PerTarget, TaskConfig, Values

Random = UInt64[ndarray, "n draws"]
Pairs = Int64[ndarray, "n distances pairs"]
Distances = Int64[ndarray, "n asked"]


@dataclass(frozen=True)
class Sentence:
    """The tokens of a fact, or of a question with its answer; at two places any key and value stand."""

    tokens: tuple[int, ...]
    key: int  # place of the key
    value: int  # place of the value

    def write(
        self, keys: Int64[ndarray, "*sequences pairs"], values: Int64[ndarray, "*sequences pairs"]
    ) -> Int64[ndarray, "*sequences pairs n"]:
        """Write it for pairs."""
        written = np.tile(self.tokens, (*keys.shape, 1))
        written[..., self.key], written[..., self.value] = keys, values
        return written


@dataclass(frozen=True)
class Language:
    """What sequences are made of. fill: tokens between facts, of a split, from `draws` random numbers a sequence."""

    name: str
    vocab_size: int
    keys: Int64[ndarray, " keys"]
    values: Int64[ndarray, " values"]
    fact: Sentence
    question: Sentence
    fill: Callable[[str, Random, int], Rows]  # split, random numbers, length
    draws: int | None = None  # None: one for each token
    digest: str | None = None  # SHA-256 of the text that it is from
    tokenizer: Tokenizer | None = None  # of that text

    def count_fitting(self, distances: Sequence[int], segment_length: int) -> int:
        """Count the keys that fit at each distance: the last segment asks for all, after pairs within it."""
        asked, fact = len(self.question.tokens) * len(distances), len(self.fact.tokens)
        return min(segment_length // (asked + fact * (distances[0] == 0)), segment_length // fact)


class PairsConfig(TaskConfig):
    """The sizes of a task that asks for the values of keys."""

    pairs: int = Field(gt=0, description="pairs of a key and a value at each distance")
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
    def asked(self) -> int:
        """The number of pairs in a sequence, all of which are asked for."""
        return self.pairs * len(self.distances)

    def find_faults(self, segment_length: int) -> list[tuple[str, str]]:
        """Find distances and a curriculum that can't be."""
        faults = []
        if self.distances[0] < 0 or list(self.distances) != sorted(set(self.distances)):
            faults.append(("task.distances", f"{list(self.distances)} do not rise from 0 or more"))
        if len(self.curriculum) not in (0, len(self.distances) - 1):
            wanted = f"{len(self.distances) - 1} numbers of steps, one for each distance but the last, or none"
            faults.append(("task.curriculum", f"{list(self.curriculum)} are not {wanted}"))
        return faults


def find_misfits(config: PairsConfig, language: Language, segment_length: int) -> list[tuple[str, str]]:
    """Find more pairs than there are keys, or than fit into the last segment."""
    keys, most = len(language.keys), language.count_fitting(config.distances, segment_length)
    faults = []
    if config.asked > keys:
        faults.append(("task.keys", f"{keys} are fewer than the {config.asked} pairs of a sequence"))
    if config.pairs > most:
        why = f"{config.asked} pairs do not fit into a segment of {segment_length}"
        faults.append(("task.pairs", f"{why}; at most {most} at each distance do"))
    return faults


class RecallConfig(PairsConfig):
    """The sizes of the recall task. Tokens are keys, then values, then fillers."""

    kind: Literal["recall"] = Field(default="recall", description="values recalled by their keys, by distance")
    keys: int = Field(gt=1, description="keys, of which each sequence has each at most once")
    values: int = Field(gt=1, description="values, drawn for each pair")
    fillers: int = Field(gt=0, description="tokens that stand between pairs")

    @property
    def vocab_size(self) -> int:
        """The size of the vocabulary: keys, values and fillers."""
        return self.keys + self.values + self.fillers

    @property
    def language(self) -> Language:
        """Symbols: a key and then its value, both as fact and as question, and fillers drawn one by one."""
        first, pair = self.keys + self.values, Sentence((0, 0), 0, 1)
        return Language(
            name=self.kind,
            vocab_size=self.vocab_size,
            keys=np.arange(self.keys),
            values=np.arange(self.keys, first),
            fact=pair,
            question=pair,
            fill=lambda _split, random, _length: scale(random >> np.uint64(32), self.fillers) + first,
        )

    def open(self, _data: Path, segment_length: int, *_: Any, **__: Any) -> "RecallTask":
        """Open the task; sequences are generated, so no corpus is read."""
        return RecallTask(self, self.language, segment_length)

    def find_faults(self, segment_length: int) -> list[tuple[str, str]]:
        """Find sizes that do not fit each other, or the model's segments."""
        return super().find_faults(segment_length) + find_misfits(self, self.language, segment_length)


class RecallTask(GeneratedTask):
    """The sequences of a `PairsConfig` in some language as batches of tokens and targets."""

    protocol = RECALL

    def __init__(self, config: PairsConfig, language: Language, segment_length: int) -> None:
        self.config, self.language, self.segment_length = config, language, segment_length
        self.last = config.distances[-1] * segment_length  # where the last segment begins
        within = config.pairs if config.distances[0] == 0 else 0
        self.start = self.last + len(language.fact.tokens) * within  # where the questions begin
        sizes = config.train_sequences, config.validation_sequences, config.test_sequences
        length = self.start + len(language.question.tokens) * config.asked - 1
        super().__init__(language.vocab_size, language.name, sizes, length)
        self.digest, self.tokenizer = language.digest, language.tokenizer
        self.tokens_per_epoch = None if config.curriculum else self.tokens_per_epoch

    def make_rows(self, split: str, indices: Int64[ndarray, " n"]) -> Rows:
        """Make sequences in integer arithmetic, so that they are the same on every machine."""
        c, fact = self.config, self.language.fact
        random, keys, values, order = self._draw(split, indices)
        rows = self.language.fill(split, random[0], self.start)

        # Facts at places of their own in the segments that are theirs; in the last one at its beginning.
        within = len(fact.tokens) * random[3].reshape(len(indices), len(c.distances), -1).argsort(2)[..., : c.pairs]
        if c.distances[0] == 0:
            within[:, 0] = len(fact.tokens) * np.arange(c.pairs)
        places = (self.last - self.segment_length * np.array(c.distances))[:, None] + within
        which = np.arange(len(indices))[:, None, None, None]
        rows[which, places[..., None] + np.arange(len(fact.tokens))] = fact.write(keys, values)

        # All of them are asked for, in another order.
        asked = [np.take_along_axis(part.reshape(len(indices), -1), order, 1) for part in (keys, values)]
        return np.concatenate([rows, self.language.question.write(*asked).reshape(len(indices), -1)], 1)

    def _draw(self, split: str, indices: Int64[ndarray, " n"]) -> tuple[list[Random], Pairs, Pairs, Distances]:
        """Draw what makes sequences: random numbers, keys and values by distance, and the order that they come in."""
        c, language = self.config, self.language
        slots = len(c.distances) * (self.segment_length // len(language.fact.tokens))
        sizes = language.draws or self.start, len(language.keys), c.asked, slots, c.asked
        raw = [np.random.Philox(key=int(seed)).random_raw(sum(sizes)) for seed in FIRST_SEED[split] + indices]
        random = np.split(np.stack(raw), np.cumsum(sizes)[:-1], axis=1)
        keys = language.keys[random[1].argsort(1)[:, : c.asked].reshape(len(indices), len(c.distances), c.pairs)]
        values = language.values[scale(random[2] >> np.uint64(32), len(language.values)).reshape(keys.shape)]
        return random, keys, values, random[4].argsort(1)

    def mark_scored(self, rows: Rows) -> Bool[ndarray, "n targets"]:
        """Mark the values that are asked for, one in each question."""
        question, places = self.language.question, np.arange(1, self.sequence_length + 1) - self.start
        asked = (places >= 0) & (places % len(question.tokens) == question.value)
        return np.broadcast_to(asked, rows[:, 1:].shape)

    def list_distances(self, split: str, indices: Int64[ndarray, " n"]) -> Distances:
        """List how far before the last segment each key that is asked for has its value, in segments."""
        return np.repeat(self.config.distances, self.config.pairs)[self._draw(split, indices)[3]]

    @cached_property
    def curriculum(self) -> list["RecallTask"]:
        """The tasks of each stage: the nearest distance, the two nearest and so on, as many pairs as fit; then all."""
        c, language, stages = self.config.model_copy(update={"curriculum": ()}), self.language, []
        for count, _ in enumerate(self.config.curriculum, 1):
            distances = c.distances[:count]
            fitting = language.count_fitting(distances, self.segment_length)
            sizes = {"distances": distances, "pairs": min(fitting, len(language.keys) // count)}
            stages.append(RecallTask(c.model_copy(update=sizes), language, self.segment_length))
        return [*stages, RecallTask(c, language, self.segment_length)] if stages else [self]

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
        indices, question = np.arange(self.sizes[split]), self.language.question
        right = record.reshape(-1, self.sequence_length)[:, self.start + question.value - 1 :: len(question.tokens)]
        distances, metrics = self.list_distances(split, indices), self.compute_metrics(split, totals)
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
        c, chance = self.config, 1 / len(self.language.values)
        seen = [min(1.0, max(0.0, memory_slots / self.segment_length - distance + 1)) for distance in c.distances]
        oracle = float(np.mean([share + (1 - share) * chance for share in seen]))
        return {"chance": chance, "oracle_window": memory_slots, "oracle": oracle}

    def cut_stream(self, file: Text, segment_length: int) -> Iterator[Batch]:
        """Refuse: a text holds no pairs to recall. UsageError says so."""
        raise UsageError("recall makes its own sequences: --stream is for sorting and for texts")

"""The contract of a task: all that training, evaluation and results ask of it (section 4).

A new task is a file in this package with a `TaskConfig` and a `Task`, and a line of the union in `infty/experiment.py`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import torch
from jaxtyping import Shaped
from numpy import ndarray

from infty.base.batch import ALL, Batch, Share, Totals
from infty.base.errors import MissingError, UsageError
from infty.base.files import Strict
from infty.corpora.text_pieces import CountedText, Text
from infty.corpora.tokenizers import Tokenizer
from infty.corpora.tokens import Portion
from infty.tasks.protocols import EvaluationProtocol, KnockOut, Metrics

PerTarget = Shaped[ndarray, " targets"]
Sample = tuple[Literal["sequence", "document"], int, Batch]  # a stream's kind, number, batch
Values = dict[str, Any]
Source = tuple[str, Portion]  # a corpus by name, and documents of it


class StepData(Protocol):
    """What optimiser steps ask of a source of batches."""

    continues: bool  # a batch continues where the previous one ended, so memory is carried from step to step

    def training_batches(
        self, step: int, batch_size: int, seed: int, rows: range | None = None, segments: int = 1
    ) -> list[Batch]:
        """Make what optimiser step `step` reads, one batch after the other."""
        ...


class TrainingData(StepData, Protocol):
    """A source of training batches, each a pure function of the arguments: there is no position to save."""

    vocab_size: int
    has_answers: bool = False  # a target is right or wrong, so that accuracy is meaningful
    tokens_per_epoch: int | None  # of one pass over the training data; None: not known

    @abstractmethod
    def training_batch(self, step: int, batch_size: int, seed: int, rows: range | None = None) -> Batch:
        """Make batch `step` (from 0) of training in a run with this seed. rows: those to make; None: all."""

    def count_batches(self, steps: int, segments: int) -> int:
        """Count the batches of so many optimiser steps: a task that continues has one a segment, `segments` a step."""
        return steps * segments if self.continues else steps

    def training_batches(
        self, step: int, batch_size: int, seed: int, rows: range | None = None, segments: int = 1
    ) -> list[Batch]:
        """Make what optimiser step `step` reads, one batch after the other."""
        first, stop = self.count_batches(step, segments), self.count_batches(step + 1, segments)
        return [self.training_batch(number, batch_size, seed, rows) for number in range(first, stop)]

    def list_stages(self, steps: int) -> Sequence[tuple[int, "TrainingData"]]:
        """List what so many steps of training read, in order: how many of them, and data whose batches are all alike.

        A curriculum's batches become longer; the last are the longest.
        """
        return [(steps, self)]

    @abstractmethod
    def count_steps_per_epoch(self, batch_size: int) -> int:
        """Count the batches after which everything has been trained on at least once."""

    @abstractmethod
    def count_tokens_seen(self, steps: int, batch_size: int) -> int:
        """Count the tokens of the first `steps` training batches."""

    def evaluation_batches(self, split: str, batch_size: int) -> Iterator[Batch]:
        """Yield nothing: a text that is not here is not validated."""
        return iter(())


class Task(TrainingData, ABC):
    """A source of sequences for training and evaluation: `TrainingData`, and all that evaluation needs."""

    name: str  # of the data, for messages
    protocol: EvaluationProtocol
    digest: str | None = None  # SHA-256 of the tokenised text; None: sequences are generated
    tokenizer: Tokenizer | None = None  # None: tokens are symbols of the task

    @property
    def one_stream(self) -> bool:
        """True if a split is evaluated as one stream from beginning to end."""
        return False

    @abstractmethod
    def evaluation_batches(self, split: str, batch_size: int, share: Share = ALL) -> Iterator[Batch]:
        """Yield all of `split` ("validation" or "test") in a fixed order, or one process's share of it."""

    @abstractmethod
    def count_evaluation_steps(self, split: str, batch_size: int, share: Share = ALL) -> int:
        """Count the batches of `evaluation_batches`."""

    @abstractmethod
    def pair_samples(self, split: str, batch_size: int, share: Share = ALL) -> Iterator[Batch]:
        """Yield all of `split`; the second half of each batch's rows are other streams, which are not scored."""

    @abstractmethod
    def compute_metrics(self, split: str, totals: Totals) -> Metrics:
        """Compute metrics named `<split>/<name>` from the totals over a split; `<split>/loss` is nats per target."""

    @abstractmethod
    def make_record(self, split: str) -> PerTarget:
        """Make the array that an evaluation fills in the split's order: nats or, with answers, if each is right."""

    @abstractmethod
    def score(self, split: str, totals: Totals, record: PerTarget, memory_slots: int, segment_length: int) -> Values:
        """Compute the metrics of `eval/*.json`, named `<split>/<name>`, their totals, details and calibration.

        details: sums over parts of the split, for paired intervals and figures. calibration: reference values, such as
        chance. memory_slots: number of vectors of the past that one layer keeps.
        """

    @abstractmethod
    def choose_sample(self, split: str, segment_length: int) -> Sample:
        """Choose the stream of a split on which memories are inspected."""

    @abstractmethod
    def describe_data(self, split: str) -> dict[str, Any]:
        """Describe a split, with its SHA-256, as results hold it."""

    @abstractmethod
    def cut_stream(self, file: Text, segment_length: int) -> Iterator[Batch]:
        """Cut one text of any length into segments. MissingError if it is empty or can't be read."""

    def compute_stream_metrics(self, text: CountedText, totals: Totals) -> Metrics:
        """Compute metrics named `stream/<name>` from the totals over a text that was read as a stream."""
        return self.compute_metrics("stream", totals)

    def use_protocol(self, protocol: str | None) -> "Task":
        """Return this task with another protocol; None: its own. UsageError if it has no such protocol."""
        if protocol not in (None, self.protocol.name):
            raise UsageError(f"--protocol {protocol}: this task has {self.protocol.name} only")
        return self

    def describe_protocol(self) -> dict[str, Any]:
        """Describe the protocol as results hold it."""
        p = self.protocol
        return {"name": p.name, "unit": p.unit, "memory_reset": p.memory_reset, "scored": p.scored}

    def explain_unfit(self, split: str, batch_size: int | None = None, knock_out: KnockOut | None = None) -> str | None:
        """Explain why a split can't be evaluated this way; None if it can. batch_size: None if the user gave none."""
        return None


class TaskConfig(Strict, ABC):
    """The settings of a task, which an experiment chooses by `kind`. has_text: a model can continue its text."""

    has_text: ClassVar[bool] = False

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """The size of the vocabulary; an upper bound if the tokeniser is learnt."""

    @abstractmethod
    def open(self, data: Path, segment_length: int, learnt_from: Source | None = None, *, make: bool = True) -> Task:
        """Open the task for a model that reads `segment_length` tokens at a time. data: the folder of corpora.

        learnt_from: another text that the tokeniser is learnt from as well. make: tokenise a text if it isn't yet.

        Raises:
            MissingError: A text is not here, or is not tokenised and `make` is False.
        """

    def stand_in(self, segment_length: int, why: str) -> "RandomTokens | None":
        """Make data to measure training's cost on when `open` raises MissingError with `why`; None: not possible."""
        return None

    def find_faults(self, segment_length: int) -> Sequence[tuple[str, str]]:
        """Find settings that do not fit the model's segments, as pairs of a key of the experiment and a message."""
        return ()

    @property
    def texts(self) -> Mapping[str, list[Portion]]:
        """The portions of each corpus that are read, by its name."""
        return {}

    @property
    def vocabulary_files(self) -> str | None:
        """The name of the corpus that holds a published tokeniser's files; None if the task uses none."""
        return None

    def load_tokenizer(self, folder: Path) -> Tokenizer | None:
        """Load the tokeniser that a run keeps, if it has one. MissingError if it is missing or damaged."""
        return None


class RandomTokens(TrainingData):
    """Tokens to measure the cost of training on. why: message on the missing text. tokens: its length, if known."""

    continues, tokens_per_epoch = True, None

    def __init__(self, vocab_size: int, segment_length: int, why: str, tokens: float | None = None) -> None:
        self.vocab_size, self.segment_length, self.why, self.tokens = vocab_size, segment_length, why, tokens

    def training_batch(self, step: int, batch_size: int, seed: int, rows: range | None = None) -> Batch:
        """Draw tokens in the proportions of a text: the n-th most frequent 1/n times as often as the first (Zipf)."""
        own = range(batch_size) if rows is None else rows
        random = [np.random.Generator(np.random.Philox(key=[step, row])).random(self.segment_length + 1) for row in own]
        tokens = torch.from_numpy(np.exp(np.stack(random) * np.log(self.vocab_size)).astype(np.int64) - 1)
        return Batch(tokens[:, :-1], tokens[:, 1:], torch.tensor(own), torch.full((len(own),), step == 0))

    def count_steps_per_epoch(self, batch_size: int) -> int:
        """Estimate the steps that read the text once. MissingError if its length is not known."""
        if self.tokens is None:
            raise MissingError(f"how long an epoch takes is known once the text is here: {self.why}")
        return -int(-self.tokens // (batch_size * self.segment_length))

    def count_tokens_seen(self, steps: int, batch_size: int) -> int:
        """Count the tokens of the first `steps` batches, in which every segment is full."""
        return steps * batch_size * self.segment_length

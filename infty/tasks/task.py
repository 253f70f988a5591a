"""The contract of a task: all that training, evaluation and results ask of it (section 4).

A new task is a file in this package with a `TaskConfig` and a `Task`, and a line of the union in `infty/experiment.py`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from jaxtyping import Bool, Float32
from numpy import ndarray
from pydantic import BaseModel, ConfigDict

from infty.base.batch import ALL, Batch, Share, Totals
from infty.base.errors import UsageError
from infty.corpora.text_pieces import CountedText, Text
from infty.corpora.tokenizers import Tokenizer
from infty.corpora.tokens import Portion
from infty.tasks.protocols import EvaluationProtocol, KnockOut
from infty.tasks.stand_in import RandomTokens

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class PerTarget:
    """Arrays that an evaluation fills for each target of a split, in the split's order; None: not asked for.

    losses: nats. right: True if the target was the most likely token.
    """

    losses: Float32[ndarray, " targets"] | None = None
    right: Bool[ndarray, " targets"] | None = None


@dataclass(frozen=True)
class Score:
    """The outcome of an evaluation, as `eval/*.json` holds it.

    Args:
        metrics: values named `<split>/<name>`.
        totals: the sums that metrics are computed from.
        details: sums over parts of the split, for paired intervals and figures.
        calibration: reference values for the metrics, such as chance.
    """

    metrics: dict[str, float]
    totals: dict[str, Any]
    details: dict[str, Any]
    calibration: dict[str, float]


@dataclass(frozen=True)
class Sample:
    """A stream of a split on which memories are inspected. about: its description in `eval/*-memory.json`."""

    about: dict[str, Any]
    batch: Batch


class TrainingData(Protocol):
    """A source of training batches, each a pure function of the arguments: there is no position to save.

    continues: a batch continues where the previous one ended, so memory is carried from step to step.
    """

    vocab_size: int
    continues: bool

    @abstractmethod
    def training_batch(self, step: int, batch_size: int, seed: int, rows: range | None = None) -> Batch:
        """Make the batch of optimiser step `step` (from 0) in a run with this seed. rows: those to make; None: all."""

    @abstractmethod
    def count_steps_per_epoch(self, batch_size: int) -> int:
        """Count the steps after which everything has been trained on at least once."""

    @abstractmethod
    def count_tokens_seen(self, steps: int, batch_size: int) -> int:
        """Count the tokens of the first `steps` training batches."""

    @abstractmethod
    def count_tokens_per_epoch(self) -> int | None:
        """Count the tokens of one pass over the training data; None if they are not known."""


class Task(TrainingData, ABC):
    """A source of sequences for training and evaluation: `TrainingData`, and all that evaluation needs.

    Args:
        has_answers: a target is right or wrong, so that accuracy is meaningful.
        name: the data's, for messages.
        digest: SHA-256 of the tokenised text; None if sequences are generated.
        tokenizer: None if tokens are the task's own symbols.
    """

    has_answers: bool
    name: str
    protocol: EvaluationProtocol
    digest: str | None = None
    tokenizer: Tokenizer | None = None

    @abstractmethod
    def evaluation_batches(self, split: str, batch_size: int, share: Share = ALL) -> Iterator[Batch]:
        """Yield all of `split` ("validation" or "test") in a fixed order, or one process's share of it."""

    @abstractmethod
    def count_evaluation_steps(self, split: str, batch_size: int, share: Share = ALL) -> int:
        """Count the batches of `evaluation_batches`."""

    @abstractmethod
    def pair_samples(self, split: str, batch_size: int, share: Share = ALL) -> Iterator[Batch]:
        """Yield all of `split`; the second half of each batch's rows are other streams, of which nothing is scored."""

    @abstractmethod
    def compute_metrics(self, split: str, totals: Totals) -> dict[str, float]:
        """Compute metrics named `<split>/<name>` from the totals over a split; `<split>/loss` is nats per target."""

    @abstractmethod
    def make_record(self, split: str) -> PerTarget:
        """Make the arrays that an evaluation of `split` fills for each target."""

    @abstractmethod
    def score(self, split: str, totals: Totals, record: PerTarget, memory_slots: int, segment_length: int) -> Score:
        """Compute the score of an evaluation. memory_slots: number of vectors of the past that one layer keeps."""

    @abstractmethod
    def choose_sample(self, split: str, segment_length: int) -> Sample:
        """Choose the stream of a split on which memories are inspected."""

    @abstractmethod
    def describe_data(self, split: str) -> dict[str, Any]:
        """Describe a split, with its SHA-256, as results hold it."""

    @abstractmethod
    def cut_stream(self, file: Text, segment_length: int) -> Iterator[Batch]:
        """Cut one text of any length into segments. MissingError if it is empty or can't be read."""

    @abstractmethod
    def compute_stream_metrics(self, text: CountedText, totals: Totals) -> dict[str, float]:
        """Compute metrics named `stream/<name>` from the totals over a text that was read as a stream."""

    def use_protocol(self, protocol: str | None) -> "Task":
        """Return this task with another protocol; None: its own. UsageError if it has no such protocol."""
        if protocol not in (None, self.protocol.name):
            raise UsageError(f"--protocol {protocol}: this task has {self.protocol.name} only")
        return self

    def describe_protocol(self) -> dict[str, Any]:
        """Describe the protocol as results hold it."""
        return self.protocol.describe()

    def explain_unfit_split(self, split: str) -> str | None:
        """Explain why the protocol is not for such a split; None if it is."""
        return None

    def explain_unfit_request(self, split: str, batch_size: int | None, knock_out: KnockOut | None) -> str | None:
        """Explain why a split can't be evaluated so; None if it can. batch_size: None if the user gave none."""
        return self.explain_unfit_split(split)

    def explain_unfit_check(self) -> str | None:
        """Explain why evaluations with several batch sizes would be the same one; None if they would not."""
        return None


class TaskConfig(BaseModel, ABC):
    """The settings of a task, and what can be known before any data is opened.

    Every configuration has a `kind`, by which an experiment chooses it. has_text: a model can continue a text of it.
    """

    has_text: ClassVar[bool] = False
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """The size of the vocabulary; an upper bound if the tokeniser is learnt."""

    @abstractmethod
    def open(
        self, data: Path, segment_length: int, learnt_from: tuple[str, Portion] | None = None, *, make: bool = True
    ) -> Task:
        """Open the task for a model that reads `segment_length` tokens at a time. data: the folder of corpora.

        learnt_from: another text that the tokeniser is learnt from as well. make: tokenise a text that is not
        tokenised yet. MissingError if a text is not here, or is not tokenised and `make` is False.
        """

    def stand_in(self, segment_length: int, why: str) -> RandomTokens | None:
        """Make what the cost of training is measured on if `open` raises MissingError; None if that can't be made up.

        why: the error's message.
        """
        del segment_length, why
        return None

    def find_faults(self, segment_length: int) -> Sequence[tuple[str, str]]:
        """Find settings that do not fit the model's segments, as pairs of a key of the experiment and a message."""
        return ()

    @property
    def texts(self) -> Mapping[str, list[Portion]]:
        """The portions that are read of each corpus, by its name."""
        return {}

    @property
    def vocabulary_files(self) -> str | None:
        """The name of the corpus that holds a published tokeniser's files; None if the task uses none."""
        return None

    @abstractmethod
    def load_vocabulary(self, folder: Path) -> tuple[Tokenizer | None, int]:
        """Load the tokeniser that a run keeps in `folder`, and the size of the vocabulary.

        MissingError if it is missing or damaged.
        """

"""The contract of a task: all that training, evaluation and results ask of it.

A new task is a file in this package, which holds a `TaskConfig` and a `Task`, and a line of the union in
`infty/experiment.py`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from jaxtyping import Bool, Float32
from numpy import ndarray
from pydantic import BaseModel, ConfigDict

from infty.base.batch import ALL, Batch, Share, Totals
from infty.base.errors import UsageError
from infty.corpora.text_pieces import CountedText, Text
from infty.corpora.tokenizers import Tokenizer
from infty.corpora.tokens import Portion
from infty.tasks.protocols import EvaluationProtocol, KnockOut

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class PerTarget:
    """What an evaluation notes of each target of a split, in the split's order; None: it is not asked for.

    losses: nats. right: whether the target was the most likely token.
    """

    losses: Float32[ndarray, " targets"] | None = None
    right: Bool[ndarray, " targets"] | None = None


@dataclass(frozen=True)
class Score:
    """What an evaluation found, as `eval/*.json` holds it.

    metrics: named `<split>/<name>`. totals: the sums that they are made of. calibration: what metrics mean, as chance.
    details: sums over parts of the split, for paired intervals and figures.
    """

    metrics: dict[str, float]
    totals: dict[str, Any]
    details: dict[str, Any]
    calibration: dict[str, float]


@dataclass(frozen=True)
class Sample:
    """One stream of a split, whose memories are looked into. about: which one, as `eval/*-memory.json` holds it."""

    about: dict[str, Any]
    batch: Batch


class TrainingData(Protocol):
    """What is trained on. Every batch is a pure function of the arguments, so no position is ever lost.

    continues: whether a batch goes on where the one before ended, so that memory is carried from step to step.
    """

    vocab_size: int
    continues: bool

    def training_batch(self, step: int, batch_size: int, seed: int, rows: range | None = None) -> Batch:
        """Make the batch of optimiser step `step` (from 0) in a run with this seed. rows: which of it; None: all."""
        ...

    def steps_an_epoch(self, batch_size: int) -> int:
        """Count the steps in which everything has been trained on at least once."""
        ...

    def tokens_seen(self, steps: int, batch_size: int) -> int:
        """Count the tokens of the first `steps` training batches."""
        ...


class Task(ABC):
    """A source of sequences to train on and to be tested with: `TrainingData`, and what evaluation asks.

    has_answers: whether a target is right or wrong, so that accuracy means something. protocol: how it is evaluated.
    digest: SHA-256 of the text in tokens; None if sequences are made up. tokenizer: None if tokens are symbols of the
    task's own. name: of what is read, for messages.
    """

    continues: bool
    has_answers: bool
    vocab_size: int
    name: str
    protocol: EvaluationProtocol
    digest: str | None = None
    tokenizer: Tokenizer | None = None

    @abstractmethod
    def training_batch(self, step: int, batch_size: int, seed: int, rows: range | None = None) -> Batch:
        """Make the batch of optimiser step `step` (from 0) in a run with this seed. rows: which of it; None: all."""

    @abstractmethod
    def steps_an_epoch(self, batch_size: int) -> int:
        """Count the steps in which everything has been trained on at least once."""

    @abstractmethod
    def tokens_seen(self, steps: int, batch_size: int) -> int:
        """Count the tokens of the first `steps` training batches."""

    @abstractmethod
    def tokens_an_epoch(self) -> int:
        """Count the tokens of one pass over the training data."""

    @abstractmethod
    def evaluation_batches(self, split: str, batch_size: int, share: Share = ALL) -> Iterator[Batch]:
        """Hand out all of `split` ("validation" or "test") in a fixed order, or one process's share of it."""

    @abstractmethod
    def evaluation_steps(self, split: str, batch_size: int, share: Share = ALL) -> int:
        """Count the batches of `evaluation_batches`."""

    @abstractmethod
    def pairs(self, split: str, batch_size: int, share: Share = ALL) -> Iterator[Batch]:
        """Hand out all of `split` with, in the second half of the rows, another stream that nothing of is scored."""

    @abstractmethod
    def metrics(self, split: str, totals: Totals) -> dict[str, float]:
        """Divide the totals over a split, named `<split>/<name>`; `<split>/loss` is nats per target."""

    @abstractmethod
    def new_record(self, split: str) -> PerTarget:
        """Make room for what an evaluation of `split` notes of each target."""

    @abstractmethod
    def score(self, split: str, totals: Totals, record: PerTarget, memory_slots: int, segment_length: int) -> Score:
        """Make the score of an evaluation. memory_slots: vectors that one layer keeps of the past."""

    @abstractmethod
    def sample(self, split: str, segment_length: int) -> Sample:
        """Choose the stream of a split whose memories are looked into."""

    @abstractmethod
    def data(self, split: str) -> dict[str, Any]:
        """Describe a split, with its sum, as results hold it."""

    @abstractmethod
    def stream(self, file: Text, segment_length: int) -> Iterator[Batch]:
        """Cut one text of any length into segments. MissingError if it is empty or can't be read."""

    @abstractmethod
    def stream_metrics(self, text: CountedText, totals: Totals) -> dict[str, float]:
        """Divide the totals over a text that was read as a stream, named `stream/<name>`."""

    def under(self, protocol: str | None) -> "Task":
        """Return this task under another protocol; None: its own. UsageError if it has no such protocol."""
        if protocol not in (None, self.protocol.name):
            raise UsageError(f"--protocol {protocol}: this task has {self.protocol.name} only")
        return self

    def describe_protocol(self) -> dict[str, Any]:
        """Describe the protocol as results hold it."""
        return self.protocol.describe()

    def explain_unfit_split(self, split: str) -> str | None:
        """Say why the protocol is not for such a split; None if it is."""
        del split
        return None

    def explain_unfit_request(self, split: str, batch_size: int | None, knock_out: KnockOut | None) -> str | None:
        """Say why a split can't be evaluated so; None if it can. batch_size: None if nothing was asked."""
        del batch_size, knock_out
        return self.explain_unfit_split(split)

    def explain_unfit_check(self) -> str | None:
        """Say why evaluating with several batch sizes would compare nothing; None if it compares something."""
        return None


class TaskConfig(BaseModel, ABC):
    """The settings of a task, and what is asked of them before anything is opened.

    Every configuration has a `kind`, by which an experiment chooses it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """Count the tokens that there are; of a tokeniser that is learnt, at most."""

    @abstractmethod
    def open(
        self,
        data: Path,
        segment_length: int,
        learnt_from: tuple[str, Portion] | None = None,
        *,
        make: bool = True,
    ) -> Task:
        """Open the task for a model that reads `segment_length` tokens at a time. data: the folder of corpora.

        learnt_from: a text that the tokeniser is learnt from as well. make: tokenise a text that is not tokenised yet.
        MissingError if a text is not here, or is not tokenised and not to be.
        """

    def find_faults(self, segment_length: int) -> Sequence[tuple[str, str]]:
        """Find what does not go together with the model's segments: keys of the experiment, and messages."""
        del segment_length
        return ()

    @property
    def texts(self) -> Mapping[str, list[Portion]]:
        """The corpora that are read, by name, and the portions of each."""
        return {}

    @property
    def vocabulary_files(self) -> str | None:
        """Name the corpus that holds the files of a published tokeniser; None if there is none."""
        return None

    @abstractmethod
    def load_vocabulary(self, folder: Path) -> tuple[Tokenizer | None, int]:
        """Load the tokeniser that a run keeps in `folder`, and the size of the vocabulary.

        MissingError if it is missing or damaged.
        """

    @property
    def has_text(self) -> bool:
        """Tell whether tokens are of a text, which a model can continue."""
        return False

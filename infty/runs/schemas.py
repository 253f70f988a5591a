"""The records of a run, which training and evaluation build, its JSON files hold, and reports read.

The keys of a record's file come in the order of its bases, from the last to the first, and then its own.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from infty.base.files import omit_default
from infty.runs.parts import Calibrated, Data, Details, Protocol, SplitTotals, TextData, TrainingData, tag_of
from infty.runs.record import TEXT, Amount, Count, Experiment, Name, Nats, Positive, Record, Share, Text


class Place(Record):
    """The cell that a run is of: `cell` of config.yaml. An experiment is named like its file."""

    experiment: Experiment
    scale: Name
    model: Name
    case: Name
    seed: int = Field(ge=0, le=2**31 - 1)


class Task(Record):
    """`task` of config.yaml. length: of the sequences, if that is a setting; texts do not have it."""

    kind: Text | None = None
    length: Positive | None = None

    @property
    def is_text(self) -> bool:
        """True for language modelling."""
        return self.kind == "corpus"


class _File(Record):
    version: Literal[1] = Field(default=1, validation_alias="schema", serialization_alias="schema")


class _Header(Record):
    protocol: Protocol
    split: Text
    knock_out: Text | None
    step: Count


class _Outcome(Record):
    """The outcome of a test, as a result and an evaluation hold it."""

    metrics: dict[str, Amount | None]  # None: a perplexity that would be no measurement
    totals: SplitTotals
    calibration: Calibrated
    protocol: Protocol
    data: Data

    @property
    def is_text(self) -> bool:
        """True for language modelling; False for sorting."""
        return isinstance(self.data, TextData)

    def metric(self, name: str) -> float:
        """Return a metric that every run of its task has as a figure, such as `test/loss`."""
        value = self.metrics[name]
        assert value is not None, "validated"
        return value

    def find_metric(self, name: str) -> float | None:
        """Return a metric, or None without a figure, as `test/regression_error` is for a row without a memory."""
        return self.metrics.get(name)

    @model_validator(mode="after")
    def _of_one_task(self) -> Self:
        """Raise ValueError if parts are of different tasks, or a metric that all of the task have is missing."""
        t, split = self.totals, getattr(self, "split", "test")
        parts = [getattr(self, name, self.data) for name in ("data", "training_data", "details")]
        signs = (self.calibration is None, self.protocol.words is not None, t.words is not None, t.bytes is not None)
        if {*signs, *(tag_of(part) == TEXT for part in parts)} != {self.is_text}:
            raise ValueError("wanted all of it of one task")
        names = ("loss", "token_perplexity", "word_perplexity", "bits_per_byte")
        wanted = [f"{split}/{name}" for name in (names if self.is_text else ("loss", "accuracy"))]
        if absent := [name for name in wanted if name not in self.metrics]:
            raise ValueError(f"metrics: lacks {', '.join(absent)}")
        if lacking := [name for name, value in self.metrics.items() if value is None and "perplexity" not in name]:
            raise ValueError(f"metrics: no figure for {', '.join(lacking)}")
        if (self.metrics.get(f"{split}/accuracy") or 0) > 1:
            raise ValueError(f"metrics: wanted {split}/accuracy from 0 to 1")
        return self


class StartingWeights(Record):
    """The GPT-2 that a run was fine-tuned from."""

    origin: Text
    sha256: Text


FLOPS_COUNTED_BY = "products-v1"  # each product as it is made, attention's as the plain equation has it


class Result(_Outcome, Place, _File):
    """`result.json` of a finished run: its test, and the cost of training."""

    training_data: TrainingData
    starting_weights: StartingWeights | None = omit_default(None)
    best_step: Count
    best_validation_loss: Nats | None
    parameters: Count
    memory_slots: Count
    state_bytes: Count | None = omit_default(None)
    tokens_seen: Count
    wall_seconds: Amount
    tokens_per_second: Count
    training_flops: Annotated[int, Field(ge=0, le=10**30)] | None
    flops_counted_by: Text | None = omit_default(None)
    peak_memory_bytes: Count
    commit: Text | None
    dirty: bool | None
    command: Text

    @property
    def comparable_flops(self) -> int | None:
        """Return the FLOPs if they were counted as they are now: before, some of attention's were missing."""
        return self.training_flops if self.flops_counted_by == FLOPS_COUNTED_BY else None


class Evaluation(_Outcome, _Header, _File):
    """A file in `eval/`: the best checkpoint on a split, or without its memory."""

    details: Details


# Six significant digits, so that files stay small.
_Six = BeforeValidator(lambda value: float(f"{value:.6g}") if isinstance(value, float) else value)
_ShortShare = Annotated[Share, _Six]
_ShortAmount = Annotated[Amount, _Six]
_Bars = Annotated[list[_ShortShare], Field(min_length=1, max_length=10_000)]


class Stream(Record):
    """A split's sequence or document number `index`, as far as a memory read it."""

    kind: Literal["sequence", "document"]
    index: Count
    segments: Positive
    tokens: Positive


class Reconstruction(Record):
    """Share of each past segment that is left after `updates` updates, oldest first, in each layer."""

    updates: Annotated[int, Field(gt=0, le=64)]
    layers: list[list[Annotated[float, _Six, Field(ge=-1e305, le=1)]]]


class Reach(Record):
    """The reach of each layer's memory (see `evaluation.memory_trace`), and the gradient elsewhere."""

    share: list[_ShortAmount]
    gate: list[_ShortAmount | None]
    where: list[_ShortAmount]
    what: list[_ShortAmount]
    rest: _ShortAmount


class Gaze(Record):
    """The places at which a layer's memory is looked at (see `evaluation.memory_trace`)."""

    center: _ShortShare
    apart: _ShortAmount
    width: _ShortAmount
    there: _ShortAmount


class Phrase(Record):
    """Consecutive tokens from `token` on: their share of the memory, and of the attention to it."""

    text: Text = Field(max_length=3000)
    token: Count
    room: _ShortShare
    attention: _ShortShare


class MemoryTrace(_File):
    """`<protocol>-test-memory.json` in `eval/`: a row's memories over one stream, to six digits; an entry per layer."""

    step: Count
    protocol: Name
    stream: Stream
    density: list[list[_Bars]] = Field(min_length=1, max_length=1000)  # by head and bin
    histogram: list[_Bars]  # by bin
    reconstruction: list[Reconstruction] = Field(min_length=1, max_length=4)
    regression_error: list[_ShortAmount]
    regression_error_mean: _ShortAmount
    reach: Reach
    gaze: list[Gaze]
    room: list[Phrase] | None = Field(max_length=100)  # of a text; None for sequences

    @model_validator(mode="after")
    def _rectangular(self) -> Self:
        kept, reach = [found.layers for found in self.reconstruction], self.reach
        lists = (self.histogram, self.regression_error, reach.share, reach.gate, reach.where, reach.what, self.gaze)
        if {len(self.density)} != set(map(len, (*lists, *kept))):
            raise ValueError("wanted as many layers in all lists")
        heads, bins = set(map(len, self.density)), {len(head) for layer in self.density for head in layer}
        if not len(heads) == len(bins) == len(set(map(len, self.histogram))) == 1:
            raise ValueError("wanted as many heads in each layer, and as many bins in each of them")
        if any(len(layer) != found.updates for found in self.reconstruction for layer in found.layers):
            raise ValueError("wanted a value for each segment that was taken in")
        return self


class Environment(Record):
    """`environment.json`, as far as reports read it."""

    versions: dict[Text, Text] = Field(default={})
    system: Text = ""
    device: Text = ""
    threads: Count | None = None


class Validation(Record):
    """A line of `metrics.jsonl` that tells of a validation. accuracy: None for a text."""

    step: Count
    loss: Nats = Field(validation_alias="validation/loss")
    accuracy: Share | None = Field(default=None, validation_alias="validation/accuracy")


class Trial(Record):
    """A row at a point of its grid. validation_loss: None if its training failed, for the reason `why`."""

    model: Name
    settings: dict[Text, Any]
    command: Text
    validation_loss: Nats | None
    why: str | None = omit_default(None)
    best_step: Count | None = omit_default(None)
    tokens_seen: Count | None = omit_default(None)
    wall_seconds: Amount | None = omit_default(None)


class Tuning(_File):
    """`tuning-<column>.json` beside the runs of a table. chosen: the settings of each row's lowest loss."""

    experiment: Experiment
    scale: Name
    case: Name
    steps: Positive
    grid: dict[Text, list[Any]]
    seed: Count
    chosen: dict[Name, dict[Text, Any] | None]
    trials: list[Trial] = Field(max_length=10_000)
    commit: Text | None
    dirty: bool | None
    command: Text

"""What the JSON files of a run hold, as far as anything reads them: checked once, so that nobody else has to."""

import json
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from infty.base.errors import MissingError
from infty.base.messages import one_line

Count = Annotated[int, Field(ge=0, le=2**53)]
Positive = Annotated[int, Field(gt=0, le=2**53)]
Share = Annotated[float, Field(ge=0, le=1)]
Nats = Annotated[float, Field(ge=0, le=1e15)]
Amount = Annotated[float, Field(ge=0, le=1e305)]  # a perplexity is e^700 at most; sums over runs stay finite
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,99}$")]  # may be part of a file's name
Experiment = Annotated[str, Field(pattern=r"^[^/\\\p{C}\p{Zl}\p{Zp}]{1,100}$")]
Text = Annotated[str, Field(pattern=r"^[^\p{Cc}\p{Zl}\p{Zp}]*$")]  # a line of a table
Record = TypeVar("Record", bound="_Record")


class _Record(BaseModel):
    """Keys that nobody reads may be there and may hold anything."""

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)


class Place(_Record):
    """The cell that a run is of: `cell` of config.yaml. An experiment is named like its file."""

    experiment: Experiment
    scale: Name
    model: Name
    case: Name
    seed: int = Field(ge=0, le=2**31 - 1)


class Task(_Record):
    """`task` of config.yaml. length: of the sequences, which texts do not have."""

    kind: Text = "sort"
    length: Positive | None = None


class _Protocol(_Record):
    name: Name


class _Data(_Record):
    name: Text
    sha256: Text


class _Trained(_Record):
    title: Text = ""


class _Start(_Record):
    sha256: Text


class _Result(_Record):
    metrics: dict[str, Amount]
    training_data: _Trained = _Trained()
    starting_weights: _Start | None = None
    best_step: Count | None
    parameters: Count
    memory_slots: Count
    tokens_seen: Count
    wall_seconds: Amount
    training_flops: Amount | None = None
    commit: Text | None
    dirty: bool | None
    command: Text | None


class _Calibration(_Record):
    chance: Share
    oracle: Share
    oracle_window: Count


class SortResult(_Result):
    """`result.json` of the sorting task."""

    calibration: _Calibration
    protocol: _Protocol
    data: _Data

    @field_validator("metrics")
    @classmethod
    def _all_there(cls, metrics: dict[str, float]) -> dict[str, float]:
        if metrics.get("test/accuracy", 2) > 1 or "test/loss" not in metrics:
            raise ValueError("wanted test/loss, and a test/accuracy from 0 to 1")
        return metrics


class _Reset(_Record):
    tokens: Count
    documents: bool = False


class _TextProtocol(_Protocol):
    scored: Text
    words: Text
    memory_reset: Text | _Reset


class _Tokenizer(_Record):
    kind: Text
    vocab_size: Count


class _TextData(_Data):
    title: Text
    split: Text
    documents: Count
    tokens_sha256: Text
    tokenizer: _Tokenizer


class _Totals(_Record):
    nats: Nats
    scored: Count
    words: Count
    bytes: Count
    aside: Count = 0


class TextResult(_Result):
    """`result.json` of a text."""

    calibration: dict[str, Any] = Field(max_length=0)
    protocol: _TextProtocol
    data: _TextData
    totals: _Totals

    @field_validator("metrics")
    @classmethod
    def _all_there(cls, metrics: dict[str, float]) -> dict[str, float]:
        wanted = [f"test/{name}" for name in ("loss", "token_perplexity", "word_perplexity", "bits_per_byte")]
        if absent := [name for name in wanted if name not in metrics]:
            raise ValueError(f"lacks {', '.join(absent)}")
        return metrics


class _Sums(_Record):
    """Nats and tokens of as many bins or chunks."""

    nats: list[Nats] = []
    tokens: list[Count] = []

    @model_validator(mode="after")
    def _as_many(self) -> "_Sums":
        if len({len(values) for values in vars(self).values() if isinstance(values, list)}) > 1:
            raise ValueError("wanted lists of one length")
        return self


class _Bins(_Sums):
    lower: list[Positive] = Field(default=[], alias="from")


class _Sum(_Record):
    nats: Nats
    tokens: Count


class _Distances(_Bins):
    new_word: _Sum | None = None


class _Chunks(_Sums):
    tokens: list[Positive] = []


class _Far(_Record):
    more_than: Count
    tokens: Count


class _Answers(_Record):
    symbols: Positive = 1
    right: list[Count] = []

    @model_validator(mode="after")
    def _not_more(self) -> "_Answers":
        if max(self.right, default=0) > self.symbols:
            raise ValueError("wanted at most as many right choices as there are symbols")
        return self


class Details(_Record):
    """What an evaluation says of each sequence's answer, or of a text by position, distance and chunk."""

    by_position: _Bins = _Bins()
    by_distance: _Distances = _Distances()
    far: _Far | None = None
    chunks: _Chunks = _Chunks()
    answers: _Answers = _Answers()


class Evaluation(_Record):
    """A file in `eval/`, as far as reports read it."""

    metrics: dict[str, Amount] = {}
    step: Count | None = None
    data: _Data | None = None
    details: Details | None = None


class Environment(_Record):
    """`environment.json`, as far as reports read it."""

    versions: dict[Text, Text] = {}
    system: Text = ""
    device: Text = ""
    threads: Count | None = None


_Bars = Annotated[list[Share], Field(min_length=1, max_length=10_000)]


class _Stream(_Record):
    kind: Literal["sequence", "document"]
    index: Count
    segments: Positive
    tokens: Positive


class _Kept(_Record):
    updates: Annotated[int, Field(gt=0, le=64)]
    layers: list[list[Annotated[float, Field(ge=-1e305, le=1)]]]


class _Phrase(_Record):
    text: Text = Field(max_length=3000)
    token: Count
    room: Share
    attention: Share


class _Reach(_Record):
    share: list[Amount]
    gate: list[Amount | None]
    where: list[Amount]
    what: list[Amount]
    rest: Amount


class _Gaze(_Record):
    center: Share
    apart: Amount
    width: Amount
    there: Amount


class Memory(_Record):
    """`<protocol>-test-memory.json` in `eval/`: what the memories of a row did with one stream (see `inspection`).

    Lists have an entry a layer. density: by head and bin. histogram: by bin. reconstruction: what is left of each past
    segment, oldest first, after so many updates. reach: see `reach`. gaze: see `inspection.Trace`. room: phrases of a
    text; None for sequences.
    """

    protocol: Name
    step: Count
    stream: _Stream
    density: list[list[_Bars]] = Field(min_length=1, max_length=1000)
    histogram: list[_Bars]
    reconstruction: list[_Kept] = Field(min_length=1, max_length=4)
    regression_error: list[Amount]
    regression_error_mean: Amount
    reach: _Reach | None = None
    gaze: list[_Gaze] | None = None
    room: list[_Phrase] | None = Field(max_length=100)

    @model_validator(mode="after")
    def _rectangular(self) -> "Memory":
        kept = [found.layers for found in self.reconstruction]
        reach = (self.reach.share, self.reach.gate, self.reach.where, self.reach.what) if self.reach else ()
        lists = (self.histogram, self.regression_error, *kept, *reach, *([self.gaze] if self.gaze is not None else []))
        if {len(self.density)} != set(map(len, lists)):
            raise ValueError("wanted as many layers in all lists")
        heads, bins = set(map(len, self.density)), {len(head) for layer in self.density for head in layer}
        if not len(heads) == len(bins) == len(set(map(len, self.histogram))) == 1:
            raise ValueError("wanted as many heads in each layer, and as many bins in each of them")
        if any(len(layer) != found.updates for found in self.reconstruction for layer in found.layers):
            raise ValueError("wanted a value for each segment that was taken in")
        return self


class _Trial(_Record):
    model: Name
    settings: dict[Text, Any]
    validation_loss: Nats | None


class Tuning(_Record):
    """`tuning-<column>.json` beside the runs of a table."""

    experiment: Experiment
    scale: Name
    case: Name
    steps: Positive
    seed: Count
    trials: list[_Trial] = Field(max_length=10_000)
    commit: Text | None
    command: Text


def checked(kind: type[Record], values: Any, file: Any, mend: str = "train again with --fresh") -> Record:
    """What `file` holds. MissingError, with a line on the first thing that is wrong, where it is not of this kind."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        fault = error.errors()[0]
        what = {"missing": "is missing", "model_type": "wanted a mapping"}.get(fault["type"], fault["msg"])
        line = ": ".join([".".join(map(str, fault["loc"])), what.replace("Input should be", "must be")])
        raise MissingError(f"{file}: {one_line(line.removeprefix(': '))}; {mend}") from None


def checked_result(values: dict[str, Any], file: Any) -> SortResult | TextResult:
    """`result.json`: of the sorting task, where accuracy is calibrated, or of a text. MissingError as above."""
    try:
        json.dumps(values, allow_nan=False)
    except ValueError:
        raise MissingError(f"{file} holds a number that is none; train again with --fresh") from None
    return checked(SortResult if values.get("calibration") else TextResult, values, file)

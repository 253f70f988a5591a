"""What the JSON files of a run hold, as far as anything reads them: checked once, so that nobody else has to."""

import json
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from infty.errors import MissingError, one_line

Count = Annotated[int, Field(ge=0, le=2**53)]
Positive = Annotated[int, Field(gt=0, le=2**53)]
Share = Annotated[float, Field(ge=0, le=1)]
Nats = Annotated[float, Field(ge=0, le=1e15)]
Amount = Annotated[float, Field(ge=0, le=1e305)]  # a perplexity is e^700 at most; sums over runs stay finite
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,99}$")]  # may be part of a file's name
Text = Annotated[str, Field(pattern=r"^[^\p{Cc}\p{Zl}\p{Zp}]*$")]  # a line of a table
Record = TypeVar("Record", bound="_Record")


class _Record(BaseModel):
    """Keys that nobody reads may be there and may hold anything."""

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)


class Place(_Record):
    """The cell that a run is of: `cell` of config.yaml. An experiment is named like its file."""

    experiment: str = Field(pattern=r"^[^/\\\p{C}\p{Zl}\p{Zp}]{1,100}$")
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


class _Start(_Record):
    sha256: Text


class _Result(_Record):
    metrics: dict[str, Amount]
    starting_weights: _Start | None = None
    best_step: Count | None
    parameters: Count
    memory_slots: Count
    tokens_seen: Count
    wall_seconds: Amount
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
        if len({len(values) for values in vars(self).values()}) > 1:
            raise ValueError("wanted lists of one length")
        return self


class _Bins(_Sums):
    lower: list[Positive] = Field(default=[], alias="from")


class _Chunks(_Sums):
    tokens: list[Positive] = []


class _Far(_Record):
    more_than: Count
    tokens: Count


class Details(_Record):
    """What an evaluation of a text says of distances, far-seen words and chunks."""

    by_distance: _Bins = _Bins()
    far: _Far | None = None
    chunks: _Chunks = _Chunks()


class Evaluation(_Record):
    """A file in `eval/`, as far as reports read it."""

    details: Details | None = None


def checked(kind: type[Record], values: Any, file: Any) -> Record:
    """What `file` holds. MissingError, with a line on the first thing that is wrong, where it is not of this kind."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        fault = error.errors()[0]
        what = {"missing": "is missing", "model_type": "wanted a mapping"}.get(fault["type"], fault["msg"])
        line = ": ".join([".".join(map(str, fault["loc"])), what.replace("Input should be", "must be")])
        raise MissingError(f"{file}: {one_line(line.removeprefix(': '))}; train again with --fresh") from None


def checked_result(values: dict[str, Any], file: Any) -> SortResult | TextResult:
    """`result.json`: of the sorting task, where accuracy is calibrated, or of a text. MissingError as above."""
    try:
        json.dumps(values, allow_nan=False)
    except ValueError:
        raise MissingError(f"{file} holds a number that is none; train again with --fresh") from None
    return checked(SortResult if values.get("calibration") else TextResult, values, file)

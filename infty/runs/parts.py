"""Parts of results and evaluations: totals, calibration, protocol, data and details, of sorting or of a text."""

from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, WrapSerializer, model_validator

from infty.base.files import omit_default
from infty.runs.record import SORTING, TEXT, Count, Name, Nats, Positive, Record, Share, Text

TEXT_KEYS = frozenset({"title", "documents", "tokenizer", "by_position", "by_distance", "chunks"})


class SplitTotals(Record):
    """Sums over a split (see `base.batch.Totals`). words, bytes: those of a text; the sorting task has none."""

    nats: Nats
    scored: Count
    correct: Count
    aside: Count
    aside_nats: Nats
    words: Count | None = omit_default(None)
    bytes: Count | None = omit_default(None)


class Calibration(Record):
    """Accuracies to compare others with: of guessing, and of knowing the last `oracle_window` symbols."""

    chance: Share
    oracle_window: Count
    oracle: Share


class Reset(Record):
    """A memory that is emptied every so many tokens; documents: at their ends as well."""

    tokens: Count
    documents: bool

    def __str__(self) -> str:
        return f"every {self.tokens:,} tokens{' and document' * self.documents}"


class Protocol(Record):
    """The tokens that were scored, and the places at which the memory was emptied. words: how they were counted."""

    name: Name
    unit: Text
    memory_reset: Text | Reset
    scored: Text
    words: Text | None = omit_default(None)
    segment_length: Positive
    memory_slots: Count


class SortData(Record):
    """The sequences of a split of the sorting task."""

    name: Text
    sha256: Text

    @property
    def digests(self) -> tuple[str, ...]:
        """The sums of all that figures depend on."""
        return (self.sha256,)


class SortSeeds(Record):
    """The sequences that the sorting task is trained on."""

    name: Text
    sequences: Text


class TokenizerKind(Record):
    """The kind of tokens that a text was cut into."""

    kind: Text
    vocab_size: Count


class TextData(Record):
    """A split of a text. sha256: of the text; tokens_sha256: of the tokens of this part of it."""

    name: Text
    title: Text
    split: Text
    documents: Count
    sha256: Text
    tokens_sha256: Text
    tokenizer: TokenizerKind

    @property
    def digests(self) -> tuple[str, ...]:
        """The sums of all that figures depend on."""
        return self.sha256, self.tokens_sha256


class Answers(Record):
    """Counts of the right ones among the `symbols` of each sequence's answer."""

    right: list[Count]
    symbols: Positive

    @model_validator(mode="after")
    def _not_more(self) -> Self:
        if max(self.right, default=0) > self.symbols:
            raise ValueError("wanted at most as many right choices as there are symbols")
        return self


class Recall(Record):
    """Counts of the right ones among the `pairs` at each distance in segments, by sequence."""

    pairs: Positive
    right: dict[Text, list[Count]]


class AnswerDetails(Record):
    """Parts of a mean over generated sequences."""

    answers: Answers
    recall: Recall | None = omit_default(None)

    def samples(self) -> tuple[list[int], list[float]]:
        """Return how much each sequence counts, and 100 for each right symbol of its answer."""
        right = self.answers.right
        return [self.answers.symbols] * len(right), [100.0 * count for count in right]


class Sum(Record):
    """Nats of some tokens."""

    nats: Nats
    tokens: Count


class Far(Record):
    """Nats of the tokens whose word last occurred more than `more_than` tokens ago."""

    more_than: Count
    nats: Nats
    tokens: Count


class _Columns(Record):
    @model_validator(mode="after")
    def _as_many(self) -> Self:
        if len({len(values) for values in vars(self).values() if isinstance(values, list)}) > 1:
            raise ValueError("wanted lists of one length")
        return self


class Sums(_Columns):
    """Nats and tokens of documents, in order."""

    nats: list[Nats]
    tokens: list[Count]


class Chunks(Sums):
    """Nats and tokens of consecutive pieces of about the same size."""

    tokens: list[Positive]


class Bins(_Columns):
    """Nats and tokens by bin; a bin is from `lower` to below twice that."""

    lower: list[Positive] = Field(validation_alias="from", serialization_alias="from")
    nats: list[Nats]
    tokens: list[Count]


class Distances(Bins):
    """Nats and tokens by distance to a word's last occurrence. new_word: it has none. no_word: tokens outside words."""

    new_word: Sum
    no_word: Sum


class TextDetails(Record):
    """Parts of a mean over a text: by position in the document, distance to a word's last place, and piece."""

    by_position: Bins
    by_distance: Distances
    far: Far
    chunks: Chunks
    documents: Sums

    def samples(self) -> tuple[list[int], list[float]]:
        """Return the tokens of each chunk, and their nats."""
        return self.chunks.tokens, self.chunks.nats


def tag_of(values: Any) -> str:
    """Tell which task a part of a record belongs to."""
    keys = values if isinstance(values, dict) else getattr(type(values), "model_fields", ())
    return TEXT if TEXT_KEYS.intersection(keys) else SORTING


_Text = Annotated[TextData, Tag(TEXT)]
Data = Annotated[Annotated[SortData, Tag(SORTING)] | _Text, Discriminator(tag_of)]
TrainingData = Annotated[Annotated[SortSeeds, Tag(SORTING)] | _Text, Discriminator(tag_of)]
_Parts = Annotated[AnswerDetails, Tag(SORTING)] | Annotated[TextDetails, Tag(TEXT)]
Details = Annotated[_Parts, Discriminator(tag_of)]
Calibrated = Annotated[  # a text has none, which is an empty object in files
    Calibration | None,
    BeforeValidator(lambda values: None if values == {} else values),
    WrapSerializer(lambda found, dump: {} if found is None else dump(found)),
]

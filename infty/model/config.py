"""Sizes of a model: a decoder of ours (section 4), or a GPT-2 (Radford et al. 2019) with memories grafted on."""

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, get_args

import torch
from pydantic import Discriminator, Field, Tag, model_validator

from infty.base.files import Strict, omit_default
from infty.memory.cache import CacheMemoryConfig
from infty.memory.compressive import CompressiveMemoryConfig
from infty.memory.contract import MemoryConfig
from infty.memory.delta import DeltaMemoryConfig
from infty.memory.longterm import LongTermMemoryConfig
from infty.memory.mean import MeanMemoryConfig
from infty.memory.slots import SlotMemoryConfig
from infty.model.softmax import AdaptiveConfig

if TYPE_CHECKING:
    from infty.model.interface import SegmentModel

AnyMemoryConfig = (  # a new memory joins here
    LongTermMemoryConfig
    | CompressiveMemoryConfig
    | MeanMemoryConfig
    | DeltaMemoryConfig
    | SlotMemoryConfig
    | CacheMemoryConfig
)
LongRangeConfig = Annotated[AnyMemoryConfig, Field(discriminator="kind")]
KINDS: dict[str, type[MemoryConfig]] = {kind.model_fields["kind"].default: kind for kind in get_args(AnyMemoryConfig)}
SHARED_SIZES = ("hidden_size", "num_heads", "segment_length")


class _SharedConfig(Strict):
    """Sizes that all models share. A memory takes its hidden size, heads and segment length from here."""

    fine_tunes: ClassVar[bool] = False  # whether memories are grafted on a trained decoder, to fine-tune it

    num_layers: int = Field(gt=0, description="layers")
    num_heads: int = Field(gt=0, description="attention heads H")
    hidden_size: int = Field(gt=0, description="hidden size E")
    initial_std: float = Field(default=0.02, gt=0, description="standard deviation of all initial matrices")
    segment_length: int = Field(gt=0, description="tokens in a segment L")
    long_range: LongRangeConfig | None = Field(default=None, description="the memory beyond attention; null: none")

    @model_validator(mode="before")
    @classmethod
    def _share_sizes(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(values.get("long_range"), dict):
            return values
        fields = getattr(KINDS.get(str(values["long_range"].get("kind"))), "model_fields", {})
        shared = {name: values[name] for name in SHARED_SIZES if name in fields and name in values}
        return {**values, "long_range": {**shared, **values["long_range"]}}

    @model_validator(mode="after")
    def _memory_fits(self) -> "_SharedConfig":
        if self.hidden_size % self.num_heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}")
        for name in SHARED_SIZES:
            if getattr(self.long_range, name, getattr(self, name)) != getattr(self, name):
                raise ValueError(f"long_range.{name} differs from {name}; leave it out, it is taken from there")
        return self

    def find_faults(self, vocab_size: int) -> list[tuple[str, str]]:
        """Find settings that do not fit the vocabulary, as pairs of a key of the experiment and a message."""
        return []

    @property
    def memory_slots(self) -> int:
        """Count the vectors of the past that a layer keeps, short-term tokens included."""
        return self.long_range.slots if self.long_range else 0

    @property
    def state_bytes(self) -> int:
        """Count the bytes of one stream's state over all layers, in float32: all that it knows of the past."""
        return self.num_layers * self.long_range.state_bytes if self.long_range else 0

    @property
    def auxiliary_weights(self) -> dict[str, float]:
        """Give the weight of each named loss in `Output.auxiliary`."""
        return self.long_range.auxiliary_weights if self.long_range else {}


class DecoderConfig(_SharedConfig):
    """Sizes of a decoder of ours."""

    weights: ClassVar[None] = None  # it is trained from scratch
    kind: Literal["decoder"] = omit_default("decoder", description="a decoder of ours")
    feed_forward_size: int = Field(gt=0, description="inner size of the feed-forward part")
    dropout: float = Field(ge=0, lt=1, description="on embeddings, position encodings, attention and feed-forward")
    attention_dropout: float = Field(default=0.0, ge=0, lt=1, description="on attention weights")
    short_term_length: int = Field(ge=0, description="tokens in the short-term memory (STM)")
    adaptive: AdaptiveConfig | None = Field(
        default=None, description="softmax tied to the embedding, in clusters; null: plain and untied"
    )
    memory_tokens: int | None = omit_default(
        None, gt=0, description="tokens read before and written after each segment (RMT, arXiv 2207.06881); null: none"
    )

    @model_validator(mode="after")
    def _sizes_fit(self) -> "DecoderConfig":
        if self.memory_tokens and self.long_range:
            raise ValueError("memory_tokens and long_range are two memories: one of them must be null")
        if self.hidden_size % 2:
            raise ValueError(f"hidden_size {self.hidden_size} must be even: half of it sines, half cosines")
        if self.long_range is not None and self.short_term_length % self.segment_length:
            raise ValueError(
                f"short_term_length {self.short_term_length} is not a multiple of segment_length "
                f"{self.segment_length}: the memory beyond it takes in whole segments"
            )
        return self

    def build(self, vocab_size: int, seed: int) -> "SegmentModel":
        """Build the model with the initial weights of `seed`. UsageError if a cutoff is beyond the vocabulary."""
        from infty.model.decoder import Decoder
        from infty.model.recurrent import RecurrentDecoder

        torch.manual_seed(seed)
        return (Decoder if self.memory_tokens is None else RecurrentDecoder)(self, vocab_size)

    def find_faults(self, vocab_size: int) -> list[tuple[str, str]]:
        """Find a cut-off that is beyond the vocabulary."""
        cuts = self.adaptive.cutoffs if self.adaptive else ()
        if not cuts or cuts[-1] < vocab_size:
            return []
        message = f"the last, {cuts[-1]}, is not below the {vocab_size} of task.tokenizer.vocab_size"
        return [("model.adaptive.cutoffs", message)]

    @property
    def memory_slots(self) -> int:
        """Count the vectors of the past that a layer keeps: short-term tokens, and those of its memory."""
        return self.short_term_length + super().memory_slots + (self.memory_tokens or 0)

    @property
    def state_bytes(self) -> int:
        """Count the bytes of one stream's state in float32: short-term tokens and memories of all layers, or tokens."""
        vectors = self.num_layers * self.short_term_length + (self.memory_tokens or 0)
        return torch.float32.itemsize * self.hidden_size * vectors + super().state_bytes

    @property
    def read_length(self) -> int:
        """Count the positions of a segment as layers read it: its tokens, between memory tokens if there are any."""
        return self.segment_length + 2 * (self.memory_tokens or 0)

    @property
    def attended_length(self) -> int:
        """Count the most keys that attention can see: the memory's extra ones, short-term tokens, and the segment."""
        extra = self.long_range.most_extra_keys if self.long_range else 0
        return extra + self.short_term_length + self.read_length


class Gpt2ModelConfig(_SharedConfig):
    """Sizes of a GPT-2 (Radford et al. 2019), the memory grafted on it, and the source of its weights."""

    fine_tunes = True
    kind: Literal["gpt2"] = Field(default="gpt2", description="a GPT-2 (Radford et al. 2019)")
    weights: str | None = Field(
        default=None, description="starting weights: a folder or hub name (owner/name@revision); null: see pretraining"
    )
    num_positions: int = Field(gt=0, description="positions that it knows: a segment can't be longer")
    dropout: float = Field(ge=0, lt=1, description="on embeddings, attention weights and what is added to the residual")
    start: Literal["drawn", "base"] = omit_default(
        "drawn", description="how memories begin: with a small output, or with one of 0, so that the model is its base"
    )
    places: Literal["kept", "removed"] = omit_default(
        "kept", description="whether what enters a memory has the part that its place in the segment gave it"
    )

    @model_validator(mode="after")
    def _can_begin_as_base(self) -> "Gpt2ModelConfig":
        if self.start == "base" and self.long_range and not self.long_range.has_output:
            raise ValueError(
                f"start: base wants a memory with an output of its own, which {self.long_range.kind} has not; kind: "
                "cache reads its slots in a branch of its own, with compression_rate compressed ones"
            )
        return self

    @model_validator(mode="after")
    def _positions_reach(self) -> "Gpt2ModelConfig":
        if self.segment_length > self.num_positions:
            raise ValueError(
                f"segment_length {self.segment_length} is above num_positions {self.num_positions}: a block must be "
                "as long as the model's positions at most"
            )
        return self

    def build(self, vocab_size: int, seed: int) -> "SegmentModel":
        """Build the model with the initial weights of `seed`."""
        from infty.model.gpt2 import build_gpt2  # loads transformers, which nothing else needs

        torch.manual_seed(seed)
        return build_gpt2(self, vocab_size)


def _kind(values: Any) -> str:
    return str(values.get("kind", "decoder") if isinstance(values, dict) else getattr(values, "kind", "decoder"))


ModelConfig = DecoderConfig | Gpt2ModelConfig
AnyModelConfig = Annotated[
    Annotated[DecoderConfig, Tag("decoder")] | Annotated[Gpt2ModelConfig, Tag("gpt2")], Discriminator(_kind)
]

"""The decoder: Transformer-XL, Compressive Transformer and ∞-former are one stack with another memory in the seat."""

import math
from dataclasses import dataclass
from typing import Annotated, Any, assert_never, cast

import torch
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from infty.memory.compressive import CompressedState, CompressiveMemory, CompressiveMemoryConfig, reconstruction_loss
from infty.memory.exact import ExactBuffers
from infty.memory.longterm import LongTermMemory, LongTermMemoryConfig, LongTermState
from infty.model.relative import Positions, RelativeAttention, ShortTermState, sinusoidal_encoding

Hidden = Float[Tensor, "batch length hidden"]
Auxiliary = dict[str, Float[Tensor, ""]]
LongRangeConfig = Annotated[LongTermMemoryConfig | CompressiveMemoryConfig, Field(discriminator="kind")]
SHARED_SIZES = ("hidden_size", "num_heads", "segment_length")


class DecoderConfig(BaseModel):
    """Sizes of a decoder. A memory takes its hidden size, heads and segment length from here."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    num_layers: int = Field(gt=0, description="layers")
    num_heads: int = Field(gt=0, description="attention heads H")
    hidden_size: int = Field(gt=0, description="hidden size E")
    feed_forward_size: int = Field(gt=0, description="inner size of the feed-forward part")
    dropout: float = Field(ge=0, lt=1, description="on embeddings, position encodings, attention and feed-forward")
    attention_dropout: float = Field(default=0.0, ge=0, lt=1, description="on attention weights")
    initial_std: float = Field(default=0.02, gt=0, description="standard deviation of all initial matrices")
    segment_length: int = Field(gt=0, description="tokens in a segment L")
    short_term_length: int = Field(ge=0, description="tokens in the short-term memory (STM)")
    long_range: LongRangeConfig | None = Field(default=None, description="the memory beyond it; null: Transformer-XL")

    @model_validator(mode="before")
    @classmethod
    def _share_sizes(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(values.get("long_range"), dict):
            return values
        kinds = {"long_term": LongTermMemoryConfig, "compressive": CompressiveMemoryConfig}
        fields = getattr(kinds.get(str(values["long_range"].get("kind"))), "model_fields", {})
        shared = {name: values[name] for name in SHARED_SIZES if name in fields and name in values}
        return {**values, "long_range": {**shared, **values["long_range"]}}

    @model_validator(mode="after")
    def _sizes_fit(self) -> "DecoderConfig":
        if self.hidden_size % self.num_heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}")
        if self.hidden_size % 2:
            raise ValueError(f"hidden_size {self.hidden_size} must be even: half of it sines, half cosines")
        for name in SHARED_SIZES:
            if getattr(self.long_range, name, getattr(self, name)) != getattr(self, name):
                raise ValueError(f"long_range.{name} differs from {name}; leave it out, it is taken from there")
        if isinstance(self.long_range, LongTermMemoryConfig) and self.short_term_length % self.segment_length:
            raise ValueError(
                f"short_term_length {self.short_term_length} is not a multiple of segment_length "
                f"{self.segment_length}: the long-term memory takes in whole segments"
            )
        return self

    @property
    def memory_slots(self) -> int:
        """Vectors a layer keeps of the past: short-term tokens and basis functions or compressed slots."""
        return self.short_term_length + (self.long_range.slots if self.long_range else 0)

    @property
    def attended_length(self) -> int:
        """Keys that attention sees at most: compressed slots, short-term memory and the segment itself."""
        compressed = self.long_range.slots if isinstance(self.long_range, CompressiveMemoryConfig) else 0
        return compressed + self.short_term_length + self.segment_length

    @property
    def auxiliary_weights(self) -> dict[str, float]:
        """Weight of each named loss in `Output.auxiliary`."""
        return self.long_range.auxiliary_weights if self.long_range else {}


@dataclass(frozen=True)
class LayerState:
    """What one layer carries from segment to segment."""

    short_term: ShortTermState
    long_range: LongTermState | CompressedState | None


@dataclass(frozen=True)
class Output:
    """logits: batch length vocab. state: for the next segment, detached. auxiliary: named losses, summed over layers.

    Auxiliary losses are computed only where a gradient is, and only once there is a memory to read.
    """

    logits: Float[Tensor, "batch length vocab"]
    state: tuple[LayerState, ...]
    auxiliary: Auxiliary


class Block(nn.Module):
    """One post-norm layer: attention joined by what the long-range memory reads, then the feed-forward part."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.short_term_length = config.short_term_length
        self.attention = RelativeAttention(config.hidden_size, config.num_heads, config.attention_dropout)
        self.long_range = _build_memory(config.long_range)
        self.dropout = nn.Dropout(config.dropout)
        self.attention_norm = nn.LayerNorm(config.hidden_size)
        self.feed_forward = nn.Sequential(
            nn.Linear(config.hidden_size, config.feed_forward_size),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.feed_forward_size, config.hidden_size),
            nn.Dropout(config.dropout),
        )
        self.feed_forward_norm = nn.LayerNorm(config.hidden_size)

    def initial_state(self, seeds: Int[Tensor, " batch"]) -> LayerState:
        """Nothing seen yet."""
        short_term = ShortTermState(
            self.attention_norm.weight.new_zeros(len(seeds), 0, len(self.attention_norm.weight))
        )
        match self.long_range:
            case None:
                return LayerState(short_term, None)
            case LongTermMemory():
                return LayerState(short_term, self.long_range.initial_state(len(seeds), seeds))
            case CompressiveMemory():
                return LayerState(short_term, self.long_range.initial_state(len(seeds)))
            case _:
                assert_never(self.long_range)

    def forward(self, x: Hidden, state: LayerState, positions: Positions) -> tuple[Hidden, LayerState, Auxiliary]:
        """Output and next state of the layer, and its named losses.

        What leaves the short-term memory enters the long-range one *before* it is read, in the same
        graph: so the task's loss reaches the gate or the compressor.
        """
        context, long_range, auxiliary = self.attend(x, state, positions)
        short_term = ShortTermState(torch.cat([state.short_term.split(self.short_term_length)[1], x.detach()], 1))
        x = self.attention_norm(x + self.dropout(context))
        x = self.feed_forward_norm(x + self.feed_forward(x))
        return x, LayerState(short_term, long_range.detach() if long_range else None), auxiliary

    def attend(
        self, x: Hidden, state: LayerState, positions: Positions
    ) -> tuple[Hidden, LongTermState | CompressedState | None, Auxiliary]:
        """Z = Z_STM + Z_LTM with a long-term memory; with a compressive one its slots join the keys of attention."""
        evicted, recent = state.short_term.split(self.short_term_length)
        memory, long_range, auxiliary = self.long_range, state.long_range, {}
        match memory, long_range:
            case (LongTermMemory(), LongTermState()):
                context, queries = self.attention(x, recent, positions)
                if evicted.shape[1]:
                    long_range = memory.update(long_range, evicted)
                if not long_range.is_empty:
                    read, density = memory.attend(queries, long_range)
                    context = context + read
                    if torch.is_grad_enabled():
                        auxiliary["kl"] = memory.kl(density, long_range)
                    long_range = memory.observe(long_range, density)
            case (CompressiveMemory(), CompressedState()):
                if evicted.shape[1]:
                    slots = memory.compressed(evicted)
                    long_range = memory.update(long_range, slots)
                    if torch.is_grad_enabled():
                        auxiliary["reconstruction"] = reconstruction_loss(
                            lambda hidden: self.attention.read_by_content(x, hidden), evicted, slots
                        )
                context, _ = self.attention(x, torch.cat([long_range.slots, recent], 1), positions)
            case (None, None):
                context, _ = self.attention(x, recent, positions)
            case _:
                raise TypeError(f"a state of {type(long_range).__name__} for a memory of {type(memory).__name__}")
        return context, long_range, auxiliary


class Decoder(ExactBuffers):
    """A causal decoder over segments: `forward` takes a segment and the state that the last one returned."""

    encoding: Float[Tensor, "k hidden"]

    def __init__(self, config: DecoderConfig, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(vocab_size, config.hidden_size)
        blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.blocks = cast("list[Block]", blocks)  # torch's container has no element type
        self.output = nn.Linear(config.hidden_size, vocab_size, bias=False)
        head_size = config.hidden_size // config.num_heads
        self.content_bias = nn.Parameter(torch.empty(config.num_heads, head_size))
        self.position_bias = nn.Parameter(torch.empty(config.num_heads, head_size))
        self.dropout = nn.Dropout(config.dropout)
        distances = torch.arange(config.attended_length - 1, -1, -1, dtype=torch.float64, device="cpu")
        self.register_exact("encoding", sinusoidal_encoding(distances, config.hidden_size))
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=config.initial_std)

    def initial_state(self, seeds: Int[Tensor, " batch"]) -> tuple[LayerState, ...]:
        """Empty state of one stream for each seed. Seeds decide what a sticky memory samples."""
        layers = len(self.blocks)
        return tuple(block.initial_state(seeds * layers + i) for i, block in enumerate(self.blocks))

    def forward(self, tokens: Int[Tensor, "batch length"], state: tuple[LayerState, ...]) -> Output:
        """Logits for the token after each of `tokens`, of which there are at most `segment_length` a stream."""
        x = self.dropout(self.embedding(tokens) * math.sqrt(self.config.hidden_size))
        positions = Positions(self.dropout(self.encoding), self.content_bias, self.position_bias)
        states, losses = [], []
        for block, layer_state in zip(self.blocks, state, strict=True):
            x, layer_state, auxiliary = block(x, layer_state, positions)
            states.append(layer_state)
            losses.append(auxiliary)
        auxiliary = {name: torch.stack([layer[name] for layer in losses]).sum() for name in losses[0]}
        return Output(self.output(x), tuple(states), auxiliary)


def _build_memory(
    config: LongTermMemoryConfig | CompressiveMemoryConfig | None,
) -> LongTermMemory | CompressiveMemory | None:
    match config:
        case None:
            return None
        case LongTermMemoryConfig():
            return LongTermMemory(config)
        case CompressiveMemoryConfig():
            return CompressiveMemory(config)
        case _:
            assert_never(config)

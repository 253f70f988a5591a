"""The decoder: Transformer-XL, Compressive Transformer and ∞-former are one stack with another memory in the seat."""

import math
from dataclasses import dataclass
from typing import Annotated, Any, assert_never, cast

import torch
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from infty.memory.attention import AttentionDensity
from infty.memory.compressive import CompressedState, CompressiveMemory, CompressiveMemoryConfig, reconstruction_loss
from infty.memory.exact import ExactBuffers
from infty.memory.longterm import LongTermMemory, LongTermMemoryConfig, LongTermState
from infty.model.dropout import Dropout
from infty.model.relative import KeyValue, Positions, RelativeAttention, ShortTermState, sinusoidal_encoding

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
    """logits: of the last positions, as many as were wanted. state: for the next segment, detached.

    auxiliary: named losses, summed over layers; only where a gradient is, and only once there is a memory to read.
    """

    logits: Float[Tensor, "batch wanted vocab"]
    state: tuple[LayerState, ...]
    auxiliary: Auxiliary


class Block(nn.Module):
    """One post-norm layer: attention joined by what the long-range memory reads, then the feed-forward part."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.short_term_length = config.short_term_length
        self.attention = RelativeAttention(config.hidden_size, config.num_heads, config.attention_dropout)
        self.long_range = _build_memory(config.long_range)
        self.dropout = Dropout(config.dropout)
        self.attention_norm = nn.LayerNorm(config.hidden_size)
        self.feed_forward = nn.Sequential(
            nn.Linear(config.hidden_size, config.feed_forward_size),
            nn.ReLU(),
            Dropout(config.dropout),
            nn.Linear(config.feed_forward_size, config.hidden_size),
            Dropout(config.dropout),
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

    def forward(
        self, x: Hidden, state: LayerState, positions: Positions, wanted: int
    ) -> tuple[Float[Tensor, "batch wanted hidden"], LayerState, Auxiliary]:
        """Output of the last `wanted` positions, next state of the layer, and its named losses.

        What leaves the short-term memory enters the long-range one *before* it is read, in the same
        graph: so the task's loss reaches the gate or the compressor.
        """
        evicted, recent = state.short_term.split(self.short_term_length)
        seen = self._key_values(x, recent) if wanted else None
        context, long_range, auxiliary = self._attend(x, evicted, state.long_range, seen, positions, wanted)
        short_term = ShortTermState(
            torch.cat([recent.hidden, x.detach()], 1), None if torch.is_grad_enabled() else seen
        )
        x = self.position_wise(_last(x, wanted), context)
        return x, LayerState(short_term, long_range.detach() if long_range else None), auxiliary

    def position_wise(
        self, x: Float[Tensor, "batch wanted hidden"], context: Float[Tensor, "batch wanted hidden"]
    ) -> Float[Tensor, "batch wanted hidden"]:
        """Residual and norm, feed-forward part, residual and norm: each position for itself."""
        x = self.attention_norm(x + self.dropout(context))
        return self.feed_forward_norm(x + self.feed_forward(x))

    def _key_values(self, x: Hidden, recent: ShortTermState) -> KeyValue:
        """Keys and values of the short-term memory and the segment. Those kept from before carry no gradient."""
        kept = None if torch.is_grad_enabled() else recent.key_value
        return KeyValue.join(kept or self.attention.key_values(recent.hidden), self.attention.key_values(x))

    def _attend(
        self,
        x: Hidden,
        evicted: Float[Tensor, "batch evicted hidden"],
        state: LongTermState | CompressedState | None,
        seen: KeyValue | None,
        positions: Positions,
        wanted: int,
    ) -> tuple[Float[Tensor, "batch wanted hidden"], LongTermState | CompressedState | None, Auxiliary]:
        """Z = Z_STM + Z_LTM with a long-term memory; with a compressive one its slots join the keys of attention.

        seen: None where no position is wanted.
        """
        memory, auxiliary, read = self.long_range, {}, None
        queries = self.attention.query(_last(x, wanted))
        match memory, state:
            case (LongTermMemory(), LongTermState()):
                if evicted.shape[1]:
                    state = memory.update(state, evicted)
                if not state.is_empty:
                    density = self._density(memory, state, x, queries)
                    read = memory.read(density.last(wanted), state) if wanted else None
                    if torch.is_grad_enabled():
                        auxiliary["kl"] = memory.kl(density, state)
                    state = memory.observe(state, density)
            case (CompressiveMemory(), CompressedState()):
                if evicted.shape[1]:
                    slots = memory.compressed(evicted)
                    state = memory.update(state, slots)
                    if torch.is_grad_enabled():
                        auxiliary["reconstruction"] = reconstruction_loss(
                            lambda hidden: self.attention.read_by_content(x, hidden), evicted, slots
                        )
                seen = KeyValue.join(self.attention.key_values(state.slots), seen) if seen else None
            case (None, None):
                pass
            case _:
                raise TypeError(f"a state of {type(state).__name__} for a memory of {type(memory).__name__}")
        context = self.attention(queries, seen, positions) if seen else queries  # of no position
        return context if read is None else context + read, state, auxiliary

    def _density(
        self, memory: LongTermMemory, state: LongTermState, x: Hidden, queries: Float[Tensor, "batch wanted hidden"]
    ) -> AttentionDensity:
        """Where the memory is read: by all of x where the KL or a histogram asks for it, else by the wanted ones."""
        if queries.shape[1] < x.shape[1] and (torch.is_grad_enabled() or memory.sticky):
            return memory.density(x, state, projection=self.attention.query.weight)
        return memory.density(queries, state)


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
        self.dropout = Dropout(config.dropout)
        distances = torch.arange(config.attended_length - 1, -1, -1, dtype=torch.float64, device="cpu")
        self.register_exact("encoding", sinusoidal_encoding(distances, config.hidden_size))
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=config.initial_std)

    def initial_state(self, seeds: Int[Tensor, " batch"]) -> tuple[LayerState, ...]:
        """Empty state of one stream for each seed. Seeds decide what a sticky memory samples."""
        layers = len(self.blocks)
        return tuple(block.initial_state(seeds * layers + i) for i, block in enumerate(self.blocks))

    def positions(self) -> tuple[Positions, ...]:
        """What the segments of a step share, for each layer; with dropout in training, so they are drawn once."""
        encoding = self.dropout(self.encoding)
        return tuple(
            block.attention.positions(encoding, self.content_bias, self.position_bias) for block in self.blocks
        )

    def forward(
        self,
        tokens: Int[Tensor, "batch length"],
        state: tuple[LayerState, ...],
        positions: tuple[Positions, ...] | None = None,
        wanted: int | None = None,
    ) -> Output:
        """Logits for the token after each of `tokens`, of which there are at most `segment_length` a stream.

        positions: of the step, by default made anew. wanted: of how many of the last tokens; by default of all.
        The last layer computes nothing for the others but what its memory and its losses need.
        """
        length = tokens.shape[1]
        wanted = length if wanted is None else wanted
        positions = positions or self.positions()
        x = self.dropout(self.embedding(tokens) * math.sqrt(self.config.hidden_size))
        states, losses = [], []
        for block, layer_state, layer_positions in zip(self.blocks, state, positions, strict=True):
            rows = wanted if block is self.blocks[-1] else length
            x, layer_state, auxiliary = block(x, layer_state, layer_positions, rows)
            states.append(layer_state)
            losses.append(auxiliary)
        auxiliary = {name: torch.stack([layer[name] for layer in losses]).sum() for name in losses[0]}
        logits = self.output(x).to(self.output.weight.dtype)  # under autocast: losses are taken in full precision
        return Output(logits, tuple(states), auxiliary)


def _last(x: Hidden, count: int) -> Float[Tensor, "batch count hidden"]:
    """The last `count` positions."""
    return x[:, x.shape[1] - count :]


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

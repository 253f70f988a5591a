"""One layer: attention over what is near, joined by a memory of what is far, and what it carries between segments."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar, assert_never, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from infty.memory.attention import AttentionDensity
from infty.memory.compressive import CompressedState, CompressiveMemory, CompressiveMemoryConfig, reconstruction_loss
from infty.memory.longterm import LongTermMemory, LongTermMemoryConfig, LongTermState
from infty.memory.rows import visible
from infty.model.config import DecoderConfig
from infty.model.dropout import Dropout
from infty.model.relative import Evicted, KeyValue, Positions, RelativeAttention, ShortTermState

Hidden = Float[Tensor, "batch length hidden"]
Auxiliary = dict[str, Float[Tensor, ""]]
LongRangeState = LongTermState | CompressedState
AnyState = TypeVar("AnyState", LongTermState, CompressedState)
Lesion = Callable[[LongRangeState], LongRangeState]


@dataclass(frozen=True)
class LayerState:
    """What one layer carries from segment to segment."""

    short_term: ShortTermState
    long_range: LongRangeState | None

    def reset(self, rows: Bool[Tensor, " batch"], seeds: Int[Tensor, " batch"]) -> "LayerState":
        """Forget everything in the marked rows; `seeds` name the streams that begin there."""
        match self.long_range:
            case LongTermState():
                long_range = self.long_range.reset(rows, seeds)
            case CompressedState():
                long_range = self.long_range.reset(rows)
            case None:
                long_range = None
        return LayerState(self.short_term.reset(rows), long_range)


class Block(nn.Module):
    """One post-norm layer: attention joined by what the long-range memory reads, then the feed-forward part."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.short_term_length = config.short_term_length
        self.attention = RelativeAttention(config.hidden_size, config.num_heads, config.attention_dropout)
        self.long_range = _build_memory(config.long_range)
        self.lesion: Lesion | None = None  # what a knock-out does to the memory before it is read; never kept
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
        context, long_range, auxiliary = self._attend(x, evicted, recent, state.long_range, seen, positions, wanted)
        short_term = recent.append(x.detach(), None if torch.is_grad_enabled() else seen)
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
        evicted: Evicted,
        recent: ShortTermState,
        state: LongRangeState | None,
        seen: KeyValue | None,
        positions: Positions,
        wanted: int,
    ) -> tuple[Float[Tensor, "batch wanted hidden"], LongRangeState | None, Auxiliary]:
        """Z = Z_STM + Z_LTM with a long-term memory; with a compressive one its slots join the keys of attention.

        seen: None where no position is wanted.
        """
        memory, auxiliary, read, slots = self.long_range, {}, None, None
        queries = self.attention.query(_last(x, wanted))
        match memory, state:
            case (LongTermMemory(), LongTermState()):
                if evicted.hidden.shape[1]:
                    state = memory.update(state, evicted.hidden, evicted.rows)
                if not state.is_empty:
                    known = self._lesioned(state)
                    density = self._density(memory, known, x, queries)
                    read = memory.read(density.last(wanted), known) if wanted else None
                    if torch.is_grad_enabled():
                        auxiliary["kl"] = memory.kl(density, state)
                    if self.lesion and memory.sticky:  # what is kept stays true
                        density = self._density(memory, state, x, queries)
                    state = memory.observe(state, density)
            case (CompressiveMemory(), CompressedState()):
                if evicted.hidden.shape[1]:
                    fresh = memory.compressed(evicted.hidden)
                    state = memory.update(state, fresh, evicted.rows)
                    if torch.is_grad_enabled() and (evicted.rows is None or evicted.rows.any()):
                        auxiliary["reconstruction"] = self._reconstruction(x, evicted, fresh)
                slots = self._lesioned(state)
                seen = KeyValue.join(self.attention.key_values(slots.slots), seen) if seen else None
            case (None, None):
                pass
            case _:
                raise TypeError(f"a state of {type(state).__name__} for a memory of {type(memory).__name__}")
        unseen = _unseen(recent, slots)
        context = self.attention(queries, seen, positions, unseen) if seen else queries  # of no position
        return context if read is None else context + read, state, auxiliary

    def _lesioned(self, state: AnyState) -> AnyState:
        """The memory as it is read: as it is, or knocked out."""
        return cast("AnyState", self.lesion(state)) if self.lesion else state

    def _reconstruction(
        self, x: Hidden, evicted: Evicted, slots: Float[Tensor, "batch slots hidden"]
    ) -> Float[Tensor, ""]:
        """What attention loses by the compression, in the rows that lost something of their own."""
        rows = slice(None) if evicted.rows is None else evicted.rows
        attend = partial(self.attention.read_by_content, x[rows])
        return reconstruction_loss(attend, evicted.hidden[rows], slots[rows])

    def _density(
        self, memory: LongTermMemory, state: LongTermState, x: Hidden, queries: Float[Tensor, "batch wanted hidden"]
    ) -> AttentionDensity:
        """Where the memory is read: by all of x where the KL or a histogram asks for it, else by the wanted ones."""
        if queries.shape[1] < x.shape[1] and (torch.is_grad_enabled() or memory.sticky):
            return memory.density(x, state, projection=self.attention.query.weight)
        return memory.density(queries, state)


def _last(x: Hidden, count: int) -> Float[Tensor, "batch count hidden"]:
    """The last `count` positions."""
    return x[:, x.shape[1] - count :]


def _unseen(recent: ShortTermState, slots: CompressedState | None) -> Int[Tensor, " batch"] | None:
    """How many of the oldest keys, compressed slots first, are not each row's own; None: all are."""
    if recent.filled is None and (slots is None or slots.filled is None):
        return None
    own = visible(recent.hidden, recent.filled)
    if slots is None:
        return recent.hidden.shape[1] - own
    return recent.hidden.shape[1] - own + slots.slots.shape[1] - visible(slots.slots, slots.filled)


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

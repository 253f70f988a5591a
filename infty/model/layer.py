"""One layer (section 3.1): attention over what is near, joined by a memory of what is far."""

from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from infty.memory.attention import AttentionDensity
from infty.memory.compressive import CompressedState, CompressiveMemory
from infty.memory.longterm import LongTermMemory, LongTermState
from infty.memory.ragged import visible
from infty.model.config import DecoderConfig
from infty.model.fast.dropout import Dropout
from infty.model.memory_kinds import LongRangeState, build_memory
from infty.model.memory_layer import Auxiliary, Hidden, LayerState, Seat
from infty.model.relative_attention import Positions, RelativeAttention
from infty.model.short_term import Evicted, KeyValue, ShortTermState


class Block(Seat):
    """One post-norm layer: attention joined by what the long-range memory reads, then the feed-forward part."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.short_term_length = config.short_term_length
        self.attention = RelativeAttention(config.hidden_size, config.num_heads, config.attention_dropout)
        self.long_range = build_memory(config.long_range)
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

    def forward(
        self, x: Hidden, state: LayerState, positions: Positions, wanted: int
    ) -> tuple[Float[Tensor, "batch wanted hidden"], LayerState, Auxiliary]:
        """Output of the last `wanted` positions, next state of the layer, and its named losses.

        TypeError where the state is another kind of memory's.
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
                look = partial(self._density, memory, x=x, queries=queries)
                read, state, auxiliary = self.recall(memory, state, evicted, look, wanted)
            case (CompressiveMemory(), CompressedState()):
                attend = partial(self._read_by_content, x)
                slots, state, auxiliary = self.compress(memory, state, evicted, attend)
                seen = KeyValue.join(self.attention.key_values(slots.slots), seen) if seen else None
            case (None, None):
                pass
            case _:
                raise TypeError(f"a state of {type(state).__name__} for a memory of {type(memory).__name__}")
        unseen = _unseen(recent, slots)
        context = self.attention(queries, seen, positions, unseen) if seen else queries  # of no position
        return self.join(context, read), state, auxiliary

    def _read_by_content(
        self, x: Hidden, rows: Bool[Tensor, " batch"] | slice, vectors: Float[Tensor, "some n hidden"]
    ) -> Float[Tensor, "some length hidden"]:
        return self.attention.read_by_content(x[rows], vectors)

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

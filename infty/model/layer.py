"""Join attention to near tokens and a memory of far ones in one layer (M9)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from infty.memory.contract import Chosen, ExtraKeys, Hidden, Losses, PerRow, Wanted
from infty.memory.rows import mark_own, send
from infty.model.config import DecoderConfig
from infty.model.fast.dropout import Dropout
from infty.model.memory_layer import WHOLE, LayerState, MemoryLayer, Part, unfold_segments
from infty.model.relative_attention import Positions, RelativeAttention
from infty.model.short_term import KeyValue, ShortTermState


class Layer(MemoryLayer):
    """One post-norm layer: attention joined by what the long-range memory reads, then the feed-forward part."""

    to_compile = ("position_wise",)

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.segment_length, self.short_term_length = config.read_length, config.short_term_length
        self.attention = RelativeAttention(config.hidden_size, config.num_heads, config.attention_dropout)
        self.long_range = config.long_range.build() if config.long_range else None
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
        self, x: Hidden, state: LayerState, positions: Positions, wanted: int, part: Part = WHOLE
    ) -> tuple[Wanted, LayerState, Losses]:
        """Compute output at the last `wanted` positions, state, losses. TypeError if the state is another memory's."""
        if len(x) > len(state.short_term.hidden):
            return self._read_several(x, state, positions, wanted)
        evicted, owners, recent = state.short_term.split(self.short_term_length if part.begins else None)
        room = None if part.is_whole else self.short_term_length + self.segment_length
        near_keys = self._key_values(x, recent, room) if wanted else None
        queries = self.attention.query(_last(x, wanted))

        # The memory takes in what was evicted and then is read; its extra keys precede those of attention.
        segment = part.collect(recent.hidden, x, self.segment_length)
        known = self.take_in(segment, state, evicted, owners, part)
        far, memory, losses = self.recall(known, queries, segment, self.attention.query.weight)
        keys, far_keys = near_keys, None if part.begins else state.extra
        if known.extra is not None and near_keys is not None:
            far_keys = far_keys or self.attention.key_values(known.extra.vectors)
            keys = KeyValue.concatenate(far_keys, near_keys)
            if recent.filled is not None and not part.is_whole:
                keys = keys.reorder(_order_unseen_first(recent, known.extra, keys.value.shape[2]))
        unseen = _count_unseen(recent, known.extra)
        near = self.attention(queries, keys, positions, unseen) if keys is not None else queries  # none wanted

        # Keys and values can be kept only while the weights do not change: without a gradient.
        short_term = recent.append(x, None if torch.is_grad_enabled() else near_keys, room)
        kept = (None, None) if part.ends else (known.prepared, far_keys)
        after = LayerState(short_term, memory, *kept)
        if not wanted:
            return x[:, :0], after, losses
        return self.position_wise(_last(x, wanted), self.mix(near, far)), after, losses

    def _read_several(
        self, x: Hidden, state: LayerState, positions: Positions, wanted: int
    ) -> tuple[Wanted, LayerState, Losses]:
        """Read several full segments at once, rows of one batch: equal to one after the other, without a gradient."""
        length, recent = self.segment_length, state.short_term
        text = unfold_segments(x, len(recent.hidden))
        near_keys = self._key_values(text, recent, None) if wanted else None
        stream = recent.append(text, near_keys)
        queries = self.attention.query(_last(x, wanted))
        left = stream.hidden[:, : text.shape[1]]
        known = self.take_in_turn(state, left, len(x) // len(text))
        far, memory, _ = self.recall(known, queries, x, self.attention.query.weight)
        after = LayerState(stream.drop(text.shape[1]), memory)
        if near_keys is None:
            return x[:, :0], after, {}
        keys = near_keys.drop(length).cut_windows(self.short_term_length + length, length)
        if known.extra is not None:
            keys = KeyValue.concatenate(self.attention.key_values(known.extra.vectors), keys)
        near = self.attention(queries, keys, positions, _count_unseen(recent, known.extra))
        return self.position_wise(_last(x, wanted), self.mix(near, far)), after, {}

    def read_by_content(
        self, x: Hidden, rows: Chosen, vectors: Float[Tensor, "some n hidden"]
    ) -> Float[Tensor, "some length hidden"]:
        """Read `vectors` as some rows of x would by content alone, with x and the projections held constant."""
        return self.attention.read_by_content(x, rows, vectors)

    def position_wise(self, x: Wanted, context: Wanted) -> Wanted:
        """Add residual and norm, feed-forward part, residual and norm: each position by itself."""
        x = self.attention_norm(x + self.dropout(context))
        return self.feed_forward_norm(x + self.feed_forward(x))

    def _key_values(self, x: Hidden, recent: ShortTermState, room: int | None) -> KeyValue:
        """Make keys and values of the short-term memory and the segment. Those kept from before carry no gradient."""
        kept = None if torch.is_grad_enabled() else recent.key_value
        before, new = kept or self.attention.key_values(recent.hidden), self.attention.key_values(x)
        return KeyValue.concatenate(before, new) if room is None else before.append(new, room)


def _last(x: Hidden, count: int) -> Wanted:
    """Take the last `count` positions."""
    return x[:, x.shape[1] - count :]


def _count_unseen(recent: ShortTermState, extra: ExtraKeys | None) -> PerRow | None:
    """Count the oldest keys, extra ones first, that do not belong to each row's stream; None: all do."""
    if recent.filled is None and (extra is None or extra.filled is None):
        return None
    unseen = [
        vectors.shape[1] - filled
        for vectors, filled in [(recent.hidden, recent.filled), *([(extra.vectors, extra.filled)] if extra else [])]
        if filled is not None
    ]
    return torch.stack(unseen).sum(0)


def _order_unseen_first(recent: ShortTermState, extra: ExtraKeys, count: int) -> Int[Tensor, "batch keys"]:
    """Order all keys so that those that are no row's own come first: texts of different age are read side by side."""
    before = torch.cat([mark_own(extra.vectors, extra.filled), mark_own(recent.hidden, recent.filled)], 1)
    own = F.pad(before, (0, count - before.shape[1]), value=1)  # the tokens of this part are all rows' own
    return send(own.long().argsort(dim=1, stable=True), recent.hidden.device)

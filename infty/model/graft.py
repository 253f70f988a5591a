"""Graft memories on another library's decoder, layer by layer (section 4.2): Z = Z_attention + Z_LTM (M9).

Each term has its own output projection; both use the queries of the layer's attention. The decoder stays the object it
was: only the `forward` of its attentions is replaced by that of a `GraftedLayer`, which calls the original unless the
decoder is called with `memories`. The methods of a `Family` say how its decoders name and project their parts.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import get_ident
from typing import Any, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from infty.memory.contract import Chosen, ExtraKeys, Hidden, Losses
from infty.memory.equations import join_heads, split_heads
from infty.memory.rows import mark_own, send, visible
from infty.model.config import Gpt2ModelConfig
from infty.model.fast.growing import append
from infty.model.interface import Output, SegmentModel, State, sum_losses
from infty.model.memory_layer import WHOLE, LayerState, MemoryLayer, Part, unfold_segments
from infty.model.short_term import KeyValue, ShortTermState
from infty.model.softmax import Softmax

Heads = Float[Tensor, "b h n d"]  # keys and values may have fewer heads than queries


@runtime_checkable
class Family(Protocol):
    """Adapter to a family of decoders in which each token attends to the whole segment up to itself."""

    def layers(self, decoder: nn.Module) -> Sequence[nn.Module]:
        """List the layers, first to last."""
        ...

    def attention(self, layer: nn.Module) -> nn.Module:
        """Get a layer's self-attention, whose `forward` takes hidden states and returns (Z, weights)."""
        ...

    def queries(self, attention: nn.Module, x: Hidden) -> Hidden:
        """Make an attention's queries, heads joined."""
        ...

    def query_part(self, attention: nn.Module) -> tuple[nn.Module, slice]:
        """Get the module that makes an attention's queries, before any position, and which of its outputs they are."""
        ...

    def key_values(self, attention: nn.Module, x: Hidden) -> tuple[Heads, Heads]:
        """Make an attention's keys and values of vectors that have no position in the segment."""
        ...

    def places(self, decoder: nn.Module, layer: nn.Module) -> Float[Tensor, "places hidden"] | None:
        """Make the part that each place of a segment has in what a layer's attention reads; None: there is none."""
        ...

    def load(self, decoder: nn.Module, folder: Path) -> None:
        """Read a decoder's weights from a Hugging Face folder. MissingError if it lacks one, or has other shapes."""


@dataclass
class LayerStates:
    """States of all layers before one call of a decoder; each layer then enters its state after it, and its losses.

    A layer may be called twice (activation checkpointing), so it must not change the state that it starts from.
    """

    before: State
    after: list[LayerState]
    losses: list[Losses]
    part: Part = WHOLE  # of the segment that is read
    causal: Float[Tensor, "1 1 1 1"] | None = None  # handed over as the mask: each token sees all up to itself


class GraftedLayer(MemoryLayer):
    """Memory beside one attention of another library's decoder; takes in its input, normed, of the last segment."""

    def __init__(self, config: Gpt2ModelConfig, family: Family, decoder: nn.Module, index: int) -> None:
        super().__init__()
        layer = family.layers(decoder)[index]
        attention = family.attention(layer)
        self.long_range = config.long_range.build() if config.long_range else None
        self.index, self.segment_length, self.short_term_length = index, config.segment_length, 0
        self.original = attention.forward  # before it is replaced; its parameters stay the decoder's
        self.queries = partial(family.queries, attention)
        self.query_part = partial(family.query_part, attention)
        self.key_values = partial(family.key_values, attention)
        self.places = partial(family.places, decoder, layer) if config.places == "removed" else lambda: None
        self._reader = partial(_ContentReader, family, attention, config.num_heads)
        attention.forward = self.forward

    def forward(
        self, hidden_states: Hidden, *args: Any, memories: LayerStates | None = None, **options: Any
    ) -> tuple[Hidden, Any]:
        """Compute the attention's output, with what the memory reads. TypeError for another memory's state."""
        # In the place of the attention's own forward, whose weights are returned unchanged.
        if memories is None:
            return self.original(hidden_states, *args, **options)
        if memories.causal is not None:
            options["attention_mask"] = None  # as torch's attention wants it
        memory, before, part = self.long_range, memories.before[self.index], memories.part
        if memory is None and before.long_range is None and part.is_whole:
            return self.original(hidden_states, *args, **options)
        evicted, owners, recent = before.short_term.split(0 if part.begins else None)
        texts, several = len(evicted), len(hidden_states) > len(evicted)

        # The memory takes in what was evicted. Its extra keys precede those of attention.
        x = hidden_states if several else part.collect(recent.hidden, hidden_states, self.segment_length)
        if several:
            left = torch.cat([evicted, unfold_segments(x, texts)], 1)[:, : -self.segment_length]
            known = self.take_in_turn(before, self._remove_places(left), len(x) // texts)
            recent = ShortTermState(x[:, :0])
        else:
            known = self.take_in(x, before, self._remove_places(evicted), owners, part)
        room = None if part.is_whole else self.segment_length
        cache = _SegmentCache(self._hold(known.extra, before, part), recent.key_value, room)
        if known.extra is not None or room:
            name = "cache" if "cache" in options else "past_key_values"  # its name in older versions
            options = {**options, name: cache, "attention_mask": _mask_keys(hidden_states, known.extra, recent)}

        # It is read with the queries that attention makes.
        module, places = self.query_part()
        with _note_output(module) as noted:
            near, weights = self.original(hidden_states, *args, **options)
        queries = x
        if memory is not None and memory.reads:
            queries = noted[0][..., places] if x is hidden_states else self.queries(x)
        far, state, losses = self.recall(known, queries, x)

        # Without a short-term memory, this segment is evicted at the next one.
        if several:
            short_term = ShortTermState(hidden_states.unflatten(0, (texts, -1))[:, -1])
        else:
            short_term = recent.append(hidden_states, cache.own if room else None, room)
        kept = (None, None) if part.ends else (known.prepared, cache.extra)
        memories.after[self.index] = LayerState(short_term, state, *kept)
        memories.losses[self.index] = losses
        return self.mix(near, None if far is None else far[:, -near.shape[1] :]), weights

    def _remove_places(self, vectors: Float[Tensor, "texts n hidden"]) -> Float[Tensor, "texts n hidden"]:
        """Remove from vectors of whole segments, or of a first part of one, what lies along the part of their places.

        Departure: a slot that has the places of what it is made of looks to trained attention like tokens there.
        """
        if (parts := self.places()) is None:
            return vectors
        which = torch.arange(vectors.shape[1], device=vectors.device) % self.segment_length
        along = F.normalize(parts, dim=-1)[which]
        return vectors - (vectors * along).sum(-1, keepdim=True) * along

    def _hold(self, extra: ExtraKeys | None, before: LayerState, part: Part) -> KeyValue | None:
        """Make keys and values of a memory's extra keys, or take those that an earlier part of the segment made."""
        if extra is None:
            return None
        if before.extra and not part.begins:
            return before.extra
        key, value = self.key_values(extra.vectors)
        return KeyValue(key.mT, value)

    def complete(self, states: Sequence[LayerState]) -> Sequence[LayerState]:
        """Put zeros in the place of keys and values that rows lack whose segment is yet to begin: they are not used."""
        known = next((state.short_term.key_value for state in states if state.short_term.key_value), None)
        return [replace(state, short_term=state.short_term.fill(known)) for state in states]

    def is_settled(self, state: LayerState) -> bool:
        """Tell whether the next segments are alike; without a memory nothing is kept."""
        return self.long_range is None or super().is_settled(state)

    def read_by_content(
        self, x: Hidden, rows: Chosen, vectors: Float[Tensor, "some n hidden"]
    ) -> Float[Tensor, "some length hidden"]:
        """Read `vectors` as x would by content alone, with x and the layer's projections held constant."""
        reader = self._reader()
        constants = {name: parameter.detach() for name, parameter in reader.named_parameters()}
        return functional_call(reader, constants, (x[rows].detach(), vectors))


class _ContentReader(nn.Module):
    """Reader of vectors by content alone."""

    def __init__(self, family: Family, attention: nn.Module, num_heads: int) -> None:
        super().__init__()
        self.family, self.attention, self.num_heads = family, attention, num_heads

    def forward(self, x: Hidden, vectors: Float[Tensor, "batch n hidden"]) -> Hidden:
        queries = split_heads(self.family.queries(self.attention, x), self.num_heads)
        key, value = self.family.key_values(self.attention, vectors)
        return join_heads(F.scaled_dot_product_attention(queries, key, value, enable_gqa=True))


@contextmanager
def _note_output(module: nn.Module) -> Iterator[list[Tensor]]:
    """Note what a module returns to this thread while this lasts."""
    noted, own = list[Tensor](), get_ident()

    def note(_module: nn.Module, _inputs: tuple[Any, ...], output: Tensor) -> None:
        if get_ident() == own:
            noted.append(output)

    handle = module.register_forward_hook(note)
    try:
        yield noted
    finally:
        handle.remove()


@dataclass
class _SegmentCache:
    """Cache of one attention: keys and values that come before the tokens, and those of a segment's earlier parts."""

    extra: KeyValue | None
    own: KeyValue | None  # then with the tokens' as well
    room: int | None = None  # of a part: for so many tokens

    def update(
        self, key: Heads, value: Heads, *_: Any, **__: Any
    ) -> tuple[Float[Tensor, "b h keys d"], Float[Tensor, "b h keys d"]]:
        # Keys lie in memory as another library's attention takes them, a row a key.
        if self.room:
            before = self.own or KeyValue(key[:, :, :0].mT, value[:, :, :0])
            key, value = append(before.key.mT, key, 2, self.room), append(before.value, value, 2, self.room)
        self.own = KeyValue(key.mT, value)
        if self.extra is None:
            return key, value
        return torch.cat([self.extra.key.mT, key], 2), torch.cat([self.extra.value, value], 2)


def _mask_keys(x: Hidden, extra: ExtraKeys | None, recent: ShortTermState) -> Float[Tensor, "b 1 length keys"] | None:
    """Mask extra keys and earlier tokens that are not a row's own, and later tokens; None: one token sees all keys."""
    length = x.shape[1]
    if length == 1 and recent.filled is None and (extra is None or extra.filled is None):
        return None
    own = [] if extra is None else [mark_own(extra.vectors, extra.filled)]
    before = torch.cat([*own, mark_own(recent.hidden, recent.filled)], 1)
    before = torch.ones_like(before, device=x.device) if before.all() else send(before, x.device)
    causal = torch.ones(length, length, dtype=torch.bool, device=x.device).tril()
    seen = torch.cat([before[:, None].expand(-1, length, -1), causal.expand(len(x), -1, -1)], 2)
    return x.new_zeros(seen.shape).masked_fill(~seen, -torch.inf)[:, None]


class Graft(SegmentModel):
    """Another library's decoder, `base`, with a memory in each layer."""

    def __init__(self, config: Gpt2ModelConfig, base: nn.Module, family: Family) -> None:
        super().__init__()
        self.config, self.base, self.family = config, cast("Any", base), family
        grafted = [GraftedLayer(config, family, base, index) for index in range(len(self.layers))]
        self.blocks = nn.ModuleList(grafted)
        for layer in grafted:
            if layer.long_range is not None:
                layer.long_range.initialise_graft(config.initial_std, len(grafted))
                if config.start == "base":
                    layer.long_range.silence()

    @property
    def layers(self) -> list[nn.Module]:
        """List the layers of the decoder."""
        return list(self.family.layers(self.base))

    @property
    def _is_only_causal(self) -> bool:
        """Tell whether attention is torch's and masked by causality alone: its library looks for more on the device."""
        named = getattr(self.base.config, "_attn_implementation", None)
        return named == "sdpa" and getattr(self.family, "only_causal", False)

    def load_decoder(self, source: SegmentModel | Path) -> None:
        """Copy the decoder's weights from another graft, or read those of a Hugging Face folder; memories stay."""
        if isinstance(source, Path):
            self.family.load(self.base, source)
        else:
            self.base.load_state_dict(cast("Graft", source).base.state_dict())

    def forward(
        self,
        tokens: Int[Tensor, "batch length"],
        state: State,
        positions: None = None,
        wanted: int | None = None,
        part: Part = WHOLE,
    ) -> Output:
        """Predict the token after each of the last `wanted` of at most `segment_length` ones per stream; None: all.

        part: of the segment that the tokens are; the state is the one that the parts before it returned.
        """
        length, places = tokens.shape[1], None
        if not part.begins:
            before = state[0].short_term
            known = send(visible(before.hidden, before.filled), tokens.device)
            places = known[:, None] + torch.arange(length, device=tokens.device)
        causal = tokens.new_zeros(1, 1, 1, 1, dtype=torch.float32) if self._is_only_causal else None
        memories = LayerStates(state, list(state), [{} for _ in state], part, causal)
        options = {"position_ids": places, "attention_mask": causal, "use_cache": False, "memories": memories}
        hidden = self.base.base_model(tokens, **options).last_hidden_state
        hidden = hidden[:, length - (length if wanted is None else wanted) :]
        softmax = Softmax(self.base.get_output_embeddings().weight)
        return Output(hidden, softmax, tuple(memories.after), sum_losses(memories.losses))

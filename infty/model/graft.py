"""Graft memories on another library's decoder, layer by layer (section 4.2): Z = Z_attention + Z_LTM (M9).

Each term has its own output projection; both use the queries of the layer's attention. The decoder stays the object it
was: only the `forward` of its attentions is replaced by that of a `GraftedLayer`, which calls the original unless the
decoder is called with `memories`. The five methods of a `Family` say how its decoders name and project their parts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from infty.memory.contract import ExtraKeys, Hidden, Losses, Rows
from infty.memory.equations import join_heads, split_heads
from infty.memory.rows import visible
from infty.model.config import Gpt2ModelConfig
from infty.model.interface import Output, SegmentModel, State, sum_losses
from infty.model.memory_layer import LayerState, MemoryLayer
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

    def key_values(self, attention: nn.Module, x: Hidden) -> tuple[Heads, Heads]:
        """Make an attention's keys and values of vectors that have no position in the segment."""
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


class GraftedLayer(MemoryLayer):
    """Memory beside one attention of another library's decoder; takes in its input, normed, of the last segment."""

    def __init__(self, config: Gpt2ModelConfig, family: Family, attention: nn.Module, index: int) -> None:
        super().__init__()
        self.long_range = config.long_range.build() if config.long_range else None
        self.index = index
        self.original = attention.forward  # before it is replaced; its parameters stay the decoder's
        self.queries = partial(family.queries, attention)
        self.key_values = partial(family.key_values, attention)
        self._reader = partial(_ContentReader, family, attention, config.num_heads)
        attention.forward = self.forward

    def forward(
        self, hidden_states: Hidden, *args: Any, memories: LayerStates | None = None, **options: Any
    ) -> tuple[Hidden, Any]:
        """Compute the attention's output, with what the memory reads. TypeError for another memory's state."""
        # In the place of the attention's own forward, whose weights are returned unchanged.
        if memories is None:
            return self.original(hidden_states, *args, **options)
        memory, before = self.long_range, memories.before[self.index]
        if memory is None and before.long_range is None:
            return self.original(hidden_states, *args, **options)
        evicted, owners, recent = before.short_term.split(0)

        # The memory takes in what was evicted and then is read; its extra keys precede those of attention.
        queries = self.queries(hidden_states) if memory is not None and memory.reads else hidden_states
        attend = partial(self._read_by_content, hidden_states)
        extra, far, state, losses = self.recall(queries, hidden_states, before.long_range, evicted, owners, attend)
        if extra is not None:
            options = {**options, **self._put_before_tokens(extra, hidden_states, options)}
        near, weights = self.original(hidden_states, *args, **options)

        # Without a short-term memory, this segment is evicted at the next one.
        memories.after[self.index] = LayerState(recent.append(hidden_states.detach(), None), state)
        memories.losses[self.index] = losses
        return self.mix(near, far), weights

    def _put_before_tokens(self, extra: ExtraKeys, x: Hidden, options: dict[str, Any]) -> dict[str, Any]:
        """Make options that put extra keys before the segment's; all tokens of a row see those that are its own."""
        count, length = extra.vectors.shape[1], x.shape[1]
        own = torch.arange(count, device=x.device) >= count - visible(extra.vectors, extra.filled)[:, None]
        causal = torch.ones(length, length, dtype=torch.bool, device=x.device).tril()
        seen = torch.cat([own[:, None].expand(-1, length, -1), causal.expand(len(x), -1, -1)], 2)
        mask = x.new_zeros(seen.shape).masked_fill(~seen, -torch.inf)[:, None]
        name = "cache" if "cache" in options else "past_key_values"  # its name in older versions
        return {"attention_mask": mask, name: _Before(*self.key_values(extra.vectors))}

    def _read_by_content(
        self, x: Hidden, rows: Rows | slice, vectors: Float[Tensor, "some n hidden"]
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


@dataclass(frozen=True)
class _Before:
    """Cache of an attention with given keys and values, which it takes for those of earlier tokens."""

    key: Heads
    value: Heads

    def update(
        self, key: Heads, value: Heads, *_: Any, **__: Any
    ) -> tuple[Float[Tensor, "b h keys d"], Float[Tensor, "b h keys d"]]:
        return torch.cat([self.key, key], 2), torch.cat([self.value, value], 2)


class Graft(SegmentModel):
    """Another library's decoder, `base`, with a memory in each layer."""

    def __init__(self, config: Gpt2ModelConfig, base: nn.Module, family: Family) -> None:
        super().__init__()
        self.config, self.base, self.family = config, cast("Any", base), family
        grafted = [GraftedLayer(config, family, family.attention(layer), i) for i, layer in enumerate(self.layers)]
        self.blocks = nn.ModuleList(grafted)
        for layer in grafted:
            if layer.long_range is not None:
                layer.long_range.initialise_graft(config.initial_std, len(grafted))

    @property
    def layers(self) -> list[nn.Module]:
        """List the layers of the decoder."""
        return list(self.family.layers(self.base))

    def load_decoder(self, source: SegmentModel | Path) -> None:
        """Copy the decoder's weights from another graft, or read those of a Hugging Face folder; memories stay."""
        if isinstance(source, Path):
            self.family.load(self.base, source)
        else:
            self.base.load_state_dict(cast("Graft", source).base.state_dict())

    def forward(
        self, tokens: Int[Tensor, "batch length"], state: State, positions: None = None, wanted: int | None = None
    ) -> Output:
        """Predict the token after each of the last `wanted` of at most `segment_length` ones per stream; None: all."""
        length = tokens.shape[1]
        memories = LayerStates(state, list(state), [{} for _ in state])
        hidden = self.base.base_model(tokens, use_cache=False, memories=memories).last_hidden_state
        hidden = hidden[:, length - (length if wanted is None else wanted) :]
        softmax = Softmax(self.base.get_output_embeddings().weight)
        return Output(hidden, softmax, tuple(memories.after), sum_losses(memories.losses))

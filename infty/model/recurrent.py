"""Carry memory tokens from segment to segment through the whole decoder: RMT (Bulatov et al. 2022, arXiv 2207.06881).

A segment is read as [m memory tokens, segment, the m tokens once more]: all see the first, the last see all, and what
the last layer makes of the last is the memory of the next segment. It wraps the decoder and is no memory of a layer.
What to write is learnt by the segments that read it alone: `training.gradient_segments` of 2 at least.

Departure: a memory token is what was written plus a learnt vector, which stands alone as long as nothing was.
"""

from dataclasses import dataclass, replace
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from infty.memory.contract import PerRow
from infty.memory.equations import Hidden
from infty.memory.summary import SummaryMemory, SummaryState
from infty.model.config import DecoderConfig
from infty.model.decoder import Decoder
from infty.model.interface import Output, State
from infty.model.memory_layer import LayerState, MemoryLayer, Part
from infty.model.relative_attention import Positions

Written = Float[Tensor, "batch tokens hidden"]


@dataclass(frozen=True)
class TokenState(SummaryState):
    """What the last segment of each stream wrote (Bulatov et al. 2022)."""

    written: Written


class TokenMemory(SummaryMemory[TokenState, TokenState]):
    """Memory tokens, and the learnt vectors that they begin as (Bulatov et al. 2022)."""

    state_type = TokenState

    def __init__(self, count: int, hidden_size: int) -> None:
        super().__init__()
        self.initial = nn.Parameter(torch.empty(count, hidden_size))

    def initial_state(self, batch: int, seeds: PerRow | None = None) -> TokenState:
        """Make the state of `batch` streams before anything was written. `seeds` are unused."""
        return TokenState(self.initial.new_zeros(batch, *self.initial.shape))

    def summarise(self, x: Hidden) -> TokenState:
        """Take what a segment wrote as it is."""
        return TokenState(x)

    def join(self, state: TokenState, part: TokenState) -> TokenState:
        """Put it in the place of what the segment before wrote."""
        return part


class MemoryTokens(MemoryLayer):
    """Place of the memory tokens among a model's layers, before the first one (Bulatov et al. 2022)."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.segment_length, self.short_term_length = config.segment_length, 0
        self.long_range = TokenMemory(config.memory_tokens or 0, config.hidden_size)

    @property
    def memory(self) -> TokenMemory:
        """Get what keeps the tokens."""
        return cast("TokenMemory", self.long_range)

    def show(self, state: LayerState) -> Written:
        """Make the tokens that a segment reads, of what is known or what a knock-out leaves of it."""
        self._refuse_another(state.long_range)
        return cast("TokenState", self._knock_out(state.long_range)).written + self.memory.initial

    def write(self, state: LayerState, written: Hidden) -> LayerState:
        """Keep what a segment wrote."""
        known = cast("TokenState", state.long_range)
        return replace(state, long_range=self.memory.advance_in_turn(known, written, 1)[0])


class RecurrentDecoder(Decoder):
    """A decoder that reads and writes memory tokens around each segment (Bulatov et al. 2022)."""

    def __init__(self, config: DecoderConfig, vocab_size: int) -> None:
        super().__init__(config, vocab_size)
        self.tokens = MemoryTokens(config)
        nn.init.normal_(self.tokens.memory.initial, std=config.initial_std)

    @property
    def memory_layers(self) -> list[MemoryLayer]:
        """List the place of the memory tokens, then the layers."""
        return [self.tokens, *super().memory_layers]

    @property
    def layers(self) -> list[nn.Module]:
        """List the layers of the decoder: the units of activation checkpointing."""
        return list(self.blocks)

    def is_settled(self, state: State) -> bool:
        """Tell that segments are never read at once: each begins with what the one before wrote."""
        return False

    def read(self, x: Hidden, state: State, positions: tuple[Positions, ...] | None, wanted: int, part: Part) -> Output:
        """Run all layers on the memory tokens, the segment, and the tokens once more; keep what is written there."""
        first, *others = state
        memory = self.tokens.show(first)
        written = memory.shape[1] * part.ends
        x = torch.cat([*[memory] * part.begins, x, *[memory] * part.ends], 1)
        output = super().read(x, tuple(others), positions, wanted + written, part)
        if part.ends:
            first = self.tokens.write(first, output.hidden[:, wanted:])
        return replace(output, hidden=output.hidden[:, :wanted], state=(first, *output.state))

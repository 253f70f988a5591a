"""Read the ∞-former's signal by a continuous softmax in the place of a Gaussian (M17).

p(t) = exp(s(t)) / ∫ exp(s(t)) dt over [0, 1] with s(t) = K(t)·q/√d and K(t) = W_K X̄(t), and z = W_O ∫ p(t) V(t) dt with
V(t) = W_V X̄(t). Source: ∞-Video (Santos et al. 2025, arXiv 2501.19098), successor of the ∞-former: a Gaussian has one
peak, this as many as its score has. The integrals are sums over evenly spaced points, of which the ends count half.

What is kept, how it is updated and sticky sampling are the ∞-former's. There is no KL term, and no w_μ, w_σ.
"""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from infty.memory import equations
from infty.memory.contract import Losses, Wanted
from infty.memory.equations import Heads, Hidden, Points, Weight
from infty.memory.longterm import LongTermMemory
from infty.memory.longterm_config import LongTermMemoryConfig
from infty.memory.longterm_state import LongTermState
from infty.memory.precision import full_precision
from infty.memory.transforms import holds

POINTS = 256  # of the sum, unless the configuration says


@dataclass(frozen=True)
class SampledSignal:
    """Keys K(t) and values V(t) of a signal at the points of the sum (M17)."""

    keys: Heads
    values: Heads


class ContinuousSoftmaxMemory(LongTermMemory):
    """The ∞-former's signal, read under p(t) ∝ exp(s(t)) (M17)."""

    def __init__(self, config: LongTermMemoryConfig) -> None:
        super().__init__(config)
        del self.mean, self.variance
        self.num_points = config.num_points or POINTS

    def parameter_groups(self) -> dict[str, list[Float[Tensor, "..."]]]:
        """Name the parameters of the gate, of the scores (W_K), and of what is read (W_V, W_O)."""
        gate: list[Tensor] = list(self.gate.parameters()) if self.gate else []
        return {"gate": gate, "where": [self.key.weight], "what": [self.value.weight, self.output.weight]}

    def place_points(self) -> Points:
        """Place the points of the sum (M17): evenly on [0, 1], its ends included."""
        like = self.key.weight
        return torch.linspace(0, 1, self.num_points, dtype=like.dtype, device=like.device)

    def prepare(self, state: LongTermState) -> SampledSignal:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Compute keys and values at the points, once for a segment that is read in parts (M17)."""
        with full_precision(self.key.weight.device):
            signal = equations.evaluate_signal(state.coefficients, self.basis.evaluate(self.place_points()))
            heads = self.config.num_heads
            return SampledSignal(*(equations.split_heads(part(signal), heads) for part in (self.key, self.value)))

    def read(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        queries: Wanted,
        x: Hidden,
        state: LongTermState,
        projection: Weight | None = None,
        prepared: SampledSignal | None = None,
    ) -> tuple[Wanted | None, LongTermState, Losses]:
        """Read the signal with the layer's queries (M17), and keep where all of x looked for sticky sampling."""
        if not holds(state.updates.any(), unknown=True):
            return None, state, {}
        wanted, known = queries.shape[1], prepared or self.prepare(state)
        # The sum's weights are added to the scores: exp(s + ln w) = w exp(s).
        ends = torch.zeros(self.num_points, dtype=queries.dtype, device=queries.device)
        ends[0] = ends[-1] = -math.log(2)
        if self.config.sticky is not None:
            return self._read_and_note(queries if projection is None else x @ projection.T, wanted, state, known, ends)
        if not wanted:
            return None, state, {}
        heads = equations.split_heads(queries, self.config.num_heads)
        read = F.scaled_dot_product_attention(heads, known.keys, known.values, attn_mask=ends[None])
        return self.output(equations.join_heads(read)), state, {}

    def _read_and_note(
        self, queries: Hidden, wanted: int, state: LongTermState, known: SampledSignal, ends: Points
    ) -> tuple[Wanted | None, LongTermState, Losses]:
        """Read for the last queries, and note how all of them shared their attention among the bins (M11)."""
        heads = equations.split_heads(queries, self.config.num_heads)
        shares = (heads @ known.keys.mT / heads.shape[-1] ** 0.5 + ends).softmax(-1)  # b h q points
        bins = (self.place_points() * self.config.num_bins).long().clamp(max=self.config.num_bins - 1)
        mass = shares.detach().mean((1, 2))
        histogram = torch.zeros_like(state.histogram).index_add(1, bins, mass.to(state.histogram.dtype))
        after = replace(state, histogram=histogram)
        read = equations.join_heads(shares[:, :, shares.shape[2] - wanted :] @ known.values)
        return self.output(read) if wanted else None, after, {}

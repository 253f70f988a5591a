"""Continuous attention: a Gaussian density over the past instead of a weight on each token (section 3.1)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

HeadQueries = Float[Tensor, "batch heads query"]


@dataclass(frozen=True)
class AttentionDensity:
    """p = N(μ, σ²) over positions of the memory (section 3.1), one for each head and query.

    Positions are shares of [0, 1]: 0 is the oldest end, 1 the newest. mean: μ. variance: σ², in their square.
    """

    mean: HeadQueries
    variance: HeadQueries

    @classmethod
    def from_scores(cls, mean: HeadQueries, variance: HeadQueries, floor: float) -> "AttentionDensity":
        """μ = sigmoid(·), σ² = softplus(·) held above `floor`, of the two scores of each head and query."""
        return cls(torch.sigmoid(mean), F.softplus(variance).clamp(min=floor))

    def kl_to_prior(self, prior_std: float, prior_mean: float | None = None) -> HeadQueries:
        """KL(N(μ, σ²) ‖ N(μ0, σ0²)) in nats (section 3.4); `prior_mean = None` sets μ0 = μ: only the width counts.

        ½(σ²/σ0² − ln(σ²/σ0²) − 1), plus ½(μ − μ0)²/σ0² where the prior has a mean of its own.
        """
        ratio = self.variance / prior_std**2
        kl = 0.5 * (ratio - ratio.log() - 1)
        return kl if prior_mean is None else kl + 0.5 * ((self.mean - prior_mean) / prior_std).square()

    def last(self, count: int) -> "AttentionDensity":
        """The densities of the last `count` queries."""
        start = self.mean.shape[-1] - count
        return AttentionDensity(self.mean[..., start:], self.variance[..., start:])

    def detach(self) -> "AttentionDensity":
        """This density without its graph."""
        return AttentionDensity(self.mean.detach(), self.variance.detach())

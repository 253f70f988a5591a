"""Hold continuous attention: a Gaussian density over the past instead of a weight on each token (M8, M10)."""

from dataclasses import dataclass

from infty.memory import equations
from infty.memory.equations import HeadQueries


@dataclass(frozen=True)
class AttentionDensity:
    """Densities p = N(μ, σ²) over positions of the memory (M8), one for each head and query.

    Positions are shares of [0, 1]: 0 is the oldest end, 1 the newest. mean: μ. variance: σ², in their square.
    """

    mean: HeadQueries
    variance: HeadQueries

    @classmethod
    def from_scores(cls, mean: HeadQueries, variance: HeadQueries, floor: float) -> "AttentionDensity":
        """Make μ = sigmoid(·) and σ² = softplus(·), at least `floor`, of the two scores of each head and query (M8)."""
        return cls(*equations.shape_density(mean, variance, floor))

    def kl_to_prior(self, prior_std: float, prior_mean: float | None = None) -> HeadQueries:
        """Measure KL(N(μ, σ²) ‖ N(μ0, σ0²)) in nats (M10); `prior_mean = None` sets μ0 = μ: only the width counts."""
        return equations.kl_to_prior(self.mean, self.variance, prior_std, prior_mean)

    def last(self, count: int) -> "AttentionDensity":
        """Take the densities of the last `count` queries."""
        start = self.mean.shape[-1] - count
        return AttentionDensity(self.mean[..., start:], self.variance[..., start:])

    def detach(self) -> "AttentionDensity":
        """Cut the density from its graph."""
        return AttentionDensity(self.mean.detach(), self.variance.detach())

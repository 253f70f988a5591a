"""Write the paper's equations literally, (M1) to (M12) of `infty.memory`: read this first.

All are pure functions of tensors. The modules call a function of this page if it is quick enough; if not, a test holds
their quicker form to it. Letters: N basis functions, M samples of the past, L vectors of a segment, E hidden size, H
heads, d = E/H, n any number of positions. Positions are shares of [0, 1]: 0 is the oldest end, 1 the newest.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from infty.memory.precision import widen

Broadcast = Float[Tensor, "..."]
Points = Float[Tensor, " n"]  # in [0, 1], or beyond it in a margin
Centers = Float[Tensor, " basis"]  # μ̃_j of each basis function
Widths = Float[Tensor, " basis"]  # σ̃_j of each basis function
Hidden = Float[Tensor, "batch length hidden"]
Coefficients = Float[Tensor, "*batch basis hidden"]
Weight = Float[Tensor, "hidden hidden"]  # out × in, as torch keeps it: x W of the paper is x @ weight.T
Heads = Float[Tensor, "batch heads n d"]
HeadQueries = Float[Tensor, "batch heads query"]
Histogram = Float[Tensor, "batch bins"]


# (M1), (M2): the basis


def normal_density(x: Broadcast, mean: Broadcast, variance: Broadcast) -> Broadcast:
    """Evaluate N(x; mean, variance), the normalised Gaussian density behind (M1) and (M2); shapes broadcast."""
    return torch.exp(-0.5 * (x - mean).square() / variance) / torch.sqrt(2 * math.pi * variance)


def place_basis(num_basis: int, widths: tuple[float, ...]) -> tuple[Centers, Widths]:
    """Place the basis functions of (M1): centres μ̃ spaced evenly on [0, 1], each with every width σ̃, in float64.

    The order is centre-major: with two widths j = 2·centre + width.
    """
    centers = torch.linspace(0, 1, num_basis // len(widths), dtype=torch.float64)
    return centers.repeat_interleave(len(widths)), torch.tensor(widths, dtype=torch.float64).repeat(len(centers))


def evaluate_basis(
    positions: Float[Tensor, "*batch n"], centers: Centers, widths: Widths
) -> Float[Tensor, "*batch n basis"]:
    """Evaluate ψ_j(t) = N(t; μ̃_j, σ̃_j²) (M1)."""
    return normal_density(positions[..., None], centers, widths.square())


def expect_basis(
    mean: Float[Tensor, "*batch query"], variance: Float[Tensor, "*batch query"], centers: Centers, widths: Widths
) -> Float[Tensor, "*batch query basis"]:
    """Expect the basis under a density: E_{t ~ N(μ, σ²)}[ψ_j(t)] = N(μ; μ̃_j, σ² + σ̃_j²) (M2)."""
    return normal_density(mean[..., None], centers, variance[..., None] + widths.square())


# (M3), (M4): the fit, and the positions that it is made at


def ridge_operator(
    design: Float[Tensor, "basis n"], margin: Float[Tensor, "basis beyond"], penalty: float
) -> Float[Tensor, "basis n"]:
    """Solve G = (F Fᵀ + λI)⁻¹ F (M3), so that B = G X is the ridge regression of X.

    design: F = [ψ(t_1) … ψ(t_n)]. margin: the same matrix of points outside [0, 1], where the target is zero: it
    counts in F Fᵀ and drops out of G X. Wants float64: F Fᵀ has a condition number of 10⁶ and more.
    """
    gram = design @ design.T + margin @ margin.T + penalty * torch.eye(len(design), dtype=design.dtype)
    return torch.cholesky_solve(design, torch.linalg.cholesky(gram))


@dataclass(frozen=True)
class Grid:
    """Positions of a fit (M4): of its targets (`inside`), and of zeros beyond both ends of [0, 1] (`margin`)."""

    inside: Points
    margin: Float[Tensor, " beyond"]


def first_grid(length: int) -> Grid:
    """Place the first fit (M4): t_i = (i − ½)/L, and L/2 cells of the same width beyond each end."""
    cells = (torch.arange(length, dtype=torch.float64) + 0.5) / length
    beyond = cells[: length // 2]
    return Grid(cells, torch.cat([-beyond, 1 + beyond]))


def sample_grid(num_samples: int) -> Points:
    """Place the fixed points s_i = i/M at which the old signal is read before it is contracted (M4)."""
    return torch.arange(1, num_samples + 1, dtype=torch.float64) / num_samples


def refit_grid(num_samples: int, length: int, contraction: float) -> Grid:
    """Place a refit (M4): M old samples at τ·i/M in (0, τ], L new vectors at τ + (1 − τ)·i/L in (τ, 1].

    The margin is what lies outside [0, 1] of 2(L + M) evenly spaced points from −½ + δ to 1½ − δ, δ = 1/(2L + M).
    """
    old = contraction * sample_grid(num_samples)
    new = contraction + (1 - contraction) * sample_grid(length)
    shift = 1 / (2 * length + num_samples)
    around = torch.linspace(-0.5 + shift, 1.5 - shift, 2 * (length + num_samples), dtype=torch.float64)
    return Grid(torch.cat([old, new]), around[(around < 0) | (around > 1)])


# (M5), (M6), (M7): the signal, and how it takes in what left the short-term memory


def evaluate_signal(
    coefficients: Coefficients, values: Float[Tensor, "*#batch n basis"]
) -> Float[Tensor, "*batch n hidden"]:
    """Evaluate the signal X̄(t) = Bᵀψ(t) (M5) at the positions whose basis values ψ(t) are given."""
    return values @ coefficients


def update(
    coefficients: Coefficients, values: Float[Tensor, "*#batch samples basis"], x: Hidden, operator: Broadcast
) -> Coefficients:
    """Contract, append and refit: B_new = G [X̄_old(s_1) … X̄_old(s_M); x̃_1 … x̃_L] (M6).

    values: ψ(s) at the M points that the old signal is read at. operator: G of the refit, basis × (samples + length).
    """
    return operator @ torch.cat([evaluate_signal(coefficients, values), x], -2)


def smooth(x: Hidden, weight: Float[Tensor, "hidden hidden 3"], bias: Float[Tensor, " hidden"] | None) -> Hidden:
    """Smooth what enters by a gate over a vector and its two neighbours: x̃ = sigmoid(Conv1d(x)) ⊙ x (M7)."""
    return torch.sigmoid(F.conv1d(x.mT, weight, bias, padding=1)).mT * x


# (M8), (M9), (M10): reading it


@dataclass(frozen=True)
class AttentionDensity:
    """Densities p = N(μ, σ²) over the positions of a memory (M8), one for each head and query."""

    mean: HeadQueries  # μ, a share of [0, 1]
    variance: HeadQueries  # σ², in the square of such shares

    def last(self, count: int) -> "AttentionDensity":
        """Take the densities of the last `count` queries (M8)."""
        start = self.mean.shape[-1] - count
        return AttentionDensity(self.mean[..., start:], self.variance[..., start:])


def split_heads(x: Float[Tensor, "batch n hidden"], num_heads: int) -> Heads:
    """Give each head its slice of the hidden size (M8)."""
    return x.unflatten(-1, (num_heads, x.shape[-1] // num_heads)).transpose(1, 2)


def join_heads(x: Heads) -> Float[Tensor, "batch n hidden"]:
    """Put the heads' slices side by side again (M9)."""
    return x.transpose(1, 2).flatten(-2)


def score_queries(
    queries: Float[Tensor, "batch query hidden"], coefficients: Coefficients, key: Weight, num_heads: int
) -> Float[Tensor, "batch heads query basis"]:
    """Score each basis function for each query: K q/√d with K = B W_K (M8)."""
    q, k = split_heads(queries, num_heads), split_heads(coefficients @ key.T, num_heads)
    return q @ k.mT / q.shape[-1] ** 0.5


def shape_density(mean_score: HeadQueries, variance_score: HeadQueries, floor: float) -> AttentionDensity:
    """Turn the scores w_μ·(K q)/√d and w_σ·(K q)/√d into μ = sigmoid(…) and σ² = softplus(…), at least `floor` (M8)."""
    return AttentionDensity(torch.sigmoid(mean_score), F.softplus(variance_score).clamp(min=floor))


def read_context(
    expected: Float[Tensor, "batch heads query basis"], coefficients: Coefficients, value: Weight, output: Weight
) -> Float[Tensor, "batch query hidden"]:
    """Read z_h = V_hᵀ E_p[ψ] with V = B W_V, join the heads, and project by W_O (M9). expected: E_p[ψ] (M2)."""
    return join_heads(expected @ split_heads(coefficients @ value.T, expected.shape[1])) @ output.T


def kl_to_prior(density: AttentionDensity, prior_std: float, prior_mean: float | None = None) -> HeadQueries:
    """Measure KL(N(μ, σ²) ‖ N(μ0, σ0²)) in nats (M10); `prior_mean = None` sets μ0 = μ: only the width counts.

    Near the prior the terms cancel: in float32 nothing would be left of them at σ = σ0 (1 + 10⁻⁴).
    """
    ratio = widen(density.variance) / prior_std**2
    kl = (0.5 * (ratio - ratio.log() - 1)).clamp(min=0).to(density.variance.dtype)
    return kl if prior_mean is None else kl + 0.5 * ((density.mean - prior_mean) / prior_std).square()


# (M11): sticky memories


def attention_histogram(density: AttentionDensity, num_bins: int) -> Histogram:
    """Distribute the attention of all heads and queries over D equal bins of [0, 1]; rows sum to 1 (M11).

    A bin's mass is a difference of the normal CDF at its edges; what falls outside [0, 1] is left out.
    """
    edges = torch.linspace(0, 1, num_bins + 1, dtype=density.mean.dtype, device=density.mean.device)
    cdf = torch.special.ndtr((edges - density.mean[..., None]) / density.variance.sqrt()[..., None])  # b h q edges
    mass = cdf.diff().sum(dim=(1, 2))  # batch bins
    return mass / mass.sum(-1, keepdim=True)


def sample_histogram(
    histogram: Histogram, draws: Float[Tensor, "batch n"], within_bin: Literal["uniform", "left"]
) -> Float[Tensor, "batch n"]:
    """Draw locations in [0, 1] from the histogram, in ascending order: its inverse CDF at sorted draws (M11).

    Departure: by default a sample is uniform in its bin. The released code puts it at the left edge: many coincide.
    """
    # The bin of each draw, by the heights that the cumulated mass reaches.
    mass = histogram.double()
    upper = mass.cumsum(-1)
    heights = draws.to(mass).sort(-1).values * upper[:, -1:]
    bins = torch.searchsorted(upper, heights, right=True).clamp(max=mass.shape[-1] - 1)

    # A place within the bin.
    if within_bin == "left":
        offset = torch.zeros_like(heights)
    else:
        chosen = mass.gather(-1, bins)
        offset = ((heights - (upper.gather(-1, bins) - chosen)) / chosen).clamp(0, 1)
    return ((bins + offset) / mass.shape[-1]).to(histogram.dtype)


# (M12): the Compressive Transformer's memory


def compress(
    x: Hidden, weight: Float[Tensor, "hidden hidden rate"], bias: Float[Tensor, " hidden"]
) -> Float[Tensor, "batch slots hidden"]:
    """Compress windows of c vectors to a slot each: s_i = b + Σ_j W_j x_{c·i + j} (M12).

    If c does not divide the length, the oldest window begins with zeros.
    """
    rate = weight.shape[-1]
    windows = F.pad(x, (0, 0, -x.shape[1] % rate, 0)).unflatten(1, (-1, rate))  # b slots c hidden
    return torch.einsum("bsch,ohc->bso", windows, weight) + bias


def reconstruction_loss(
    attend: Callable[[Hidden], Hidden], evicted: Hidden, slots: Float[Tensor, "batch slots hidden"]
) -> Float[Tensor, ""]:
    """Measure the mean squared difference of what is read from the slots and from the evicted vectors (M12).

    attend: maps vectors to what a segment reads from them; its own parameters and queries must be constants, so that
    this loss trains the compressor only.
    """
    return F.mse_loss(attend(slots), attend(evicted).detach())

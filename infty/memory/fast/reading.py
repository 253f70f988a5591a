"""Score queries without the N scores (M8), and read a signal (M9), a tile of basis values at a time.

Scoring: w·(K q) = ((w B) W_K)·q, so that two vectors per head, for w_μ and w_σ, replace the N scores of a query.

Reading: z = E_{t ~ N(μ, σ²)}[X̄(t)] = Σ_j a_j v_j with a_j = N(μ; μ̃_j, σ² + σ̃_j²). A query has one variance
s = σ² + σ̃² for each width, and one distance δ = μ − μ̃ to each centre, so for width and centre

    a = exp(−δ²/2s − ½ ln 2πs).

With the gradient g of z and T_j = a_j g·v_j, all gradients but that of v are moments of T over the centres of a width:

    ∂/∂μ = −Σ_σ̃ ΣTδ / s,    ∂/∂σ² = Σ_σ̃ (ΣTδ² / s − ΣT) / 2s,    ∂/∂v_j = a_j g.

`equations.expect_basis(μ, σ², μ̃, σ̃) @ values` is the same written plainly.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from infty.memory.equations import AttentionDensity, Weight, expect_basis, split_heads
from infty.memory.fast.reduced_basis import ReducedBasis
from infty.memory.fast.tiling import items_at_once, pieces
from infty.memory.transforms import is_transformed

QUERIES = 1024  # rows of a tile
Summaries = Float[Tensor, "batch heads 2 d"]
FEW = 8  # queries that are read without tiles, if that is asked for
Counts = tuple[int, ...]  # of chosen basis functions, by width


@dataclass(frozen=True)
class Projections:
    """What reading makes of a state alone (M8, M9): the same for all queries until the next update."""

    summaries: Summaries  # ((w B) W_K)/√d
    values: Float[Tensor, "batch heads chosen d"]  # B W_V, of the chosen basis functions


def summarise(
    coefficients: Float[Tensor, "batch basis hidden"], key: Weight, weights: Float[Tensor, "2 basis"], num_heads: int
) -> Summaries:
    """Compute ((w B) W_K)/√d for w_μ and w_σ: what the scores of any query are made of (M8)."""
    both = torch.bmm(weights.expand(coefficients.shape[0], -1, -1), coefficients)  # b 2 hidden
    summaries = split_heads(F.linear(both, key), num_heads)  # b h 2 d
    return summaries / summaries.shape[-1] ** 0.5


def score_queries(
    queries: Float[Tensor, "batch query hidden"], summaries: Summaries, projection: Weight | None = None
) -> Float[Tensor, "batch heads query 2"]:
    """Compute w_μ·(K q)/√d and w_σ·(K q)/√d of each head and query, with K = B W_K (M8).

    projection: W_Q, if `queries` are x, not projected yet: ((w B) W_K W_Qᵀ)·x does without the queries.
    """
    # Equal to equations.score_queries and a sum by w_μ, w_σ:
    # tests/memory/test_longterm.py::test_reading_equals_the_plain_equations_in_value_and_gradient; with a projection:
    # tests/memory/test_longterm.py::test_queries_that_are_yet_to_be_projected_look_at_the_same_places.
    num_heads, q = summaries.shape[1], queries.to(summaries.dtype)
    if projection is None:
        return split_heads(q, num_heads) @ summaries.mT
    summaries = summaries @ projection.unflatten(0, (num_heads, -1))  # b h 2 hidden
    return (q @ summaries.flatten(1, 2).mT).unflatten(-1, (-1, 2)).transpose(1, 2)


def read_signal(
    values: Float[Tensor, "batch heads chosen d"],
    density: AttentionDensity,
    basis: ReducedBasis,
    *,
    plainly: bool = False,
) -> Float[Tensor, "batch heads query d"]:
    """Read E_p[X̄(t)] for each head and query from signals that have the coefficients `values`, V of (M9).

    plainly: a few queries are read without tiles, which is quicker and rounds otherwise.
    """
    # Equal to equations.read_context before W_O, in value and gradient:
    # tests/memory/test_longterm.py::test_reading_equals_the_plain_equations_in_value_and_gradient.
    # Inside vmap, grad or torch.export it is this page's plain form, which they can rewrite.
    centers, widths = (basis.round_exact(name, values) for name in ("centers", "widths"))
    if (plainly and density.mean.shape[-1] <= FEW) or is_transformed():
        each = torch.cat([width.expand(count) for width, count in zip(widths, basis.counts, strict=True)])
        return expect_basis(density.mean, density.variance, centers, each) @ values
    mean, variance = density.mean.flatten(0, 1), density.variance.flatten(0, 1)  # i q, with i = batch · heads
    read = _Read.apply(values.flatten(0, 1), mean, variance, centers, widths, basis.counts)
    return read.unflatten(0, values.shape[:2])


class _Read(torch.autograd.Function):
    """Sizes: i items (batch · heads), q queries, w widths, k centres of all widths together, d head size."""

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, mean: Tensor, variance: Tensor, centers: Tensor, widths: Tensor, counts: Counts
    ) -> Tensor:
        total = variance + widths.square()[:, None, None]  # w i q: s
        read, kept = values.new_empty(*mean.shape, values.shape[-1]), []
        for items, rows in _tiles(mean, values):
            weights = _weights(mean[items, rows], total[:, items, rows], centers.split(counts))
            read[items, rows] = torch.bmm(weights.mT, values[items])
            if any(ctx.needs_input_grad):
                kept.append(weights)
        ctx.counts = counts
        ctx.save_for_backward(values, mean, total, centers, *kept)
        return read

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        values, mean, total, centers, *kept = ctx.saved_tensors
        to_values = torch.zeros_like(values)
        zeroth, first, second = (torch.empty_like(total) for _ in range(3))  # ΣT, ΣTδ, ΣTδ²
        for (items, rows), weights in zip(_tiles(mean, values), kept, strict=True):
            g, part = gradient[items, rows], to_values[items]
            torch.baddbmm(part, weights, g, out=part)
            t = torch.bmm(values[items], g.mT).mul_(weights)
            delta = mean[items, None, rows] - centers[:, None]
            for width, (part, distance) in enumerate(
                zip(t.split(ctx.counts, 1), delta.split(ctx.counts, 1), strict=True)
            ):
                zeroth[width, items, rows] = part.sum(1)
                first[width, items, rows] = part.mul_(distance).sum(1)
                second[width, items, rows] = part.mul_(distance).sum(1)
        to_mean = -(first / total).sum(0)
        to_variance = ((second / total - zeroth) / (2 * total)).sum(0)
        return to_values, to_mean, to_variance, None, None, None


def _tiles(mean: Tensor, values: Tensor) -> Iterator[tuple[slice, slice]]:
    """Yield items and queries of each tile."""
    items, queries = mean.shape
    for rows in pieces(queries, QUERIES):
        for part in pieces(items, items_at_once((rows.stop - rows.start) * values.shape[1], mean.device)):
            yield part, rows


def _weights(mean: Tensor, total: Tensor, groups: Sequence[Tensor]) -> Tensor:
    """Compute a of a tile, i k q, from μ (i q), s (w i q) and the centres of each width (M2).

    Queries come last: they are many, so that what is done to each number runs along them, and so do sums over centres.
    """
    counts = [len(centers) for centers in groups]
    exponents = mean.new_empty(len(mean), sum(counts), mean.shape[1])
    for part, centers, s in zip(exponents.split(counts, 1), groups, total[:, :, None], strict=True):
        torch.sub(mean[:, None], centers[:, None], out=part)
        part.square_().mul_(-0.5 * math.log2(math.e) / s).sub_(0.5 * torch.log2(2 * math.pi * s))
    return exponents.exp2_()  # torch's exp takes four times as long

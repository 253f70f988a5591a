"""Reading a signal under a Gaussian density (section 3.2), without ever holding all basis values of all queries.

z = E_{t ~ N(μ, σ²)}[X̄(t)] = Σ_j a_j v_j with a_j = N(μ; μ̃_j, σ² + σ̃_j²). A query has one variance s = σ² + σ̃² for
each width, and one distance δ = μ − μ̃ to each centre, so for width and centre

    a = exp(−δ²/2s − ½ ln 2πs).

With the gradient g of z and T_j = a_j g·v_j, all gradients but that of v are moments of T over the centres:

    ∂/∂μ = −Σ_σ̃ ΣTδ / s,    ∂/∂σ² = Σ_σ̃ (ΣTδ² / s − ΣT) / 2s,    ∂/∂v_j = a_j g.

`basis.expectation(μ, σ²) @ values` is the same written plainly.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from infty.memory.attention import AttentionDensity
from infty.memory.basis import GaussianBasis
from infty.memory.blocks import items_at_once, pieces

QUERIES = 512  # rows of a block


def read_signal(
    values: Float[Tensor, "batch heads basis d"], density: AttentionDensity, basis: GaussianBasis
) -> Float[Tensor, "batch heads query d"]:
    """E_p[X̄(t)] of each head and query, where a head's signal has the coefficients `values`."""
    by_width = values.unflatten(2, (-1, len(basis.widths))).transpose(2, 3).flatten(2, 3).flatten(0, 1)  # i n d
    mean, variance = density.mean.flatten(0, 1), density.variance.flatten(0, 1)  # i q, with i = batch · heads
    read = _Read.apply(by_width, mean, variance, basis.centers, basis.widths)
    return read.unflatten(0, values.shape[:2])


class _Read(torch.autograd.Function):
    """Sizes: i items (batch · heads), q queries, w widths, c centres, n = w · c, d head size."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, mean: Tensor, variance: Tensor, centers: Tensor, widths: Tensor) -> Tensor:
        total = variance[..., None] + widths.square()  # i q w: s
        read = values.new_empty(*mean.shape, values.shape[-1])
        for block in _blocks(mean, values):
            items, _ = block
            read[block] = torch.bmm(_weights(mean[block][..., None] - centers, total[block]), values[items])
        ctx.save_for_backward(values, mean, total, centers)
        return read

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        values, mean, total, centers = ctx.saved_tensors
        to_values = torch.zeros_like(values.mT, memory_format=torch.contiguous_format)  # products are quicker so
        moments = total.new_empty(3, *total.shape)  # ΣT, ΣTδ, ΣTδ²
        for block in _blocks(mean, values):
            items, g = block[0], gradient[block]
            delta = mean[block][..., None] - centers  # i q c
            weights = _weights(delta, total[block])
            to_values[items] += torch.bmm(g.mT, weights)
            t = torch.bmm(g, values[items].mT).mul_(weights).unflatten(-1, (-1, len(centers)))  # i q w c
            moments[0][block] = t.sum(-1)
            moments[1][block] = t.mul_(delta[..., None, :]).sum(-1)
            moments[2][block] = t.mul_(delta[..., None, :]).sum(-1)
        zeroth, first, second = moments
        to_mean = -(first / total).sum(-1)
        to_variance = ((second / total - zeroth) / (2 * total)).sum(-1)
        return to_values.mT, to_mean, to_variance, None, None


def _blocks(mean: Tensor, values: Tensor) -> Iterator[tuple[slice, slice]]:
    """Items and queries of each block."""
    items, queries = mean.shape
    for rows in pieces(queries, QUERIES):
        for part in pieces(items, items_at_once((rows.stop - rows.start) * values.shape[1], mean.device)):
            yield part, rows


def _weights(delta: Tensor, total: Tensor) -> Tensor:
    """i q n: a of a block, from δ (i q c) and s (i q w). As a power of 2: torch's exp takes four times as long."""
    exponents = delta.square()[..., None, :] * (-0.5 * math.log2(math.e) / total)[..., None]  # i q w c
    exponents -= 0.5 * torch.log2(2 * math.pi * total)[..., None]
    return exponents.exp2_().flatten(-2)

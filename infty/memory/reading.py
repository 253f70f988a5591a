"""Reading a signal under a Gaussian density (section 3.2), without ever holding all basis values of all queries.

z = E_{t ~ N(μ, σ²)}[X̄(t)] = Σ_j N(μ; μ̃_j, σ² + σ̃_j²) v_j. A query has one variance s = σ² + σ̃² a width, so

    z = Σ_σ̃ (2πs)^−½ Σ_c exp(−δ²/2s) v_c,    δ = μ − μ̃_c,

and all that a centre costs is δ² (shared by the widths), a product and an exponential. With the gradient g of z
and T_c = (2πs)^−½ exp(−δ²/2s) g·v_c, the gradients are moments of T over the centres:

    ∂/∂μ = −Σ_σ̃ ΣTδ / s,    ∂/∂σ² = Σ_σ̃ (ΣTδ² / s − ΣT) / 2s,    ∂/∂v_c = (2πs)^−½ exp(−δ²/2s) g.

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

QUERIES = 256  # rows of a block


def read_signal(
    values: Float[Tensor, "batch heads basis d"], density: AttentionDensity, basis: GaussianBasis
) -> Float[Tensor, "batch heads query d"]:
    """E_p[X̄(t)] of each head and query, where a head's signal has the coefficients `values`."""
    by_width = values.unflatten(2, (-1, len(basis.widths))).transpose(2, 3).flatten(0, 1)  # i w c d
    mean, variance = density.mean.flatten(0, 1), density.variance.flatten(0, 1)  # i q, with i = batch · heads
    read = _Read.apply(by_width, mean, variance, basis.centers, basis.widths)
    return read.unflatten(0, values.shape[:2])


class _Read(torch.autograd.Function):
    """Sizes: i items (batch · heads), q queries, w widths, c centres, d head size."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, mean: Tensor, variance: Tensor, centers: Tensor, widths: Tensor) -> Tensor:
        total = (variance[..., None] + widths.square()).movedim(-1, 0)  # w i q: s of each width
        reads = values.new_empty(*total.shape, values.shape[-1])  # w i q d: each width's part of z
        for items, rows in _blocks(mean, centers):
            distance = (mean[items, rows, None] - centers).square_()
            for w, s in enumerate(total[:, items, rows, None]):
                reads[w, items, rows] = (distance * (-0.5 / s)).exp_() @ values[items, w]
        reads *= (2 * math.pi * total).rsqrt()[..., None]
        ctx.save_for_backward(values, mean, centers, total, reads)
        return reads.sum(0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        values, mean, centers, total, reads = ctx.saved_tensors
        moments = total.new_empty(3, *total.shape)  # ΣT, ΣTδ, ΣTδ²
        moments[0] = (reads * gradient).sum(-1)
        weighted = gradient * (2 * math.pi * total).rsqrt()[..., None]  # w i q d
        to_values = torch.zeros_like(values.mT)  # i w d c: products are quicker this way round
        for items, rows in _blocks(mean, centers):
            delta = mean[items, rows, None] - centers
            distance = delta.square()
            for w, s in enumerate(total[:, items, rows, None]):
                weights, g = (distance * (-0.5 / s)).exp_(), weighted[w, items, rows]
                to_values[items, w] += g.mT @ weights
                t = (g @ values[items, w].mT).mul_(weights).mul_(delta)
                moments[1, w, items, rows] = t.sum(-1)
                moments[2, w, items, rows] = t.mul_(delta).sum(-1)
        zeroth, first, second = moments
        to_mean = -(first / total).sum(0)
        to_variance = ((second / total - zeroth) / (2 * total)).sum(0)
        return to_values.mT, to_mean, to_variance, None, None


def _blocks(mean: Tensor, centers: Tensor) -> Iterator[tuple[slice, slice]]:
    """Items and queries of each block."""
    items, queries = mean.shape
    for rows in pieces(queries, QUERIES):
        for part in pieces(items, items_at_once((rows.stop - rows.start) * len(centers), mean.device)):
            yield part, rows

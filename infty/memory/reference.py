"""The memory written plainly, equation by equation (sections 3.1 to 3.4): what fast paths in `longterm` are held to.

Every sample, score and basis value is made in full. Nothing but tests and `infty bench` calls this.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from infty.memory.attention import AttentionDensity
from infty.memory.basis import GaussianBasis
from infty.memory.longterm import Hidden, LongTermMemory, LongTermState, Queries
from infty.memory.signal import evaluate_signal, refit_grid, ridge_operator, sample_grid

Broadcast = Float[Tensor, "..."]
Points = Float[Tensor, " samples"] | Float[Tensor, "batch samples"]


def normal_density(x: Broadcast, mean: Broadcast, variance: Broadcast) -> Broadcast:
    """N(x; mean, variance), the normalised Gaussian density of section 3.1; shapes broadcast."""
    return torch.exp(-0.5 * (x - mean).square() / variance) / torch.sqrt(2 * math.pi * variance)


def smooth(memory: LongTermMemory, x: Hidden) -> Hidden:
    """x̃ = sigmoid(Conv1d(x)) ⊙ x (section 3.4); without a gate x itself."""
    return torch.sigmoid(memory.gate(x.mT)).mT * x if memory.gate else x


def update(
    memory: LongTermMemory, state: LongTermState, evicted: Hidden, points: Points | None = None
) -> Float[Tensor, "batch basis hidden"]:
    """New coefficients B = G [X̄_old(s_1 … s_M); x̃] of streams that were all updated before (section 3.2).

    `points`: s, `samples` or `batch samples`; by default the fixed ones, s_i = i/M. G is solved here and now.
    """
    c = memory.config
    basis = GaussianBasis(c.num_basis, c.widths).double()
    operator = ridge_operator(basis, refit_grid(c.num_samples, c.segment_length, c.contraction), c.ridge_penalty)
    points = sample_grid(c.num_samples) if points is None else points
    samples = evaluate_signal(state.coefficients, memory.basis.evaluate(points.to(evicted)))
    return operator.to(evicted) @ torch.cat([samples, smooth(memory, evicted)], 1)


def attend(memory: LongTermMemory, queries: Queries, state: LongTermState) -> tuple[Queries, AttentionDensity]:
    """Context and density by way of K = B W_K, V = B W_V and all N scores of every query (section 3.1)."""
    heads = memory.config.num_heads
    key = memory.key(state.coefficients).unflatten(-1, (heads, -1)).transpose(1, 2)  # b h n d
    value = memory.value(state.coefficients).unflatten(-1, (heads, -1)).transpose(1, 2)  # b h n d
    q = queries.unflatten(-1, (heads, -1)).transpose(1, 2)  # b h q d
    scores = q @ key.mT / q.shape[-1] ** 0.5  # b h q n
    mean = torch.sigmoid(memory.mean(scores))  # b h q 1
    variance = F.softplus(memory.variance(scores)).clamp(min=memory.config.variance_floor)  # b h q 1
    centers = memory.basis.centers.repeat_interleave(len(memory.basis.widths))  # n
    widths = memory.basis.widths.repeat(len(memory.basis.centers))  # n
    expected = normal_density(mean, centers, variance + widths.square())  # b h q n
    context = memory.output((expected @ value).transpose(1, 2).flatten(-2))
    return context, AttentionDensity(mean[..., 0], variance[..., 0])

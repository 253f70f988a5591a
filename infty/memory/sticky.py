"""Sample regions that were attended to more densely when the past is contracted: sticky memories (M11).

Randomness is a pure function of numbers in the memory's state, so a stream draws the same locations
whatever batch it is in, and a resumed run draws what the uninterrupted one would have.
"""

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from infty.memory.contract import PerRow
from infty.memory.equations import AttentionDensity, Histogram

UNKNOWN = (
    "a sticky memory draws where it samples from each stream's seed, which vmap and torch.export can't follow: give "
    "the streams as one batch, or use a memory that is not sticky"
)


class StickyConfig(BaseModel):
    """Constants of sampling the old signal in proportion to the attention that the previous segment paid (M11)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    num_bins: int = Field(default=128, gt=0, description="histogram bins D (section 3.3)")
    within_bin: Literal["uniform", "left"] = Field(
        default="uniform", description="place of a sample in its bin; 'left' is the released code's"
    )


def attention_histogram(density: AttentionDensity, num_bins: int) -> Histogram:
    """Compute the share of attention in each of D equal bins of [0, 1], over all heads and queries; sums to 1 (M11)."""
    # Equal to equations.attention_histogram: tests/memory/test_sticky.py::test_histogram_equals_the_plain_equation.
    # The normal CDF is (1 + erf((t − μ) / √2σ)) / 2; the 1 and the ½ cancel in a share of differences.
    edges = torch.linspace(0, 1, num_bins + 1, dtype=density.mean.dtype, device=density.mean.device)
    scale = (2 * density.variance).rsqrt()[..., None]
    standardised = torch.addcmul(-density.mean[..., None] * scale, edges, scale)  # b h q edges: (t − μ) / √2σ
    mass = standardised.erf_().sum(dim=(1, 2)).diff()  # batch bins
    return mass / mass.sum(-1, keepdim=True)


def uniform_draws(seeds: PerRow, updates: PerRow, count: int) -> Float[Tensor, "batch n"]:
    """Draw numbers in [0, 1) for the samples of (M11): `count` per row, float64, decided by its seed and updates.

    Raises:
        RuntimeError: vmap or torch.export rewrites this, and can't.
    """
    if seeds.is_meta or not len(seeds):
        return torch.empty(len(seeds), count, dtype=torch.float64, device=seeds.device)
    if torch.compiler.is_exporting():
        raise RuntimeError(UNKNOWN)
    try:
        known = zip(seeds.tolist(), updates.tolist(), strict=True)
        rows = [torch.Generator().manual_seed(_mix(seed, update)) for seed, update in known]
        return torch.stack([torch.rand(count, generator=row, dtype=torch.float64) for row in rows])
    except RuntimeError as fault:
        raise RuntimeError(UNKNOWN) from fault


def _mix(seed: int, update: int) -> int:
    """Mix two numbers to one of 64 well-spread bits (the finaliser of splitmix64), so that near seeds draw unalike."""
    x = (seed * 0x9E3779B97F4A7C15 + update * 0xD1B54A32D192ED03 + 0x632BE59BD9B4E019) % 2**64
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) % 2**64
    return x ^ (x >> 31)

"""Configure the ∞-former's long-term memory (M1 to M11, M17)."""

from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field, model_validator

from infty.memory.contract import MemoryConfig
from infty.memory.sticky import StickyConfig

if TYPE_CHECKING:
    from infty.memory.longterm import LongTermMemory


class LongTermMemoryConfig(MemoryConfig):
    """Sizes and constants of one long-term memory (M1 to M11). Positions and widths are shares of [0, 1]."""

    kind: Literal["long_term"] = Field(default="long_term", description="the ∞-former's memory (section 3)")
    hidden_size: int = Field(gt=0, description="E")
    num_heads: int = Field(gt=0, description="H")
    segment_length: int = Field(gt=0, description="L, vectors taken in by one update")
    num_basis: int = Field(gt=0, description="basis functions N (section 3.1)")
    num_samples: int = Field(gt=0, description="samples M of the old signal in a refit (section 3.2)")
    contraction: float = Field(default=0.75, gt=0, lt=1, description="τ, what the past is contracted to (section 3.2)")
    widths: tuple[float, ...] = Field(
        default=(0.01, 0.05), strict=False, min_length=1, description="σ̃, of each centre (section 4)"
    )
    ridge_penalty: float = Field(default=1.0, gt=0, description="λ of the ridge regression (section 3.1)")
    prior_std: float = Field(default=0.05, gt=0, description="σ0 of the KL regulariser (section 3.4)")
    prior_mean: float | None = Field(
        default=None, description="μ0; null: each density's own mean; -1: the released GPT-2 code"
    )
    kl_weight: float = Field(default=1e-6, ge=0, description="λ_KL (section 3.4)")
    variance_floor: float = Field(default=1e-6, gt=0, description="least σ² of an attention density")
    gate: bool = Field(
        default=True,
        exclude_if=bool,  # so that runs from before there was a choice are still the same runs
        description="whether a gate smooths what enters; false: it enters as it is",
    )
    sticky: StickyConfig | None = Field(
        default=None, description="sticky sampling (section 3.3); null: fixed points i/M"
    )
    density: Literal["gaussian", "softmax"] = Field(
        default="gaussian",
        exclude_if=lambda kind: kind == "gaussian",  # as of `gate`
        description="where a query looks: a Gaussian (section 3.1), or a continuous softmax (arXiv 2501.19098)",
    )
    num_points: int | None = Field(
        default=None,
        gt=1,
        exclude_if=lambda points: points is None,
        description="points that a continuous softmax is summed over; null: 256",
    )

    @model_validator(mode="after")
    def _sizes_fit(self) -> "LongTermMemoryConfig":
        if self.hidden_size % self.num_heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}")
        if self.num_basis % len(self.widths):
            raise ValueError(f"num_basis {self.num_basis} is not a multiple of the {len(self.widths)} widths")
        if min(self.widths) <= 0:
            raise ValueError("widths must be above 0")
        if self.num_points is not None and self.density == "gaussian":
            raise ValueError("num_points are those of density: softmax; leave them out")
        return self

    def build(self) -> "LongTermMemory":
        """Build the memory of these sizes."""
        # They import this module, for what they are configured with.
        from infty.memory.continuous_softmax import ContinuousSoftmaxMemory
        from infty.memory.longterm import LongTermMemory

        return LongTermMemory(self) if self.density == "gaussian" else ContinuousSoftmaxMemory(self)

    @property
    def slots(self) -> int:
        """Count the vectors kept of the past: the coefficients."""
        return self.num_basis

    @property
    def state_bytes(self) -> int:
        """Count the bytes of one stream's coefficients and histogram in float32, count of updates and seed."""
        return torch.float32.itemsize * (self.num_basis * self.hidden_size + self.num_bins) + 2 * torch.int64.itemsize

    @property
    def num_bins(self) -> int:
        """Count the numbers of the histogram that a state keeps for sticky sampling (M11), 0 without."""
        return self.sticky.num_bins if self.sticky else 0

    @property
    def auxiliary_weights(self) -> dict[str, float]:
        """Name the KL regulariser, with its weight (M10); a continuous softmax has none."""
        return {"kl": self.kl_weight} if self.density == "gaussian" else {}

"""Evaluate ψ(t), the Gaussian basis functions that a signal is made of (M1)."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from infty.memory.precision import HOST, ExactConstants


class GaussianBasis(ExactConstants):
    """Basis functions (M1) as `equations.place_basis` places them. ValueError if the widths do not share N evenly."""

    def __init__(self, num_basis: int, widths: tuple[float, ...]) -> None:
        super().__init__()
        if num_basis % len(widths):
            raise ValueError(f"num_basis = {num_basis} is not a multiple of the {len(widths)} widths")
        exact = {"dtype": torch.float64, "device": HOST}
        self.register_exact("centers", torch.linspace(0, 1, num_basis // len(widths), **exact))
        self.register_exact("widths", torch.tensor(widths, **exact))

    @property
    def centers(self) -> Float[Tensor, " centers"]:
        """Get the centres μ̃ (M1)."""
        return self.round_exact("centers")

    @property
    def widths(self) -> Float[Tensor, " widths"]:
        """Get the widths σ̃ (M1)."""
        return self.round_exact("widths")

    def evaluate(self, positions: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n basis"]:
        """Evaluate ψ(t) at each position t, a share of [0, 1] (M1)."""
        # Equal to equations.evaluate_basis: tests/memory/test_basis.py::test_values_equal_the_plain_equation.
        # Only a power of 2, quicker than one of e, is taken per function; logarithm and quotient are taken per width.
        variance = self.round_exact("widths", positions).square()
        distance = (positions[..., None] - self.round_exact("centers", positions)).square()  # … n centers
        exponent = distance[..., None] * (-0.5 * math.log2(math.e) / variance)
        return (exponent - 0.5 * torch.log2(2 * math.pi * variance)).exp2().flatten(-2)

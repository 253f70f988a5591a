"""Evaluate ψ(t), the Gaussian basis functions that a signal is made of (M1), and their expectation (M2)."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from infty.memory.precision import HOST, ExactBuffers


class GaussianBasis(ExactBuffers):
    """Basis functions (M1) as `equations.place_basis` places them. ValueError if the widths do not share N evenly."""

    centers: Float[Tensor, " centers"]
    widths: Float[Tensor, " widths"]

    def __init__(self, num_basis: int, widths: tuple[float, ...]) -> None:
        super().__init__()
        if num_basis % len(widths):
            raise ValueError(f"num_basis = {num_basis} is not a multiple of the {len(widths)} widths")
        exact = {"dtype": torch.float64, "device": HOST}
        self.register_exact("centers", torch.linspace(0, 1, num_basis // len(widths), **exact))
        self.register_exact("widths", torch.tensor(widths, **exact))

    def evaluate(self, positions: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n basis"]:
        """Evaluate ψ(t) at each position t, a share of [0, 1] (M1)."""
        return self.expectation(positions, torch.zeros_like(positions))

    def expectation(
        self, mean: Float[Tensor, "*batch query"], variance: Float[Tensor, "*batch query"]
    ) -> Float[Tensor, "*batch query basis"]:
        """Compute E_{t ~ N(μ, σ²)}[ψ_j(t)] = N(μ; μ̃_j, σ² + σ̃_j²) (M2).

        Equal to `equations.expect_basis`; held by
        tests/memory/test_basis.py::test_values_and_expectations_equal_the_plain_equations.
        Only a power of 2, quicker than one of e, is taken per function; logarithm and quotient are taken per width.
        """
        total = variance[..., None] + self.widths.square()  # ... query widths
        distance = (mean[..., None] - self.centers).square()  # ... query centers
        exponent = distance[..., :, None] * (-0.5 * math.log2(math.e) / total)[..., None, :]
        return (exponent - 0.5 * torch.log2(2 * math.pi * total)[..., None, :]).exp2().flatten(-2)

"""Apply a fixed linear map (M6) as two thin matrices, if that is less work than one.

A refit's matrix has far fewer directions than rows: the new vectors fill the last 1 − τ of the interval, and no basis
function is narrower than the least width σ̃, so that of 512 rows 76 directions are left.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from infty.memory.precision import ExactConstants

NEGLIGIBLE = 1e-12  # of the largest singular value: below it a fit in float64 is rounding

Factors = tuple[Float[Tensor, "_ _"], ...]


def factorise(matrix: Float[Tensor, "rows columns"]) -> Factors:
    """Factorise a map of (M6): (U, V) with U V = `matrix` to rounding, or (`matrix`,) if that is no larger."""
    # The product of the factors is equal to the matrix, G of equations.ridge_operator for one:
    # tests/memory/fast/test_low_rank.py::test_the_papers_refits_lose_nothing.
    left, sizes, right = torch.linalg.svd(matrix, full_matrices=False)
    rank = int((sizes > NEGLIGIBLE * sizes[0]).sum())
    if rank * sum(matrix.shape) >= matrix.numel():
        return (matrix,)
    return left[:, :rank] * sizes[:rank], right[:rank]


def spectral_radius(factors: Factors) -> float:
    """Compute the largest absolute eigenvalue of a square map, A of (M6): of U V that of V U, which is smaller."""
    last, *others = reversed(factors)
    return torch.linalg.eigvals(last @ others[0] if others else last).abs().max().item()


class LinearMap(ExactConstants):
    """Map of (M6) as the product of its factors, in float64, rounded to the module's precision: `map @ x` is M x."""

    # The sum of two such products is equal to equations.update:
    # tests/memory/test_longterm.py::test_the_linear_update_equals_sampling_and_refitting.

    def __init__(self, factors: Factors) -> None:
        super().__init__()
        for place, factor in enumerate(factors):
            self.register_exact(f"factor{place}", factor)

    def __matmul__(self, x: Float[Tensor, "*batch columns hidden"]) -> Float[Tensor, "*batch rows hidden"]:
        """Apply the map to x (M6), in the notation of the paper."""
        return self(x)

    def forward(self, x: Float[Tensor, "*batch columns hidden"]) -> Float[Tensor, "*batch rows hidden"]:
        """Apply the map to x, the last factor first (M6)."""
        for name in reversed(self._exact):
            x = self.round_exact(name, x) @ x
        return x

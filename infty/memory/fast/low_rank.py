"""A fixed linear map as two thin matrices, where that is less work than one.

A refit's matrix has far fewer directions than rows: the new vectors fill the last 1 − τ of the interval, and no basis
function is narrower than the least width σ̃, so that of 512 rows 76 directions are left (section 3.2).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from infty.memory.precision import ExactBuffers

NEGLIGIBLE = 1e-12  # of the largest singular value: below it a fit in float64 is rounding

Factors = tuple[Float[Tensor, "_ _"], ...]


def factorise(matrix: Float[Tensor, "rows columns"]) -> Factors:
    """(U, V) with U V = `matrix` to rounding, by its singular values; (`matrix`,) where these hold no fewer numbers."""
    left, sizes, right = torch.linalg.svd(matrix, full_matrices=False)
    rank = int((sizes > NEGLIGIBLE * sizes[0]).sum())
    if rank * sum(matrix.shape) >= matrix.numel():
        return (matrix,)
    return left[:, :rank] * sizes[:rank], right[:rank]


def spectral_radius(factors: Factors) -> float:
    """Largest absolute eigenvalue of a square map: of U V that of V U, which is smaller."""
    last, *others = reversed(factors)
    return torch.linalg.eigvals(last @ others[0] if others else last).abs().max().item()


class LinearMap(ExactBuffers):
    """M as the product of its factors, which are float64 and rounded to the module's precision: `map @ x` is M x."""

    def __init__(self, factors: Factors) -> None:
        super().__init__()
        for place, factor in enumerate(factors):
            self.register_exact(f"factor{place}", factor)

    def __matmul__(self, x: Float[Tensor, "*batch columns hidden"]) -> Float[Tensor, "*batch rows hidden"]:
        """M x, the last factor first."""
        for factor in reversed(list(self.buffers())):
            x = factor @ x
        return x

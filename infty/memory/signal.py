"""Make the matrices of the fits (M3, M4, M6); they depend on positions alone.

They are made once, in float64: the fit's matrix has a condition number of 10⁶ and more, too much for float32.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from infty.memory.basis import GaussianBasis
from infty.memory.equations import Grid, first_grid, refit_grid, ridge_operator, sample_grid
from infty.memory.fast.low_rank import Factors, factorise, spectral_radius
from infty.memory.precision import HOST
from infty.memory.rows import draw_fixed_numbers

PIECE_POINTS, PIECE_PENALTY = 8, 1e-2  # of a shuffle: points that each piece is read at, and λ of the fit


def solve_fit(basis: GaussianBasis, grid: Grid, penalty: float) -> Float[Tensor, "basis n"]:
    """Solve the ridge regression (M3) of a basis at the positions of a grid (M4): B = G X for targets X inside."""
    return ridge_operator(basis.evaluate(grid.inside).T, basis.evaluate(grid.margin).T, penalty)


@dataclass(frozen=True)
class Operators:
    """Fixed linear maps of a memory's fits (M3) and refits (M6), in float64, each as its factors.

    growth: the spectral radius of A, the factor per update in the long run; from 1 on a memory grows without bound. A
    is far from normal, so that a few updates can look different.
    """

    first: Factors  # B = first · x̃, the first fit
    contract: Factors  # G₁, the first M columns of the refit's G: what it makes of the old samples
    append: Factors  # C = G₂, its other columns: what it makes of the L new vectors
    carry: Factors  # A = G₁ Ψ(s) at the fixed points s, Ψ(s): M × N
    growth: float


@lru_cache(maxsize=8)
def make_operators(
    num_basis: int, widths: tuple[float, ...], length: int, num_samples: int, contraction: float, penalty: float
) -> Operators:
    """Solve both fits of a memory (M3) on their grids (M4). A model's layers share them."""
    with HOST:
        basis = GaussianBasis(num_basis, widths).double()
        first = solve_fit(basis, first_grid(length), penalty)
        refit = solve_fit(basis, refit_grid(num_samples, length, contraction), penalty)
        contract, append = refit.split([num_samples, length], dim=1)
        carry = contract @ basis.evaluate(sample_grid(num_samples))
    first, contract, append, carry = map(factorise, (first, contract, append, carry))
    return Operators(first, contract, append, carry, spectral_radius(carry))


@lru_cache(maxsize=4)
def shuffle_pieces(num_basis: int, widths: tuple[float, ...]) -> Float[Tensor, "basis basis"]:
    """Map coefficients to those of the same signal cut into equal pieces, one per centre, in another order (M5).

    The signal is read at PIECE_POINTS places per piece and fitted again. That alone changes white noise by 6 % of its
    norm at N = 64 and by 2 % at 512, what has a mean by less. In another order pieces meet in jumps too sharp for the
    basis: means of pieces of white noise correlate by only 0.94 to 0.73 with those that were moved.
    """
    pieces = num_basis // len(widths)
    basis, grid = GaussianBasis(num_basis, widths).double(), first_grid(PIECE_POINTS * pieces)
    order = draw_fixed_numbers(pieces).argsort()[:, None] * PIECE_POINTS + torch.arange(PIECE_POINTS)
    return solve_fit(basis, grid, PIECE_PENALTY) @ basis.evaluate(grid.inside)[order.flatten()]

"""Make the constants of a signal X̄(t) = Bᵀψ(t) that is fitted to vectors at positions in [0, 1] (M3, M4, M6).

Everything here depends on positions alone, is made once, and is made in float64: the fit's matrix has
a condition number of 10⁶ and more, too much for float32.
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

    growth: the spectral radius of A. In the long run what is kept changes by this factor an update, so from 1 on it
    grows without bound. A few updates say little of it: A is far from normal, and most may stay for some.
    """

    first: Factors  # B = first · x̃, the first fit
    contract: Factors  # what the refit makes of the old samples, the first M columns of its G
    append: Factors  # C, what it makes of the L new vectors, the other columns
    carry: Factors  # A = contract · Ψ(s) at the fixed points s: old coefficients to new ones
    growth: float


@lru_cache(maxsize=8)
def make_operators(
    num_basis: int, widths: tuple[float, ...], length: int, num_samples: int, contraction: float, penalty: float
) -> Operators:
    """Solve both fits of a memory (M3) on their grids (M4). A model's layers share one geometry, so one is kept."""
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
    """Map coefficients of a signal to those of its pieces in another order, as many as there are centres (M5).

    The signal is read at PIECE_POINTS places per piece and fitted again. Without another order that alone changes white
    noise by 6 % of its norm at N = 64 and by 2 % at 512, what has a mean by less. In another order pieces meet in jumps
    that the basis is too wide for: means of pieces of white noise then correlate by 0.94 to 0.73 with what was moved.
    """
    pieces = num_basis // len(widths)
    basis, grid = GaussianBasis(num_basis, widths).double(), first_grid(PIECE_POINTS * pieces)
    order = draw_fixed_numbers(pieces).argsort()[:, None] * PIECE_POINTS + torch.arange(PIECE_POINTS)
    return solve_fit(basis, grid, PIECE_PENALTY) @ basis.evaluate(grid.inside)[order.flatten()]

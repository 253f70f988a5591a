"""X̄(t) = Bᵀψ(t): a signal of fixed size fitted to vectors at positions in [0, 1] (sections 3.1 and 3.2).

Everything here depends on positions alone, is made once, and is made in float64: the fit's matrix has
a condition number of 10⁶ and more, too much for float32.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from infty.memory.basis import GaussianBasis
from infty.memory.contract import draw_fixed_numbers
from infty.memory.fast.low_rank import Factors, factorise, spectral_radius
from infty.memory.precision import HOST

PIECE_POINTS, PIECE_PENALTY = 8, 1e-2  # where a signal is read in each piece, and λ of the fit, when it is shuffled
Points = Float[Tensor, " n"]  # in [0, 1], or beyond it in a margin


@dataclass(frozen=True)
class Grid:
    """Where a fit (section 3.1) sees targets (`inside`), and where zeros beyond both ends of [0, 1] (`margin`)."""

    inside: Float[Tensor, " n"]
    margin: Float[Tensor, " beyond"]


def first_grid(length: int) -> Grid:
    """Positions of the first fit (section 3.1): t_i = (i − ½)/L, and L/2 cells of the same width beyond each end."""
    cells = (torch.arange(length, dtype=torch.float64) + 0.5) / length
    beyond = cells[: length // 2]
    return Grid(cells, torch.cat([-beyond, 1 + beyond]))


def sample_grid(num_samples: int) -> Points:
    """Fixed points s_i = i/M at which the old signal is read before it is contracted (section 3.2)."""
    return torch.arange(1, num_samples + 1, dtype=torch.float64) / num_samples


def refit_grid(num_samples: int, length: int, contraction: float) -> Grid:
    """Positions of a refit (section 3.2): M old samples in (0, τ], L new vectors in (τ, 1].

    The margin are the points outside [0, 1] of an even grid of 2(L + M) points over [−½, 1½], moved
    inwards by 1/(2L + M) at both ends.
    """
    old = contraction * sample_grid(num_samples)
    new = contraction + (1 - contraction) * sample_grid(length)
    shift = 1 / (2 * length + num_samples)
    around = torch.linspace(-0.5 + shift, 1.5 - shift, 2 * (length + num_samples), dtype=torch.float64)
    return Grid(torch.cat([old, new]), around[(around < 0) | (around > 1)])


def design_matrix(basis: GaussianBasis, positions: Points) -> Float[Tensor, "basis n"]:
    """Design matrix F = [ψ(t_1) … ψ(t_n)] of the ridge regression (section 3.1)."""
    return basis.evaluate(positions).T


def ridge_operator(basis: GaussianBasis, grid: Grid, penalty: float) -> Float[Tensor, "basis n"]:
    """G = (F Fᵀ + λI)⁻¹ F (section 3.1), so that B = G X is the ridge regression of X at `grid.inside`.

    Targets in the margin are zero: their columns of F count in F Fᵀ and drop out of G X.
    """
    inside, margin = design_matrix(basis, grid.inside), design_matrix(basis, grid.margin)
    gram = inside @ inside.T + margin @ margin.T + penalty * torch.eye(len(inside), dtype=inside.dtype)
    return torch.cholesky_solve(inside, torch.linalg.cholesky(gram))


def evaluate_signal(
    coefficients: Float[Tensor, "*batch basis hidden"], values: Float[Tensor, "*#batch n basis"]
) -> Float[Tensor, "*batch n hidden"]:
    """The signal X̄(t) = Bᵀψ(t) (section 3.1) at the positions whose basis values ψ(t) are given."""
    return values @ coefficients


@dataclass(frozen=True)
class Operators:
    """The fixed linear maps of a memory (sections 3.1 and 3.2), in float64, each as its factors.

    first:    B = first · x̃, the first fit.
    contract: what the refit makes of the old samples, the first M columns of its G.
    append:   C, what it makes of the L new vectors, the other columns.
    carry:    A = contract · Ψ(s) at the fixed points s: old coefficients to new ones.
    growth:   the spectral radius of A. In the long run what is kept changes by this factor an update, so from 1 on it
              grows without bound. A few updates say little of it: A is far from normal, and most may stay for some.
    """

    first: Factors
    contract: Factors
    append: Factors
    carry: Factors
    growth: float


@lru_cache(maxsize=8)
def make_operators(
    num_basis: int, widths: tuple[float, ...], length: int, num_samples: int, contraction: float, penalty: float
) -> Operators:
    """Solve both fits of a memory (sections 3.1 and 3.2). A model's layers share one geometry, so one is kept."""
    with HOST:
        basis = GaussianBasis(num_basis, widths).double()
        first = ridge_operator(basis, first_grid(length), penalty)
        refit = ridge_operator(basis, refit_grid(num_samples, length, contraction), penalty)
        contract, append = refit.split([num_samples, length], dim=1)
        carry = contract @ basis.evaluate(sample_grid(num_samples))
    first, contract, append, carry = map(factorise, (first, contract, append, carry))
    return Operators(first, contract, append, carry, spectral_radius(carry))


@lru_cache(maxsize=4)
def shuffle_pieces(num_basis: int, widths: tuple[float, ...]) -> Float[Tensor, "basis basis"]:
    """Map coefficients of a signal to those of its pieces in another order, as many as there are centres (section 3.1).

    The signal is read at PIECE_POINTS places per piece and fitted again; that alone, without another order, changes it
    by 1 to 4 % (of its norm, at N from 64 to 512).
    """
    pieces = num_basis // len(widths)
    basis, grid = GaussianBasis(num_basis, widths).double(), first_grid(PIECE_POINTS * pieces)
    order = draw_fixed_numbers(pieces).argsort()[:, None] * PIECE_POINTS + torch.arange(PIECE_POINTS)
    return ridge_operator(basis, grid, PIECE_PENALTY) @ basis.evaluate(grid.inside)[order.flatten()]

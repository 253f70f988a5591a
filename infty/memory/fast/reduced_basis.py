"""Choose the fewest basis functions that all others are sums of, to read a signal with (M2).

Basis functions lie closer together than they are wide, so most of them say nothing of their own:
ψ_j = Σ_k T_kj ψ_k over K chosen ones, as nearly as float32 can tell. That holds on the whole line, hence under every
density too, E_p[ψ_j] = Σ_k T_kj E_p[ψ_k], and a signal with the coefficients B is one of the K with T B. Of 512
functions with the paper's widths 219 are chosen, of 1,024 it is 222: beyond that, reading costs no more with more.
"""

from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from infty.memory.basis import GaussianBasis
from infty.memory.equations import place_basis
from infty.memory.precision import HOST, ExactConstants

NEGLIGIBLE = 1e-8  # of the longest basis function: what is left of the others; float32 tells 6e-8
REACH, FINENESS = 8, 4  # a basis function is looked at to 8 of its widths, at 4 points a width


class ReducedBasis(ExactConstants):
    """Choice of K of a memory's N basis functions (M1), those of a width together."""

    # Its expectations, combined, are equal to equations.expect_basis, to 1e-8 of the greatest:
    # tests/memory/fast/test_reduced_basis.py::test_every_expectation_is_made_of_the_chosen_ones.
    # Reading the signal (M5) that has the coefficients T B is equal to equations.read_context, to 1e-7:
    # tests/memory/fast/test_reduced_basis.py::test_reading_equals_the_plain_equations_where_few_are_chosen.

    counts: tuple[int, ...]  # of the K by width

    def __init__(self, num_basis: int, widths: tuple[float, ...]) -> None:
        super().__init__()
        chosen, combine = _reduce(num_basis, widths)
        with HOST:
            centers, _ = place_basis(num_basis, widths)
        self.counts = tuple(sum(j % len(widths) == width for j in chosen) for width in range(len(widths)))
        self.register_exact("centers", centers[chosen])
        self.register_exact("widths", torch.tensor(widths, dtype=torch.float64, device=HOST))
        self.register_exact("combine", combine)

    @property
    def centers(self) -> Float[Tensor, " chosen"]:
        """Get the centres μ̃ of the K (M2)."""
        return self.round_exact("centers")

    @property
    def widths(self) -> Float[Tensor, " widths"]:
        """Get the widths σ̃ (M2)."""
        return self.round_exact("widths")

    @property
    def combine(self) -> Float[Tensor, "chosen basis"]:
        """Get T (M2), which makes all N of the K."""
        return self.round_exact("combine")


def farthest_columns(matrix: Float[Tensor, "rows columns"], tolerance: float) -> list[int]:
    """Choose columns (M2), each the farthest from the span of those before, while over `tolerance` of the longest."""
    # They are those of a pivoted QR: tests/memory/fast/test_reduced_basis.py::test_columns_are_those_of_a_pivoted_qr.
    rest, chosen = matrix.clone(), []
    limit = tolerance * rest.norm(dim=0).max()
    while len(chosen) < rest.shape[1]:
        lengths = rest.norm(dim=0)
        column = int(lengths.argmax())
        if lengths[column] <= limit:
            break
        direction = rest[:, column] / lengths[column]
        rest -= torch.outer(direction, direction @ rest)
        chosen.append(column)
    return chosen


@lru_cache(maxsize=8)
def _reduce(num_basis: int, widths: tuple[float, ...]) -> tuple[list[int], Float[Tensor, "chosen basis"]]:
    """Choose functions, in order, and solve for T in float64. Layers share it."""
    with HOST:
        basis = GaussianBasis(num_basis, widths).double()
        margin, step = REACH * max(widths), min(widths) / FINENESS
        design = basis.evaluate(torch.arange(-margin, 1 + margin, step, dtype=torch.float64))  # n basis
        chosen = sorted(farthest_columns(design, NEGLIGIBLE), key=lambda j: (j % len(widths), j))
        combine = torch.linalg.lstsq(design[:, chosen], design).solution
        combine[:, chosen] = torch.eye(len(chosen), dtype=torch.float64)
    return chosen, combine

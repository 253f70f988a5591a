"""A map as two thin matrices is the same map, and is thin only where that is less work."""

import math

import pytest
import torch

from infty.memory.basis import GaussianBasis
from infty.memory.equations import refit_grid
from infty.memory.fast.low_rank import LinearMap, factorise, spectral_radius
from infty.memory.signal import make_operators, solve_fit


def test_a_matrix_of_few_directions_becomes_two() -> None:
    matrix = torch.randn(31, 5, dtype=torch.float64) @ torch.randn(5, 23, dtype=torch.float64)
    left, right = factorise(matrix)
    assert (left.shape, right.shape) == ((31, 5), (5, 23))
    torch.testing.assert_close(left @ right, matrix, rtol=0, atol=1e-11)


@pytest.mark.parametrize("rank", [14, 23])
def test_a_matrix_that_would_not_get_smaller_stays(rank: int) -> None:
    """31 · 23 = 713 numbers; rank 14 would take 14 · (31 + 23) = 756."""
    matrix = torch.randn(31, rank, dtype=torch.float64) @ torch.randn(rank, 23, dtype=torch.float64)
    (whole,) = factorise(matrix)
    assert torch.equal(whole, matrix)


def test_a_zero_direction_is_no_direction() -> None:
    left, right = factorise(torch.ones(7, 11, dtype=torch.float64))
    assert left.shape == (7, 1)
    torch.testing.assert_close(left @ right, torch.ones(7, 11, dtype=torch.float64))


def test_maps_every_batch_item(float64: None) -> None:
    matrix = torch.randn(31, 2) @ torch.randn(2, 23)
    x = torch.randn(3, 23, 13)
    torch.testing.assert_close(LinearMap(factorise(matrix)) @ x, matrix @ x, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("num_basis", "length", "samples"), [(512, 1024, 512), (150, 150, 150)])
def test_the_papers_refits_lose_nothing(num_basis: int, length: int, samples: int) -> None:
    """New vectors at the published sizes: thin, and equal to 1e-12 of the largest direction."""
    operators = make_operators(num_basis, (0.01, 0.05), length, samples, 0.75, 1.0)
    basis = GaussianBasis(num_basis, (0.01, 0.05)).double()
    refit = solve_fit(basis, refit_grid(samples, length, 0.75), 1.0)[:, samples:]
    left, right = operators.append
    assert left.shape[1] * (num_basis + length) < 0.7 * num_basis * length
    assert torch.linalg.matrix_norm(left @ right - refit, 2) <= 1.1e-12 * torch.linalg.matrix_norm(refit, 2)


def test_the_spectral_radius_is_how_a_long_product_grows() -> None:
    """Gelfand: ‖Aⁿ‖ to the power of 1/n; of a whole matrix and of a thin one."""
    for factors in (
        (torch.randn(13, 13, dtype=torch.float64),),
        (torch.randn(31, 3, dtype=torch.float64), torch.randn(3, 31, dtype=torch.float64)),
    ):
        matrix = factors[0] if len(factors) == 1 else factors[0] @ factors[1]
        logarithm, power = 0.0, torch.eye(len(matrix), dtype=torch.float64)
        for _ in range(5_000):
            power = matrix @ power
            size = torch.linalg.matrix_norm(power).item()
            power, logarithm = power / size, logarithm + math.log(size)
        assert spectral_radius(factors) == pytest.approx(math.exp(logarithm / 5_000), rel=2e-3)

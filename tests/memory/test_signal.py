"""The fit against an ordinary least-squares solver, and the linear update against the plain one."""

import math

import numpy as np
import torch

from infty.memory.basis import GaussianBasis
from infty.memory.equations import (
    evaluate_basis,
    evaluate_signal,
    first_grid,
    place_basis,
    refit_grid,
    ridge_operator,
    sample_grid,
)
from infty.memory.fast.low_rank import LinearMap
from infty.memory.signal import make_operators, solve_fit

BASIS, LENGTH, SAMPLES, HIDDEN = 14, 11, 17, 3
WIDTHS = (0.02, 0.09)


def test_first_grid_written_out() -> None:
    grid = first_grid(5)
    np.testing.assert_allclose(grid.inside, [0.1, 0.3, 0.5, 0.7, 0.9])
    np.testing.assert_allclose(sorted(grid.margin.tolist()), [-0.3, -0.1, 1.1, 1.3])


def test_refit_grid_written_out() -> None:
    grid = refit_grid(num_samples=3, length=2, contraction=0.6)
    np.testing.assert_allclose(grid.inside, [0.2, 0.4, 0.6, 0.8, 1.0])
    shift, count = 1 / 7, 10
    around = [-0.5 + shift + i * (2 - 2 * shift) / (count - 1) for i in range(count)]
    np.testing.assert_allclose(grid.margin, [t for t in around if not 0 <= t <= 1])


def test_fit_equals_least_squares_with_zeros_in_the_margin() -> None:
    """Ridge regression is least squares over all targets and √λ·I besides; numpy solves that by SVD."""
    basis, grid, penalty = GaussianBasis(BASIS, WIDTHS).double(), refit_grid(SAMPLES, LENGTH, 0.6), 0.7
    targets = torch.randn(SAMPLES + LENGTH, HIDDEN, dtype=torch.float64)
    rows = np.concatenate(
        [basis.evaluate(grid.inside), basis.evaluate(grid.margin), math.sqrt(penalty) * np.eye(BASIS)]
    )
    wanted = np.concatenate([targets, np.zeros((len(rows) - len(targets), HIDDEN))])
    expected = np.linalg.lstsq(rows, wanted, rcond=None)[0]
    np.testing.assert_allclose(solve_fit(basis, grid, penalty) @ targets, expected, rtol=1e-9, atol=1e-11)


def test_fit_equals_the_plain_equations() -> None:
    """ψ as the normal density reads, F of it, and G: against the basis that powers of 2 are made of."""
    grid, (centers, widths) = refit_grid(SAMPLES, LENGTH, 0.6), place_basis(BASIS, WIDTHS)
    design, margin = (evaluate_basis(points, centers, widths).T for points in (grid.inside, grid.margin))
    fitted = solve_fit(GaussianBasis(BASIS, WIDTHS).double(), grid, 0.7)
    torch.testing.assert_close(fitted, ridge_operator(design, margin, 0.7), rtol=1e-9, atol=1e-11)


def test_a_smooth_signal_is_recovered() -> None:
    basis, grid = GaussianBasis(60, WIDTHS).double(), first_grid(200)
    targets = torch.exp(-(((grid.inside - 0.4) / 0.12) ** 2))[:, None]
    coefficients = solve_fit(basis, grid, 1e-6) @ targets
    between = (torch.arange(1, 50, dtype=torch.float64) / 50)[:, None]  # where no target was given
    fitted = evaluate_signal(coefficients, basis.evaluate(between[:, 0]))
    assert (fitted - torch.exp(-(((between - 0.4) / 0.12) ** 2))).abs().max() < 2e-3


def test_carry_and_append_are_the_refit_of_samples_and_new_vectors() -> None:
    operators = make_operators(BASIS, WIDTHS, LENGTH, SAMPLES, 0.6, 1.0)
    basis = GaussianBasis(BASIS, WIDTHS).double()
    old, new = torch.randn(BASIS, HIDDEN, dtype=torch.float64), torch.randn(LENGTH, HIDDEN, dtype=torch.float64)
    samples = evaluate_signal(old, basis.evaluate(sample_grid(SAMPLES)))
    refit = solve_fit(basis, refit_grid(SAMPLES, LENGTH, 0.6), 1.0) @ torch.cat([samples, new])
    carry, append = (LinearMap(factors).double() for factors in (operators.carry, operators.append))
    torch.testing.assert_close(carry @ old + append @ new, refit, rtol=1e-10, atol=1e-12)


def test_operators_are_float64_and_alike_whatever_the_default_dtype(float64: None) -> None:
    make_operators.cache_clear()
    in_float64 = make_operators(BASIS, WIDTHS, LENGTH, SAMPLES, 0.6, 1.0)
    torch.set_default_dtype(torch.float32)
    make_operators.cache_clear()
    in_float32 = make_operators(BASIS, WIDTHS, LENGTH, SAMPLES, 0.6, 1.0)
    assert in_float64.growth == in_float32.growth
    for name in ("first", "contract", "append", "carry"):
        factors = getattr(in_float64, name)
        for exact, other in zip(factors, getattr(in_float32, name), strict=True):
            assert other.dtype == torch.float64
            assert torch.equal(exact, other)

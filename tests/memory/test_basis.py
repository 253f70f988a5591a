"""ψ(t) against the normal density of scipy, and its expectation against quadrature."""

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from infty.memory import equations
from infty.memory.basis import GaussianBasis

WIDTHS = (0.01, 0.05, 0.2)


def test_order_is_centre_major_and_values_are_normal_densities(float64: None) -> None:
    basis = GaussianBasis(15, WIDTHS)
    positions = torch.linspace(-0.5, 1.5, 7)
    expected = [
        [stats.norm.pdf(t, center, width) for center in np.linspace(0, 1, 5) for width in WIDTHS]
        for t in positions.tolist()
    ]
    torch.testing.assert_close(basis.evaluate(positions), torch.tensor(expected), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("mean", "variance"), [(0.31, 0.02), (0.97, 1e-6), (0.0, 0.7)])
def test_expectation_equals_quadrature(float64: None, mean: float, variance: float) -> None:
    closed_form = equations.expect_basis(
        torch.tensor([mean]), torch.tensor([variance]), *equations.place_basis(15, WIDTHS)
    )
    [expected] = closed_form.tolist()
    deviation = variance**0.5
    for j, (center, width) in enumerate((c, w) for c in np.linspace(0, 1, 5) for w in WIDTHS):
        value, _ = integrate.quad(
            lambda z, c=center, w=width: stats.norm.pdf(mean + deviation * z, c, w) * stats.norm.pdf(z),
            -12,
            12,
            points=sorted(np.clip((center - mean) / deviation + np.array([-8, 0, 8]) * width / deviation, -12, 12)),
            limit=200,
        )
        assert expected[j] == pytest.approx(value, rel=1e-6, abs=1e-9)


def test_values_equal_the_plain_equation(float64: None) -> None:
    positions = torch.rand(3, 7) * 2 - 0.5
    plain = equations.evaluate_basis(positions, *equations.place_basis(15, WIDTHS))
    torch.testing.assert_close(GaussianBasis(15, WIDTHS).evaluate(positions), plain, rtol=1e-10, atol=1e-12)


def test_gradients_of_the_expectation_equal_finite_differences(float64: None) -> None:
    mean = torch.rand(2, 3, requires_grad=True)
    variance = (0.01 + torch.rand(2, 3)).requires_grad_()
    basis = equations.place_basis(10, (0.07, 0.2))
    assert torch.autograd.gradcheck(
        lambda mean, variance: equations.expect_basis(mean, variance, *basis), (mean, variance)
    )


def test_a_basis_that_the_widths_do_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of the 3 widths"):
        GaussianBasis(16, WIDTHS)


def test_constants_are_exact_again_after_passing_through_float32() -> None:
    basis = GaussianBasis(22, (0.01, 0.05)).float().double()
    torch.testing.assert_close(basis.centers, torch.linspace(0, 1, 11, dtype=torch.float64), rtol=0, atol=0)
    assert basis.widths.tolist() == [0.01, 0.05]

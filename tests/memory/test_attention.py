"""Densities and the KL regulariser against quadrature."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from infty.memory.equations import AttentionDensity, kl_to_prior, shape_density


def one(mean: float, variance: float) -> AttentionDensity:
    return AttentionDensity(torch.full((1, 1, 1), mean), torch.full((1, 1, 1), variance))


@pytest.mark.parametrize("prior_mean", [None, -1.0, 0.4])
@pytest.mark.parametrize(("mean", "variance"), [(0.3, 0.01), (0.9, 0.0004), (0.5, 0.69)])
def test_kl_equals_quadrature(float64: None, mean: float, variance: float, prior_mean: float | None) -> None:
    deviation, prior_std = variance**0.5, 0.05
    center = mean if prior_mean is None else prior_mean

    def integrand(z: float) -> float:
        t = mean + deviation * z
        return float(stats.norm.pdf(z)) * float(
            stats.norm.logpdf(t, mean, deviation) - stats.norm.logpdf(t, center, prior_std)
        )

    expected, _ = integrate.quad(integrand, -10, 10)
    assert kl_to_prior(one(mean, variance), prior_std, prior_mean).item() == pytest.approx(expected, rel=1e-6)


def test_kl_is_zero_at_the_prior(float64: None) -> None:
    assert kl_to_prior(one(0.3, 0.05**2), 0.05).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("prior_std", [0.05, 0.01, 1 / 3, 1.0, 0.4])
def test_kl_near_the_prior_is_that_of_float64_and_never_negative(prior_std: float) -> None:
    """In float32 ratio − ln ratio − 1 is 0, or of either sign, where σ is within 1e-4 of σ0."""
    for difference in (1e-4, 2e-4, 1e-3, 1e-2, 0.1, 0.5):
        for sign in (1, -1):
            variance = torch.tensor(prior_std**2 * (1 + sign * difference), dtype=torch.float32)
            ours = variance.reshape(1, 1, 1).requires_grad_()
            found = kl_to_prior(AttentionDensity(torch.full((1, 1, 1), 0.3), ours), prior_std)
            found.sum().backward()
            x = variance.item() / prior_std**2 - 1  # exact in float64
            powers = sum((-x) ** k / k for k in range(2, 12))
            expected = 0.5 * (powers if abs(x) < 0.02 else x - math.log1p(x))
            assert found.dtype == torch.float32
            assert found.item() == pytest.approx(expected, rel=1e-6), difference
            assert ours.grad is not None
            assert ours.grad.item() == pytest.approx(0.5 * x / variance.item(), rel=1e-6), difference
    nearest = torch.tensor(prior_std**2, dtype=torch.float32)
    places = (torch.arange(-2000, 2001, dtype=torch.int32) + nearest.view(torch.int32)).view(torch.float32)
    found = kl_to_prior(AttentionDensity(torch.zeros(1, 1, 4001), places.reshape(1, 1, -1)), prior_std)
    assert (found >= 0).all()


def test_scores_become_a_mean_inside_and_a_variance_above_the_floor(float64: None) -> None:
    density = shape_density(torch.tensor([[[-40.0, 0, 40]]]), torch.tensor([[[-40.0, 0, 3]]]), floor=1e-4)
    np.testing.assert_allclose(density.mean[0, 0], [np.exp(-40.0), 0.5, 1], atol=1e-12)
    np.testing.assert_allclose(density.variance[0, 0], [1e-4, np.log(2), np.log1p(np.exp(3.0))])

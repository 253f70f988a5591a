"""Densities and the KL regulariser against quadrature."""

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


def test_scores_become_a_mean_inside_and_a_variance_above_the_floor(float64: None) -> None:
    density = shape_density(torch.tensor([[[-40.0, 0, 40]]]), torch.tensor([[[-40.0, 0, 3]]]), floor=1e-4)
    np.testing.assert_allclose(density.mean[0, 0], [np.exp(-40.0), 0.5, 1], atol=1e-12)
    np.testing.assert_allclose(density.variance[0, 0], [1e-4, np.log(2), np.log1p(np.exp(3.0))])

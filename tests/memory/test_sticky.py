"""The histogram against quadrature, and the sampler against the distribution it must follow."""

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from infty.memory import equations
from infty.memory.equations import AttentionDensity, sample_histogram
from infty.memory.sticky import attention_histogram, uniform_draws

BINS = 7


def test_histogram_equals_quadrature_of_the_summed_densities(float64: None) -> None:
    density = AttentionDensity(torch.rand(2, 3, 5), 0.001 + 0.1 * torch.rand(2, 3, 5))
    histogram = attention_histogram(density, BINS)
    for row in range(2):
        means, deviations = density.mean[row].flatten().numpy(), density.variance[row].flatten().sqrt().numpy()
        mass = np.array(
            [
                integrate.quad(
                    lambda t, m=means, s=deviations: stats.norm.pdf(t, m, s).sum(), i / BINS, (i + 1) / BINS, limit=200
                )[0]
                for i in range(BINS)
            ]
        )
        np.testing.assert_allclose(histogram[row], mass / mass.sum(), atol=1e-7)


def test_histogram_equals_the_plain_equation(float64: None) -> None:
    density = AttentionDensity(torch.rand(2, 3, 5), 0.001 + 0.1 * torch.rand(2, 3, 5))
    plain = equations.attention_histogram(density, BINS)
    torch.testing.assert_close(attention_histogram(density, BINS), plain, rtol=1e-10, atol=1e-12)


def piecewise_cdf(masses: np.ndarray) -> stats.rv_histogram:
    return stats.rv_histogram((masses, np.linspace(0, 1, len(masses) + 1)))


def test_samples_follow_the_histogram(float64: None) -> None:
    masses = np.array([0.05, 0.0, 0.4, 0.1, 0.25, 0.0, 0.2])
    draws = uniform_draws(torch.tensor([11]), torch.tensor([3]), 20_000)
    samples = sample_histogram(torch.from_numpy(masses)[None], draws, "uniform")[0]
    assert stats.kstest(samples.numpy(), piecewise_cdf(masses).cdf).pvalue > 0.01
    assert (samples.diff() >= 0).all()


def test_left_edges_follow_the_same_bins(float64: None) -> None:
    masses = np.array([0.05, 0.15, 0.4, 0.1, 0.3])
    draws = uniform_draws(torch.tensor([5]), torch.tensor([0]), 20_000)
    samples = sample_histogram(torch.from_numpy(masses)[None], draws, "left")[0].numpy()
    bins, counts = np.unique(samples * 5, return_counts=True)
    np.testing.assert_allclose(bins, np.round(bins), atol=1e-12)
    assert stats.chisquare(counts, 20_000 * masses).pvalue > 0.01


def test_draws_are_uniform_and_unlike_between_near_seeds_and_updates() -> None:
    seeds, updates = torch.arange(40).repeat_interleave(5), torch.arange(5).repeat(40)
    draws = uniform_draws(seeds, updates, 100)
    assert stats.kstest(draws.flatten().numpy(), "uniform").pvalue > 0.01
    correlation = np.corrcoef(draws.numpy())
    assert np.abs(correlation - np.eye(200)).max() < 0.5


def test_a_stream_draws_the_same_in_any_batch() -> None:
    together = uniform_draws(torch.tensor([3, 8, 21]), torch.tensor([1, 4, 2]), 13)
    alone = uniform_draws(torch.tensor([8]), torch.tensor([4]), 13)
    assert torch.equal(together[1:2], alone)


@pytest.mark.parametrize("within_bin", ["uniform", "left"])
def test_locations_stay_in_the_interval_for_extreme_draws(within_bin: str) -> None:
    histogram = torch.tensor([[0.0, 1.0, 0.0]])
    draws = torch.tensor([[0.0, 1 - 2**-53]], dtype=torch.float64)
    samples = sample_histogram(histogram, draws, within_bin)  # pyright: ignore[reportArgumentType]
    assert (samples >= 1 / 3).all()
    assert (samples <= 2 / 3).all()


def test_a_histogram_needs_no_scale_and_a_draw_of_1_is_the_end(float64: None) -> None:
    histogram, draws = torch.tensor([[0.1, 0.5, 0.4]]), torch.tensor([[0.0, 0.3, 0.6, 1.0]])
    samples = sample_histogram(histogram, draws, "uniform")
    torch.testing.assert_close(samples, torch.tensor([[0.0, (1 + 0.2 / 0.5) / 3, 2 / 3, 1.0]]))
    torch.testing.assert_close(sample_histogram(4 * histogram, draws, "uniform"), samples)

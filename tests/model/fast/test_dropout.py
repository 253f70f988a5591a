"""Dropout from few random numbers: what it drops, how often, and that nothing else changes."""

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, chisquare

from infty.model.fast.dropout import Dropout


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_drops_a_share_p_and_scales_the_rest(p: float) -> None:
    x = torch.ones(101, 997)
    y = Dropout(p)(x)
    dropped = int((y == 0).sum())
    assert binomtest(dropped, y.numel(), p).pvalue > 1e-4
    assert torch.allclose(y[y != 0], torch.tensor(1 / (1 - p)), rtol=2e-4)


def test_neighbours_are_dropped_independently() -> None:
    """The four elements that share a random number: all sixteen patterns as often as independence says."""
    p = 0.3
    patterns = (Dropout(p)(torch.ones(40_000)) == 0).view(-1, 4).long() @ torch.tensor([1, 2, 4, 8])
    counts = torch.bincount(patterns, minlength=16).numpy()
    dropped = np.array([bin(i).count("1") for i in range(16)])
    expected = p**dropped * (1 - p) ** (4 - dropped) * len(patterns)
    assert chisquare(counts, expected).pvalue > 1e-4


def test_the_gradient_is_dropped_and_scaled_alike() -> None:
    x = torch.randn(7, 13, requires_grad=True)
    y = Dropout(0.4)(x)
    y.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(y.detach(), x.detach() * x.grad)


def test_the_same_seed_drops_the_same() -> None:
    x, dropout = torch.ones(5, 11), Dropout(0.5)
    torch.manual_seed(3)
    first = dropout(x)
    second = dropout(x)
    torch.manual_seed(3)
    assert torch.equal(dropout(x), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("dropout", [Dropout(0.0), Dropout(0.5).eval()])
def test_without_dropout_nothing_changes(dropout: Dropout) -> None:
    x = torch.randn(3, 7)
    assert torch.equal(dropout(x), x)

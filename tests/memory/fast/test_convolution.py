"""Three taps side by side against torch's own convolution."""

import pytest
import torch
from torch.nn import functional as F

from infty.memory import equations
from infty.memory.fast.convolution import convolve3

# Distinct primes: batch 3, channels in 7, channels out 5.
BATCH, CHANNELS, OUT = 3, 7, 5


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 13, 64])
def test_equals_an_ordinary_convolution_in_value_and_gradient(float64: None, length: int) -> None:
    given = [
        torch.randn(shape, requires_grad=True) for shape in ((BATCH, length, CHANNELS), (OUT, CHANNELS, 3), (OUT,))
    ]
    cotangent, results = torch.randn(BATCH, length, OUT), []
    for convolve in (convolve3, lambda x, weight, bias: F.conv1d(x.mT, weight, bias, padding=1).mT):
        y = convolve(*given)
        results.append([y, *torch.autograd.grad((y * cotangent).sum(), given)])
    for fast, plain in zip(*results, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-10, atol=1e-12)


def test_a_gate_of_it_equals_the_plain_equation(float64: None) -> None:
    x, weight, bias = torch.randn(BATCH, 13, CHANNELS), torch.randn(CHANNELS, CHANNELS, 3), torch.randn(CHANNELS)
    fast = torch.sigmoid(convolve3(x, weight, bias)) * x
    torch.testing.assert_close(fast, equations.smooth(x, weight, bias), rtol=1e-10, atol=1e-12)


def test_is_as_near_in_float32_as_a_fit_needs() -> None:
    """The published width: 300 channels."""
    x, weight = torch.randn(2, 97, 300), torch.randn(300, 300, 3)
    exact = F.conv1d(x.double().mT, weight.double(), padding=1).mT
    assert (convolve3(x, weight, None) - exact).abs().max() <= 1e-6 * exact.abs().max()

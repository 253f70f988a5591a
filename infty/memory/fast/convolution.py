"""Convolve three neighbours (M7) in one product: a vector stands between its neighbours in a row of three.

`F.conv1d(x.mT, weight, bias, padding=1).mT` is the same written plainly.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def convolve3(
    x: Float[Tensor, "batch length in"], weight: Float[Tensor, "out in 3"], bias: Float[Tensor, " out"] | None
) -> Float[Tensor, "batch length out"]:
    """Convolve each vector with its two neighbours, zeros beyond both ends, with the kernel `weight` (M7)."""
    # Gates equal equations.smooth: tests/memory/fast/test_convolution.py::test_a_gate_of_it_equals_the_plain_equation.
    padded = F.pad(x, (0, 0, 1, 1))
    return F.linear(torch.cat([padded[:, :-2], x, padded[:, 2:]], -1), weight.mT.flatten(1), bias)

"""Convolve three neighbours (M7) with half the products: Winograd's minimal filtering F(4, 3).

Four outputs take twelve products with the three taps g of a kernel. Both are polynomials evaluated at 0, ±1, ±2 and ∞:
six products of the values at those points give the same four outputs from six inputs x,

    y = O [(K g) ⊙ (I x)].

With many channels each of the six is a matrix product (Lavin and Gray 2016, arXiv 1509.09308, section 4.1).
`F.conv1d(x.mT, weight, bias, padding=1).mT` is the same written plainly.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

STEP, POINTS = 4, 6  # outputs of a tile; inputs it needs, and points
INPUTS = (  # I
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
KERNEL = (  # K
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
OUTPUTS = (  # O
    (1, 1, 1, 1, 1, 0),
    (0, 1, -1, 2, -2, 0),
    (0, 1, 1, 4, 4, 0),
    (0, 1, -1, 8, -8, 1),
)


def convolve3(
    x: Float[Tensor, "batch length in"], weight: Float[Tensor, "out in 3"], bias: Float[Tensor, " out"] | None
) -> Float[Tensor, "batch length out"]:
    """Convolve each vector with its two neighbours, zeros beyond both ends, with the kernel `weight` (M7)."""
    # Gates equal equations.smooth: tests/memory/fast/test_winograd.py::test_a_gate_of_it_equals_the_plain_equation.
    (batch, length, channels), out = x.shape, weight.shape[0]
    tiles = -(-length // STEP)
    padded = F.pad(x, (0, 0, 1, STEP * tiles + 1 - length))
    inputs = torch.stack([padded[:, i::STEP][:, :tiles] for i in range(POINTS)])  # 6 b tiles channels
    at_points = (x.new_tensor(INPUTS) @ inputs.flatten(1)).view(POINTS, -1, channels)  # 6 (b tiles) channels
    kernel = (x.new_tensor(KERNEL) @ weight.permute(2, 1, 0).flatten(1)).view(POINTS, channels, -1)
    outputs = x.new_tensor(OUTPUTS) @ torch.bmm(at_points, kernel).flatten(1)  # 4 (b tiles out)
    y = outputs.view(STEP, batch, tiles, out).permute(1, 2, 0, 3).flatten(1, 2)[:, :length]
    return y if bias is None else y + bias

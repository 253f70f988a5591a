"""Keep constants and products exact whatever the precision, as the fits of a memory want it (M3)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

HOST = torch.device("cpu")  # keeps what is exact, in float64, which other devices may lack


def round_products(precision: str) -> str:
    """Set how a GPU's products of float32 are rounded: "ieee" (not at all) or "tf32". Return what was set (for M3)."""
    cudnn: Any = torch.backends.cudnn  # whose convolutions would be tf32 by default
    before = str(torch.backends.cuda.matmul.fp32_precision)
    torch.backends.cuda.matmul.fp32_precision = cudnn.conv.fp32_precision = precision
    return before


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Keep products from bfloat16 and TF32 in this context, whatever surrounds it: the fit amplifies rounding (M3).

    The backward pass keeps the types of the products in it, but takes the TF32 setting of the time when it runs.
    """
    before = round_products("ieee")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        round_products(before)


class ExactBuffers(nn.Module):
    """Module whose constant buffers are stored in float64 and rounded once, as those of (M1) and (M6) must be.

    An ordinary buffer that went through float32 stays rounded when its module is moved to float64.
    These are rounded afresh from their float64 originals after every move (`.to`, `.double()`,
    `.to_empty` after the meta device), and are not part of a state dict: the configuration implies them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._exact: dict[str, Tensor] = {}

    def register_exact(self, name: str, value: Float[Tensor, "..."]) -> None:
        """Add the float64 CPU tensor `value` as a buffer of the default dtype on the default device."""
        self._exact[name] = value
        rounded = value.to(torch.get_default_device(), torch.get_default_dtype())
        self.register_buffer(name, rounded, persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "ExactBuffers":
        super()._apply(fn, recurse)
        for name, value in self._exact.items():
            setattr(self, name, value.to(self.get_buffer(name)))
        return self

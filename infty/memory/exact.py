"""Constants that are exact in whatever precision a module is moved to."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


class ExactBuffers(nn.Module):
    """A module whose constant buffers are known in float64 and rounded once.

    An ordinary buffer that went through float32 stays rounded when its module is moved to float64.
    These are rounded afresh from their float64 originals after every move (`.to`, `.double()`,
    `.to_empty` after the meta device), and are not part of a state dict: the configuration implies them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._exact: dict[str, Tensor] = {}

    def register_exact(self, name: str, value: Tensor) -> None:
        """Add the float64 CPU tensor `value` as a buffer of the default dtype on the default device."""
        self._exact[name] = value
        rounded = value.to(torch.get_default_device(), torch.get_default_dtype())
        self.register_buffer(name, rounded, persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "ExactBuffers":
        super()._apply(fn, recurse)
        for name, value in self._exact.items():
            setattr(self, name, value.to(self.get_buffer(name)))
        return self

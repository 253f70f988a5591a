"""Keep constants and products exact whatever the precision, as the fits of a memory want it (M3)."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from infty.memory.transforms import is_transformed

HOST = torch.device("cpu")  # keeps what is exact, in float64, which other devices may lack


def round_products(precision: str) -> None:
    """Set how a GPU's products of float32 are rounded, for good: "ieee" (not at all) or "tf32" (for M3)."""
    for switch in _switches():
        switch.fp32_precision = precision


def _switches() -> tuple[Any, Any]:
    """List torch's switches of TF32: of products, and of cuDNN's convolutions, which are TF32 by default."""
    cudnn: Any = torch.backends.cudnn
    return torch.backends.cuda.matmul, cudnn.conv


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Make a context in which products keep the type of what they are made of; of no effect if they do anyway (M3)."""
    wanted = torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)
    return torch.autocast(device.type, enabled=False) if wanted else nullcontext()


@contextmanager
def full_precision(device: torch.device, *, convolutions: bool = False) -> Iterator[None]:
    """Keep products from bfloat16 and TF32 in this context, whatever surrounds it: the fit amplifies rounding (M3).

    The backward pass keeps the types of the products in it, but takes the TF32 setting of the time when it runs.
    convolutions: there are some in it. Only what is TF32 is switched, and only of a GPU; then it is as it was.
    """
    with without_autocast(device), ExitStack() as stack:
        if device.type == "cuda":
            for switch in _switches()[: 1 + convolutions]:
                stack.enter_context(_without_tf32(switch))
        yield


@contextmanager
def _without_tf32(switch: Any) -> Iterator[None]:
    """Turn one switch to "ieee" in this context, if it is "tf32"."""
    before = str(switch.fp32_precision)
    if before != "tf32":
        yield
        return
    switch.fp32_precision = "ieee"
    try:
        yield
    finally:
        switch.fp32_precision = "none"  # follows `torch.backends.fp32_precision`, which may be where it was from
        if switch.fp32_precision != before:
            switch.fp32_precision = before


def widen(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Convert to float64 what would cancel in float32 (M10), if its device has that type: "mps" has not."""
    return x if x.device.type == "mps" else x.double()


class ExactConstants(nn.Module):
    """Module whose constants are kept in float64 and rounded once to what they are used with (M1, M6).

    They are neither parameters nor buffers, nor part of a state dict: the configuration implies them. As buffers they
    could be lost: transformers 5 builds a model on the meta device, and then fills every buffer that is not in its
    state dict with whatever memory holds; `load_state_dict(assign=True)` leaves such buffers on that device. And a
    buffer that went through float32 stays rounded when its module is moved to float64.
    """

    def __init__(self) -> None:
        super().__init__()
        made = torch.empty(0)
        self._place = made.device, made.dtype  # of the module, as far as `.to` and the like tell it
        self._exact: dict[str, Tensor] = {}
        self._rounded: dict[tuple[str, torch.device, torch.dtype], Tensor] = {}

    def register_exact(self, name: str, value: Float[Tensor, "..."]) -> None:
        """Add the float64 CPU tensor `value` as a constant."""
        self._exact[name] = value
        self.round_exact(name)

    def round_exact(self, name: str, like: Float[Tensor, "..."] | None = None) -> Float[Tensor, "..."]:
        """Get a constant in the precision and on the device of `like`; None: of the module, if it is not on "meta"."""
        device, dtype = self._place if like is None else (like.device, like.dtype)
        if like is None and device.type == "meta":
            device = HOST
        key = name, device, dtype
        if (known := self._rounded.get(key)) is not None:
            return known
        with torch.inference_mode(False):  # what is made in that mode is of no use in training
            rounded = self._exact[name].to(device, dtype)
        if not is_transformed():
            self._rounded[key] = rounded
        return rounded

    @property
    def constant_bytes(self) -> int:
        """Count the bytes of the constants of this module alone, in its precision."""
        return sum(value.numel() for value in self._exact.values()) * self._place[1].itemsize

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "ExactConstants":
        super()._apply(fn, recurse)
        device, dtype = self._place
        moved = fn(torch.empty(0, device=device, dtype=dtype))
        self._place = moved.device, moved.dtype
        self._rounded.clear()
        for name in self._exact:
            self.round_exact(name)
        return self

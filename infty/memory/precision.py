"""Keep constants and products exact whatever the precision, as the fits of a memory want it (M3)."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from infty.memory.transforms import is_transformed

HOST = torch.device("cpu")  # keeps what is exact, in float64, which other devices may lack


_cuda: Any = torch.backends.cuda  # their switches have no types
_cudnn: Any = torch.backends.cudnn
_mkldnn: Any = torch.backends.mkldnn


def round_products(precision: Literal["ieee", "tf32"]) -> None:
    """Set how a GPU's products of float32 are rounded, for good: "ieee" (not at all) or "tf32" (for M3)."""
    # By torch's older names: what is set by the newer ones is an error to whoever reads an older, its compiler too.
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    _cudnn.allow_tf32 = precision == "tf32"


def are_products_rounded(x: Float[Tensor, "..."]) -> bool:
    """Tell whether a GPU rounds products of such a tensor now: to two bytes, or as TF32 (outside of M3)."""
    return x.is_cuda and (x.dtype.itemsize == 2 or (x.dtype == torch.float32 and _cuda.matmul.fp32_precision == "tf32"))


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
        if device.type == "cuda" and _cuda.matmul.fp32_precision == "tf32":
            stack.enter_context(_exact_products())
        if device.type == "cuda" and convolutions and _cudnn.conv.fp32_precision == "tf32":
            stack.enter_context(_without_tf32(_cudnn.conv))
        yield


def _exact_products() -> AbstractContextManager[None]:
    """Turn TF32 of products off in this context, by the names that it was turned on by."""
    try:
        return _make_exact(torch.get_float32_matmul_precision())
    except RuntimeError:  # by the newer ones alone
        return _without_tf32(_cuda.matmul)


@contextmanager
def _make_exact(precision: str) -> Iterator[None]:
    """Set the highest precision in this context, and then this one again."""
    matmul = _mkldnn.matmul
    of_cpu = matmul.fp32_precision
    torch.set_float32_matmul_precision("highest")  # of a CPU as well, or reading it would be an error
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)
        if matmul.fp32_precision != of_cpu:
            matmul.fp32_precision = of_cpu


@contextmanager
def _without_tf32(switch: Any) -> Iterator[None]:
    """Turn a switch from "tf32" to "ieee" in this context."""
    switch.fp32_precision = "ieee"
    try:
        yield
    finally:
        switch.fp32_precision = "none"  # follows `torch.backends.fp32_precision`, which may be where it was from
        if switch.fp32_precision != "tf32":
            switch.fp32_precision = "tf32"


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

"""How a model computes on this machine: on which device, in which precision, compiled or not."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch

from infty.errors import UsageError
from infty.memory.longterm import LongTermMemory
from infty.model.decoder import Decoder

Precision = Literal["float32", "bf16"]
Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Machine:
    """precision: "bf16" is autocast: products in bfloat16; weights, sums, norms and the memory stay in float32."""

    device: torch.device
    precision: Precision = "float32"
    compiled: bool = False

    def place(self, model: Decoder) -> Decoder:
        """The same model, moved to the device and set to compute as asked; its weights and their names stay."""
        model.to(self.device)
        if self.compiled:
            _compile(model)
        if self.precision == "bf16":
            autocast = torch.autocast(self.device.type, torch.bfloat16)
            model.positions, model.forward = autocast(model.positions), autocast(model.forward)
        return model


def choose_device(name: str) -> torch.device:
    """auto is the first GPU if torch sees one, else the CPU. UsageError for a GPU that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"device {name}: torch sees {torch.cuda.device_count()} GPUs here; use cpu or auto")
    return device


def _compile(model: Decoder) -> None:
    """Compile all but what works in blocks: loops over products, which gain nothing."""
    for block in model.blocks:
        _leave_alone(block.attention, "forward")
        if isinstance(block.long_range, LongTermMemory):
            _leave_alone(block.long_range, "read")
    model.forward = _or_as_it_is(torch.compile(model.forward), model.forward)


def _leave_alone(module: torch.nn.Module, method: str) -> None:
    setattr(module, method, torch.compiler.disable(getattr(module, method)))


def _or_as_it_is(compiled: Function, plain: Function) -> Function:
    """`compiled` until it fails once (no compiler, say), and from then on `plain`, with one warning."""
    chosen = compiled

    def call(*args: Any, **options: Any) -> Any:
        nonlocal chosen
        if chosen is plain:
            return plain(*args, **options)
        try:
            return chosen(*args, **options)
        except Exception as fault:  # whatever it is: a fault of the model itself comes again without compilation
            reason = str(fault).strip().splitlines() or [type(fault).__name__]
            warnings.warn(f"--compile failed and is left out: {reason[0]}", stacklevel=2)
            chosen = plain
            return plain(*args, **options)

    return call  # pyright: ignore[reportReturnType]

"""How a model computes on this machine: on which device, in which precision, compiled or not."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import torch

from infty.errors import UsageError
from infty.memory.longterm import LongTermMemory
from infty.model.block import Block
from infty.model.segments import SegmentModel
from infty.settings import Settings

Precision = Literal["float32", "bf16"]
Function = TypeVar("Function", bound=Callable[..., Any])
Model = TypeVar("Model", bound=SegmentModel)


class _Compiler:
    """Makes compiled functions, until one fails (no compiler, say): then all go on as they were, with one warning."""

    def __init__(self) -> None:
        self.works = True

    def __call__(self, plain: Function) -> Function:
        """`plain`, compiled at its first call."""
        compiled: Callable[..., Any] | None = None

        def call(*args: Any, **options: Any) -> Any:
            nonlocal compiled
            try:
                if self.works:
                    compiled = compiled or torch.compile(plain)
                    return compiled(*args, **options)
            except Exception as fault:  # whatever it is: a fault of the model itself comes again without compilation
                self.works = False
                reason = str(fault).strip().splitlines() or [type(fault).__name__]
                warnings.warn(f"--compile failed and is left out: {reason[0]}", stacklevel=2)
            return plain(*args, **options)

        return call  # pyright: ignore[reportReturnType]


@dataclass(frozen=True)
class Machine:
    """precision: "bf16" is autocast: products in bfloat16; weights, sums, norms and the memory stay in float32."""

    device: torch.device
    precision: Precision = "float32"
    compiled: bool = False
    _compiler: _Compiler = field(default_factory=_Compiler, init=False, repr=False, compare=False)

    def place(self, model: Model) -> Model:
        """The same model, moved to the device and set to compute as asked; its weights and their names stay."""
        model.to(self.device)
        if self.compiled:
            _compile(model, self._compiler)
        if self.precision == "bf16":
            for name in ("positions", "forward"):  # one calls the other, so each has a context of its own
                setattr(model, name, torch.autocast(self.device.type, torch.bfloat16)(getattr(model, name)))
        return model


def choose_device(name: str) -> torch.device:
    """auto is the first GPU if torch sees one, else the CPU. UsageError for a GPU that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"device {name}: torch sees {torch.cuda.device_count()} GPUs here; use cpu or auto")
    return device


def _compile(model: SegmentModel, compiler: _Compiler) -> None:
    """Compile what is more than loops over products, and has the same shapes in every segment."""
    for block in model.seats:
        if isinstance(block, Block):
            block.position_wise = compiler(block.position_wise)
        if isinstance(block.long_range, LongTermMemory):
            block.long_range.smooth = compiler(block.long_range.smooth)


def prepare_machine(settings: Settings) -> Machine:
    """Set what the settings say of this machine. UsageError for a device that is not there."""
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    return Machine(choose_device(settings.device), settings.precision, settings.compile)

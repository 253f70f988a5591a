"""Place a model on this machine: device, precision, compilation, recomputation."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypeVar

import torch
from torch.utils.checkpoint import checkpoint

from infty.base.errors import UsageError, describe_fault
from infty.config.settings import Settings
from infty.machine.devices import choose_device, is_gpu
from infty.machine.launch import Launch, detect_launch
from infty.memory.precision import round_products
from infty.model.interface import SegmentModel

Precision = Literal["float32", "tf32", "bf16"]
Function = Callable[..., Any]
Model = TypeVar("Model", bound=SegmentModel)


def _make_compiler() -> Callable[[Function], Function]:
    """Make a compiler of functions until one fails (no C++ compiler, say); then all run uncompiled, with a warning."""
    works = True

    def wrap(plain: Function) -> Function:
        compiled: Function | None = None  # at the first call

        def call(*args: Any, **options: Any) -> Any:
            nonlocal works, compiled
            try:
                if works:
                    compiled = compiled or torch.compile(plain)
                    return compiled(*args, **options)
            except Exception as fault:  # any kind: a fault of the model itself recurs without compilation
                works = False
                warnings.warn(f"--compile failed and is left out: {describe_fault(fault)}", stacklevel=2)
            return plain(*args, **options)

        return call

    return wrap


@dataclass(frozen=True)
class Machine:
    """The device that a model computes on, and how it computes there, in this process of a launch.

    precision: of matrix products. "bf16" is autocast: weights, sums, norms and the memory stay in float32. "tf32"
    exists on GPUs: the factors of float32 products lose 13 bits, except in the memory. recompute: activations, layer by
    layer. micro_batch: largest number of training sequences computed at once; None: no limit.
    """

    device: torch.device
    precision: Precision = "float32"
    compiled: bool = False
    recompute: bool = False
    micro_batch: int | None = None
    launch: Launch = field(default_factory=Launch)
    _compile: Callable[[Function], Function] = field(default_factory=_make_compiler, init=False, compare=False)

    def place(self, model: Model) -> Model:
        """Move a model to the device and set it to compute as asked; weights and their names do not change."""
        model.to(self.device)
        if self.recompute:
            for layer in model.layers:
                layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
        if self.compiled:  # what has more to fuse than matrix products, whose shapes are the same in every segment
            for module in (module for layer in model.memory_layers for module in (layer, layer.long_range) if module):
                for name in module.to_compile:
                    setattr(module, name, self._compile(getattr(module, name)))
        if self.precision == "bf16":
            for name in ("positions", "forward"):  # forward may call positions, so each has a context of its own
                setattr(model, name, torch.autocast(self.device.type, torch.bfloat16)(getattr(model, name)))
        return model


def prepare_machine(settings: Settings) -> Machine:
    """Apply the settings of device, threads and precision. UsageError if the device is not there or can't do it."""
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    launch = detect_launch()
    device, precision = choose_device(settings.device, launch), settings.precision
    if precision == "tf32" and not is_gpu(device):
        raise UsageError(f"precision tf32 is a GPU's, and this is {device.type}: float32 or bf16")
    if is_gpu(device):  # on a CPU no global state changes
        round_products("tf32" if precision == "tf32" else "ieee")
    return Machine(device, precision, settings.compile, settings.recompute, settings.micro_batch, launch)

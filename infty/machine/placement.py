"""Place a model on this machine: device (the only module that names one), precision, compilation, recomputation."""

import logging
import os
import platform
import re
import subprocess
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from typing import Any, Literal, TypeVar

import torch
from torch.utils.checkpoint import checkpoint

from infty.base.errors import UsageError, describe_fault
from infty.config.definition import PACKAGE
from infty.config.settings import Settings
from infty.machine.freed_memory import keep_freed_memory
from infty.machine.idle_threads import watch_idle_threads
from infty.machine.launch import Launch, detect_launch
from infty.memory.precision import HOST, round_products
from infty.model.interface import SegmentModel

GPU = "cuda"
COMMIT = "INFTY_COMMIT"  # of a copy without a checkout
PACKAGES = ("infty-former", "torch", "numpy", "pydantic", "safetensors", "tokenizers", "wandb")
FORMS = 64  # of one function that are compiled at most: with and without gradient or dropout, one stream or more, …
Precision = Literal["float32", "tf32", "bf16"]
Function = Callable[..., Any]
_torch: Any = torch  # its `compile` has no types for `recompile_limit`, and `_logging` is documented but not exported
Model = TypeVar("Model", bound=SegmentModel)


def is_gpu(device: torch.device) -> bool:
    """Tell if a device is a GPU that torch sees."""
    return device.type == GPU


def choose_device(name: str, launch: Launch) -> torch.device:
    """Choose a device; auto: a GPU if torch sees one. UsageError for a GPU that isn't there or would be shared."""
    count = torch.cuda.device_count()
    if name == HOST.type or (name == "auto" and not count):
        return HOST
    asked = torch.device(GPU if name == "auto" else name)
    if launch.local_size == 1:
        if (asked.index or 0) >= count:
            raise UsageError(f"device {name}: torch sees {count} GPUs here; use cpu or auto")
        return asked if asked.index is not None else torch.device(GPU, launch.slot % count)
    if asked.index is not None:
        raise UsageError(f"device {name} for {launch.local_size} processes: use cuda or auto, and each takes its own")
    own_only = launch.by_slurm and count == 1  # Slurm may show each task only its own GPU
    if launch.local_size > count and not own_only:
        raise UsageError(f"{launch.local_size} processes here and {count} GPUs: start as many as those, or use cpu")
    return torch.device(GPU, 0 if own_only else launch.local_rank)


def _make_compiler() -> Callable[[Function], Function]:
    """Make a compiler of functions; once one fails (no C++ compiler, say), all run uncompiled, with a warning.

    What has no elements is not compiled for: a segment in which nothing is wanted.
    """
    works = True

    def wrap(plain: Function) -> Function:
        compiled: Any = None  # made at the first call

        def call(*args: Any, **options: Any) -> Any:
            nonlocal works, compiled
            try:
                if works and not any(isinstance(arg, torch.Tensor) and arg.numel() == 0 for arg in args):
                    compiled = compiled or _torch.compile(plain, recompile_limit=FORMS)
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
    exists on GPUs: the factors of float32 products lose 13 bits, except in the memory. recompute: compute
    activations twice, layer by layer. micro_batch: most training sequences computed at once; None: no limit.
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
            for layer in model.layers:  # stopping early is an error that is raised through what is compiled
                again = partial(checkpoint, use_reentrant=False, early_stop=not self.compiled)
                layer.forward = partial(again, layer.forward)
        if self.compiled:  # functions with more to fuse than matrix products, and the same shapes in every segment
            for module in (module for layer in model.memory_layers for module in (layer, layer.long_range) if module):
                for name in module.to_compile:
                    setattr(module, name, self._compile(getattr(module, name)))
        if self.precision == "bf16":
            for name in ("positions", "forward"):  # forward may call positions, so each has a context of its own
                setattr(model, name, torch.autocast(self.device.type, torch.bfloat16)(getattr(model, name)))
        return model

    def describe_environment(self) -> dict[str, Any]:
        """Describe the environment as environment.json records and `infty env` prints it: no host name, no path.

        Raises:
            UsageError: There is no checkout, and the variable that names its commit does not.
        """
        commit, changes = _run_git("rev-parse", "HEAD"), _run_git("status", "--porcelain", "--untracked-files=no")
        return {
            "commit": commit or _read_named_commit(),
            "dirty": None if commit is None or changes is None else bool(changes),
            "versions": {"python": platform.python_version(), **{name: _find_version(name) for name in PACKAGES}},
            "system": f"{platform.system()} {platform.machine()}",
            "device": torch.cuda.get_device_name(self.device) if is_gpu(self.device) else self.device.type,
            "processes": self.launch.size,
            "precision": self.precision,
            "micro_batch": self.micro_batch,
            "recompute": self.recompute,
            "compiled": self.compiled,
            "threads": torch.get_num_threads(),
        }


def prepare_machine(settings: Settings) -> Machine:
    """Apply the settings of device, threads and precision. UsageError if the device is missing or unfit."""
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    keep_freed_memory()
    watch_idle_threads()
    launch = detect_launch()
    device, precision = choose_device(settings.device, launch), settings.precision
    if precision == "tf32" and not is_gpu(device):
        raise UsageError(f"precision tf32 is a GPU's, and this is {device.type}: float32 or bf16")
    if is_gpu(device):  # on a CPU no global state changes
        torch.cuda.set_device(device)
        round_products("tf32" if precision == "tf32" else "ieee")
    if settings.compile:
        _torch._logging.set_logs(all=logging.ERROR)  # TORCH_LOGS wins over it
        if not is_gpu(device):
            warnings.warn(
                "--compile gains nothing on a CPU: steps get slower, and compiling takes a minute", stacklevel=2
            )
    return Machine(device, precision, settings.compile, settings.recompute, settings.micro_batch, launch)


def _read_named_commit() -> str | None:
    """Read which commit a copy of the code without a checkout is of. UsageError if it is no commit's name."""
    named = os.environ.get(COMMIT)
    if named and not re.fullmatch("[0-9a-f]{7,40}", named):
        raise UsageError(f"{COMMIT} is {named!r}: wanted 7 to 40 hexadecimal digits of this code's commit")
    return named or None


def _run_git(*words: str) -> str | None:
    """Run git on the checkout of this package and return its output; None if there is no checkout or git fails."""
    root = PACKAGE.parent
    if not (root / ".git").exists():
        return None
    try:
        # git hands GIT_DIR and the like on to hooks, and they win against -C; nor may git look above the checkout.
        local = _call(["git", "rev-parse", "--local-env-vars"], os.environ).split()
        kept = {name: value for name, value in os.environ.items() if name not in local}
        return _call(["git", "-C", str(root), *words], {**kept, "GIT_CEILING_DIRECTORIES": str(root.parent)})
    except (OSError, subprocess.SubprocessError):
        return None


def _call(command: list[str], environment: Mapping[str, str]) -> str:
    """Run a command and return its output. OSError or SubprocessError if that fails."""
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


def _find_version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None

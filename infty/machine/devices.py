"""Choose the device that computes: the only module that names one."""

import torch

from infty.base.errors import UsageError
from infty.machine.launch import Launch
from infty.memory.precision import HOST

GPU = "cuda"


def is_gpu(device: torch.device) -> bool:
    """Tell if a device is a GPU that torch sees."""
    return device.type == GPU


def name_device(device: torch.device) -> str:
    """Name a GPU as its maker does, any other device by its kind."""
    return torch.cuda.get_device_name(device) if is_gpu(device) else device.type


def choose_backend(device: torch.device) -> str:
    """Choose how processes communicate: gradients over NCCL between GPUs, everything else over gloo."""
    return f"{HOST.type}:gloo,{GPU}:nccl" if is_gpu(device) else f"{HOST.type}:gloo"


def choose_device(name: str, launch: Launch) -> torch.device:
    """Choose the device of that name. auto: a GPU if torch sees one, else the CPU. Each process takes a GPU of its own.

    UsageError for a GPU that is not there, or that several processes would share.
    """
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
    own_only = launch.by_slurm and count == 1  # Slurm may show each task its own GPU alone
    if launch.local_size > count and not own_only:
        raise UsageError(f"{launch.local_size} processes here and {count} GPUs: start as many as those, or use cpu")
    return torch.device(GPU, 0 if own_only else launch.local_rank)

"""Count bytes of memory: held by this process now and at its peak, and free on this machine."""

import contextlib
import ctypes
import os
import resource
import sys
from pathlib import Path

import torch

from infty.machine.placement import is_gpu


def count_peak_bytes(device: torch.device) -> int:
    """Count the most bytes of memory held at once: on a GPU by torch, else resident in this process."""
    if is_gpu(device):
        return torch.cuda.max_memory_allocated(device)
    try:  # getrusage also counts what was held before exec
        return _read_kilobytes(Path("/proc/self/status"), "VmHWM:")
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def forget_peak(device: torch.device) -> bool:
    """Reset the peak of `count_peak_bytes`; returns False if that is impossible: on a CPU it needs Linux with glibc."""
    if is_gpu(device):
        torch.cuda.reset_peak_memory_stats(device)
        return True
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        return True
    return False


def count_held_bytes(device: torch.device) -> int:
    """Count the bytes held now, by the measure of `count_peak_bytes`. OSError on a CPU without Linux."""
    if is_gpu(device):
        return torch.cuda.memory_allocated(device)
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def count_free_bytes(device: torch.device) -> int:
    """Count the bytes that this process can still take: on a CPU within its control group. OSError without Linux."""
    if is_gpu(device):
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    return min([_read_kilobytes(Path("/proc/meminfo"), "MemAvailable:"), *_find_free_in_groups()])


def _read_kilobytes(file: Path, key: str) -> int:
    """Read a figure of /proc in bytes. OSError if there is none."""
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    raise OSError(f"{file} has no {key}")


def _find_free_in_groups(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> list[int]:
    """Find the bytes left under each limit (cgroup v2) on this process's group and on those that contain it."""
    name = next((line[3:] for line in own.read_text(encoding="utf-8").splitlines() if line.startswith("0::")), "/")
    group, free = root / name.strip("/"), []
    for folder in (group, *group.parents):
        with contextlib.suppress(OSError):
            limit = (folder / "memory.max").read_text(encoding="ascii").strip()
            if limit != "max":
                used = int((folder / "memory.current").read_text(encoding="ascii"))
                lines = (folder / "memory.stat").read_text(encoding="ascii").splitlines()
                idle = sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
                free.append(int(limit) - used + idle)
        if folder == root:
            break
    return free

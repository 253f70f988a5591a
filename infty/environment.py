"""What a result was made with: commit, versions, device, threads. No host name, no path."""

import platform
import resource
import subprocess
import sys
from importlib import metadata
from typing import Any

import torch

from infty.catalog import PACKAGE
from infty.errors import UsageError

PACKAGES = ("infty-former", "torch", "numpy", "pydantic", "safetensors", "wandb")


def choose_device(name: str) -> torch.device:
    """auto is the first GPU if torch sees one, else the CPU. UsageError for a GPU that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"device {name}: torch sees {torch.cuda.device_count()} GPUs here; use cpu or auto")
    return device


def describe_environment(device: torch.device) -> dict[str, Any]:
    """For environment.json and `infty env`."""
    commit = _git("rev-parse", "HEAD")
    return {
        "commit": commit,
        "dirty": bool(_git("status", "--porcelain", "--untracked-files=no")) if commit else None,
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "system": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
    }


def peak_memory_bytes(device: torch.device) -> int:
    """Most memory held at once: on a GPU by torch, else resident in this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _git(*words: str) -> str | None:
    """What git says of the checkout this package runs from; None where it runs from none."""
    if not (PACKAGE.parent / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(PACKAGE.parent), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None

"""Describe the environment of a result: commit, versions, device, threads. No host name, no path."""

import platform
import subprocess
from importlib import metadata
from typing import Any

import torch

from infty.config.definition import PACKAGE
from infty.machine.devices import name_device
from infty.machine.placement import Machine

PACKAGES = ("infty-former", "torch", "numpy", "pydantic", "safetensors", "tokenizers", "wandb")


def describe_environment(machine: Machine) -> dict[str, Any]:
    """Describe the environment as environment.json records and `infty env` prints it."""
    commit, device = _run_git("rev-parse", "HEAD"), machine.device
    return {
        "commit": commit,
        "dirty": bool(_run_git("status", "--porcelain", "--untracked-files=no")) if commit else None,
        "versions": {"python": platform.python_version(), **{name: _find_version(name) for name in PACKAGES}},
        "system": f"{platform.system()} {platform.machine()}",
        "device": name_device(device),
        "processes": machine.launch.size,
        "precision": machine.precision,
        "micro_batch": machine.micro_batch,
        "recompute": machine.recompute,
        "compiled": machine.compiled,
        "threads": torch.get_num_threads(),
    }


def _run_git(*words: str) -> str | None:
    """Run git on the checkout of this package and return its output; None if there is no checkout or git fails."""
    if not (PACKAGE.parent / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(PACKAGE.parent), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _find_version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None

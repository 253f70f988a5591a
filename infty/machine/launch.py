"""Find out, without torch, if this process was started alone, or with others by torchrun or Slurm's srun."""

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from infty.base.errors import UsageError

TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
SLURM = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")  # set in a job step, not in a batch script
SLOT = "INFTY_SLOT"
FIRST_PORT, PORTS = 10_000, 20_000  # a port per Slurm step; Linux assigns the ports above these itself


@dataclass(frozen=True)
class Launch:
    """The processes that were started together, and the place of this one among them, overall and on this machine.

    address: machine of the process of rank 0. slot: index among the runs that `reproduce --jobs` trains side by side.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    address: str = ""
    port: int = 0
    by_slurm: bool = False
    slot: int = 0

    @property
    def variables(self) -> tuple[str, ...]:
        """The environment variables without which a process works alone."""
        return SLURM if self.by_slurm else TORCHRUN

    @property
    def leads(self) -> bool:
        """Tell if this process is the one that writes files and prints."""
        return self.rank == 0


@cache
def detect_launch() -> Launch:
    """Detect how this process was started. UsageError as in `read_launch`."""
    return read_launch(os.environ)


def read_launch(environment: Mapping[str, str]) -> Launch:
    """Read the launcher's environment variables. UsageError if they contradict each other or one is missing."""
    alone = Launch(slot=_read_number(environment, SLOT, 0))
    by_torchrun = {"RANK", "WORLD_SIZE"} <= environment.keys()
    by_slurm = not by_torchrun and "SLURM_STEP_NUM_TASKS" in environment
    if not by_torchrun and not by_slurm:
        return alone
    rank, size, local_rank = (_read_number(environment, name) for name in (SLURM if by_slurm else TORCHRUN[:3]))
    if size == 1:
        return alone
    local_size = _count_local_tasks(environment, size) if by_slurm else _read_number(environment, TORCHRUN[3], size)
    if not (0 <= rank < size and 0 <= local_rank < local_size <= size):
        what = f"process {rank} of {size}, {local_rank} of {local_size} on this machine: no such thing"
        raise UsageError(f"{what}; unset {', '.join(SLURM if by_slurm else TORCHRUN)}, or start with torchrun or srun")
    address = environment.get("MASTER_ADDR") or (_find_first_node(environment) if by_slurm else "")
    if not address:
        alone = f"to work alone, unset {', '.join(SLURM if by_slurm else TORCHRUN)}"
        raise UsageError(f"process {rank} of {size}: MASTER_ADDR must name the machine of process 0; {alone}")
    job, step = (_read_number(environment, name, 0) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
    port = _read_number(environment, "MASTER_PORT", FIRST_PORT + (101 * job + step) % PORTS)
    return Launch(rank, size, local_rank, local_size, address, port, by_slurm)


def _read_number(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = environment.get(name, "" if default is None else str(default))
    if not re.fullmatch(r"\d{1,9}", text):
        raise UsageError(f"{name}={text!r}: wanted a number, as torchrun or srun set it; to work alone, unset it")
    return int(text)


def _count_local_tasks(environment: Mapping[str, str], size: int) -> int:
    """Count the processes on this machine, from a list of counts per machine like `4(x2),3`."""
    counts: list[int] = []
    for part in environment.get("SLURM_STEP_TASKS_PER_NODE", str(size)).split(","):
        found = re.fullmatch(r"(\d{1,9})(?:\(x(\d{1,6})\))?", part)
        if found is None:
            raise UsageError(f"SLURM_STEP_TASKS_PER_NODE={part!r}: wanted a number of processes, as srun sets it")
        counts += [int(found[1])] * int(found[2] or 1)
    node = _read_number(environment, "SLURM_NODEID", 0)
    return counts[node] if node < len(counts) else size


def _find_first_node(environment: Mapping[str, str]) -> str:
    """Find a Slurm step's first machine: this one if it is the only one, else by scontrol; "" if that fails."""
    if environment.get("SLURM_STEP_NUM_NODES") == "1":
        return "127.0.0.1"
    command = ["scontrol", "show", "hostnames", environment.get("SLURM_STEP_NODELIST", "")]
    try:
        names = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return ""
    return names[0] if names else ""

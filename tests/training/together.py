"""Several processes that train together, started by hand as a launcher would: real ones, over gloo."""

import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests import forks
from tests.forks import Command, clean_environment

Run = "subprocess.CompletedProcess[str]"


def free_port() -> int:
    """Of this machine, now."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def as_torchrun(rank: int, size: int, port: int) -> dict[str, str]:
    """The variables that torchrun sets for one of its processes."""
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def as_srun(rank: int, size: int, port: int) -> dict[str, str]:
    """Those that Slurm's srun sets, as far as they are read, and no address: there is one machine."""
    return {
        "MASTER_PORT": str(port),
        "SLURM_PROCID": str(rank),
        "SLURM_STEP_NUM_TASKS": str(size),
        "SLURM_LOCALID": str(rank),
        "SLURM_NODEID": "0",
        "SLURM_STEP_NUM_NODES": "1",
        "SLURM_STEP_TASKS_PER_NODE": str(size),
    }


def processes(
    folder: Path, size: int, *words: str, launcher: Callable[[int, int, int], dict[str, str]] = as_torchrun
) -> list[Command]:
    """`infty …` as `size` processes; as one it is started by nobody."""
    port = free_port()
    mine = [launcher(rank, size, port) if size > 1 else {} for rank in range(size)]
    return [(words, clean_environment(folder, **more)) for more in mine]


def together(folder: Path, size: int, *words: str, **options: Any) -> "list[subprocess.CompletedProcess[str]]":
    """The same, to their end."""
    return forks.start(processes(folder, size, *words, **options), folder).wait(150)


def succeed(folder: Path, size: int, *words: str, **options: Any) -> str:
    """The same, with success; what the one that leads said on stdout. The others say nothing there."""
    done = together(folder, size, *words, **options)
    said = "\n".join(one.stderr for one in done)
    assert [one.returncode for one in done] == [0] * size, said
    assert not any(one.stdout for one in done[1:]), said
    return done[0].stdout

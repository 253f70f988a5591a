"""`infty …` in processes forked from one that has torch loaded: real ones, without the seconds that loading takes.

`python -m tests.forks` reads a request a line from stdin, and answers with the process's id and then its exit code.
"""

import gc
import importlib
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# What nearly every command loads, and nothing that asks the environment about W&B or the hub.
LOADED = (
    "torch._dynamo", "torch.utils.flop_counter", "pyarrow.parquet", "tokenizers", "safetensors.torch",
    "pydantic_settings", "rich.progress", "typer",
)  # fmt: skip
AT_START = ("PYTHON", "LANG", "LC_", "OMP_")  # what an interpreter or a library reads once, as it loads


class Forks:
    """The process that forks, and what runs in its forks. To be closed."""

    def __init__(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.server = subprocess.Popen(
            [sys.executable, "-m", "tests.forks"],
            cwd=Path(__file__).parents[1],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.started = {key: value for key, value in environment.items() if key.startswith(AT_START)}

    def run(
        self, words: tuple[str, ...], folder: Path, environment: Mapping[str, str], timeout: float
    ) -> "subprocess.CompletedProcess[str]":
        """`infty …` in a folder and an environment, with stdin closed. AssertionError where it takes too long."""
        if {k: v for k, v in environment.items() if k.startswith(AT_START)} != self.started:
            return spawned(words, folder, environment, timeout)
        with tempfile.TemporaryDirectory() as place:
            files = [os.devnull, f"{place}/out", f"{place}/err"]
            request = {"words": words, "folder": str(folder), "environment": dict(environment), "files": files}
            assert self.server.stdin is not None
            assert self.server.stdout is not None
            self.server.stdin.write(json.dumps(request) + "\n")
            self.server.stdin.flush()
            process = int(self.server.stdout.readline())
            in_time = select.select([self.server.stdout], [], [], timeout)[0]
            if not in_time:
                os.kill(process, signal.SIGKILL)
            code = int(self.server.stdout.readline())
            assert in_time, f"infty {' '.join(words)} took more than {timeout} s"
            out, err = (Path(file).read_text(encoding="utf-8", errors="replace") for file in files[1:])
        return subprocess.CompletedProcess(words, code, out, err)

    def close(self) -> None:
        """End the process that forks."""
        self.server.communicate()


def spawned(
    words: tuple[str, ...], folder: Path, environment: Mapping[str, str], timeout: float
) -> "subprocess.CompletedProcess[str]":
    """The same in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "infty", *words],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def serve() -> None:
    """Fork for each request. What is a fork leaves the loop as `infty …` ends."""
    for name in LOADED:
        importlib.import_module(name)
    gc.freeze()  # else the first collection in a fork copies all of it
    while line := sys.stdin.readline():
        process = os.fork()
        if process == 0:
            become(json.loads(line))
            return
        print(process, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)


def become(request: dict[str, Any]) -> None:
    """Be what `python -m infty …` is."""
    for stream, file in enumerate(request["files"]):
        os.dup2(os.open(file, os.O_RDWR | os.O_CREAT), stream)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    sys.path[0] = request["folder"]
    sys.argv = ["infty", *request["words"]]
    runpy.run_module("infty", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    serve()

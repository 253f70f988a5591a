"""`infty …` in processes forked from one that has torch loaded: real ones, without the seconds that loading takes.

`python -m tests.forks [MODULE…]` loads these too, reads a line of requests from stdin, and answers with a line of the
processes' ids, and then one of their exit codes.
"""

import atexit
import contextlib
import functools
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
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, TextIO

ROOT = Path(__file__).parents[1]
# What nearly every command loads, and nothing that asks the environment about W&B or the hub.
LIBRARIES = (
    "torch._dynamo", "torch.utils.flop_counter", "pyarrow.parquet", "tokenizers", "safetensors.torch",
    "pydantic_settings", "rich.progress", "typer",
)  # fmt: skip
INFTY = ("infty.cli.app", "infty.commands.train")
GPT2 = ("infty.model.gpt2",)  # loads transformers, which asks the environment about the hub
WAYS = (os.O_RDONLY, os.O_WRONLY | os.O_CREAT, os.O_WRONLY | os.O_CREAT)  # of stdin, stdout, stderr
Command = tuple[tuple[str, ...], Mapping[str, str]]  # words, and the environment
FILES: Mapping[int, str] = MappingProxyType({})  # all streams lead to files
AT_START = ("PYTHON", "LANG", "LC_", "OMP_")  # what an interpreter or a library reads once, as it loads


def clean_environment(folder: Path, **more: str) -> dict[str, str]:
    """The environment of a user who set nothing, in `folder`, with one thread.

    And without W&B, which takes as long as a smoke run: a test that wants it has WANDB_MODE="", which is the default.
    """
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("INFTY_", "WANDB_"))}
    return {
        **kept,
        "INFTY_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "HOME": str(folder),
        "NO_COLOR": "1",
        "COLUMNS": "120",
        "WANDB_MODE": "disabled",
        **more,
    }


class Started:
    """Commands that run side by side in forks. pids: of their processes; streams: what their file descriptors lead to
    instead of a file that is read when they have ended."""

    def __init__(
        self,
        server: "subprocess.Popen[str]",
        module: str,
        commands: Sequence[Command],
        folder: Path,
        streams: Mapping[int, str] = FILES,
    ) -> None:
        self.server, self.commands, self.streams = server, commands, streams
        self._place = tempfile.TemporaryDirectory()
        requests = [
            {
                "module": module, "words": words, "folder": str(folder), "environment": dict(environment),
                "files": self._files(place),
            }
            for place, (words, environment) in enumerate(commands)
        ]  # fmt: skip
        assert server.stdin is not None
        server.stdin.write(json.dumps(requests) + "\n")
        server.stdin.flush()
        self.pids = self._answer()

    def wait(self, timeout: float) -> "list[subprocess.CompletedProcess[str]]":
        """Until all have ended. AssertionError where that takes longer; then they are ended."""
        assert self.server.stdout is not None
        late = not select.select([self.server.stdout], [], [], timeout)[0]
        for pid in self.pids if late else []:
            os.kill(pid, signal.SIGKILL)
        done = []
        for place, ((words, _), code) in enumerate(zip(self.commands, self._answer(), strict=True)):
            out, err = (self._said(stream, file) for stream, file in enumerate(self._files(place)) if stream)
            done.append(subprocess.CompletedProcess(words, code, out, err))
        self._place.cleanup()
        said = "\n".join(one.stderr for one in done)
        assert not late, f"infty {' '.join(self.commands[0][0])} took more than {timeout} s\n{said}"
        return done

    def _files(self, place: int) -> list[str]:
        files = [os.devnull, f"{self._place.name}/{place}.out", f"{self._place.name}/{place}.err"]
        return [self.streams.get(stream, file) for stream, file in enumerate(files)]

    def _said(self, stream: int, file: str) -> str:
        return "" if stream in self.streams else Path(file).read_text(encoding="utf-8", errors="replace")

    def _answer(self) -> list[int]:
        assert self.server.stdout is not None
        return [int(number) for number in self.server.stdout.readline().split()]


def run(
    words: tuple[str, ...], folder: Path, environment: Mapping[str, str], timeout: float, module: str = "infty"
) -> "subprocess.CompletedProcess[str]":
    """`python -m MODULE …` in a folder and an environment, with stdin closed. AssertionError where it takes too long.

    In a process of its own where the environment is another one to what is loaded.
    """
    more = _more(words)
    names = (*AT_START, "HF_") if more else AT_START
    if _of(names, environment) != _of(names, _environment()):
        return spawned(words, folder, environment, timeout, module)
    return Started(_server(more), module, [(words, environment)], folder).wait(timeout)[0]


def start(
    commands: Sequence[Command], folder: Path, module: str = "infty", streams: Mapping[int, str] = FILES
) -> Started:
    """Several `python -m MODULE …` side by side; nothing else before they have ended."""
    return Started(_server(_more(commands[0][0])), module, commands, folder, streams)


@contextlib.contextmanager
def heard(commands: Sequence[Command], folder: Path) -> Iterator[tuple[Started, TextIO]]:
    """Several `infty …`, and what they say on stderr, as they say it."""
    with tempfile.TemporaryDirectory() as place:
        pipe = f"{place}/stderr"
        os.mkfifo(pipe)
        reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)  # which else waits for one that writes
        with os.fdopen(reader, encoding="utf-8", errors="replace") as stderr:
            running = start(commands, folder, streams={2: pipe})
            os.set_blocking(reader, True)
            yield running, stderr


def spawned(
    words: tuple[str, ...], folder: Path, environment: Mapping[str, str], timeout: float, module: str = "infty"
) -> "subprocess.CompletedProcess[str]":
    """The same in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", module, *words],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def _more(words: tuple[str, ...]) -> tuple[str, ...]:
    """What a command loads that others don't."""
    return GPT2 if "gpt2" in words else ()


def _environment() -> dict[str, str]:
    """Of the processes that fork."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def _of(names: tuple[str, ...], environment: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in environment.items() if key.startswith(names)}


@functools.cache
def _server(more: tuple[str, ...]) -> "subprocess.Popen[str]":
    """A process that forks, with `more` loaded; it ends with this one."""
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.forks", *more],
        cwd=ROOT,
        env=_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(server.communicate)
    return server


def serve() -> None:
    """Fork for each request. What is a fork leaves the loop as `infty …` ends."""
    for name in (*LIBRARIES, *INFTY, *sys.argv[1:]):
        importlib.import_module(name)
    gc.freeze()  # else the first collection in a fork copies all of it
    for finalizer in weakref.finalize._registry:  # pyright: ignore[reportAttributeAccessIssue]
        finalizer.atexit = False  # nor does a fork take apart what is loaded
    while line := sys.stdin.readline():
        processes = []
        for request in json.loads(line):
            streams = [os.open(file, WAYS[way] | os.O_NOCTTY) for way, file in enumerate(request["files"])]
            process = os.fork()
            if process == 0:
                become(request, streams)
                return
            processes.append(process)
            for stream in streams:
                os.close(stream)
        print(*processes, flush=True)
        print(*(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes), flush=True)


def become(request: dict[str, Any], streams: Sequence[int]) -> None:
    """Be what `python -m MODULE …` is."""
    for wanted, stream in enumerate(streams):
        os.dup2(stream, wanted)
        os.close(stream)
    sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)  # where they lead is new
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    heed_signals()
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    sys.path[0] = request["folder"]
    sys.argv = [request["module"], *request["words"]]
    try:
        runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        leave(end.code if isinstance(end.code, int) else 1)


def heed_signals() -> None:
    """Be as a process of a terminal: children inherit what nohup, or an earlier test in this process, ignores."""
    for number in (signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_DFL)


def leave(code: int) -> None:
    """End as an interpreter does, but take nothing apart that is loaded: that takes longer than most commands."""
    threading._shutdown()  # pyright: ignore[reportAttributeAccessIssue]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    serve()

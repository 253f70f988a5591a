"""`infty …` in forks of one process that has torch and transformers loaded, whatever checkout `infty` comes from.

Run as a file with PYTHONPATH naming the checkout. Says what it has loaded in a line, then reads a request a line from
stdin: words, folder, environments (a process each, side by side) and files of stdout and stderr; answers exit codes.
Of `infty` it knows the entry point alone, so it outlives every move of a module.
"""

import gc
import importlib
import json
import os
import signal
import sys
from typing import Any

# Other people's modules that commands load: all that takes time.
LIBRARIES = (
    "torch._dynamo", "torch.utils.flop_counter", "transformers.models.gpt2.modeling_gpt2", "pyarrow.parquet",
    "tokenizers", "safetensors.torch", "pydantic_settings", "rich.progress", "typer", "matplotlib.font_manager",
    "matplotlib.pyplot", "jinja2", "huggingface_hub",
)  # fmt: skip
LONGEST = 900  # seconds of a command, after which it is ended


def serve() -> None:
    """Load once, then fork for each process of each request."""
    for name in LIBRARIES:
        importlib.import_module(name)
    import torch

    import infty.cli

    gc.freeze()  # else the first collection in a fork copies all of it
    print(json.dumps({"infty": infty.cli.__file__, "torch": torch.__version__, "threads": torch.get_num_threads()}))
    sys.stdout.flush()
    while line := sys.stdin.readline():
        request = json.loads(line)
        processes = [_fork(request, rank) for rank in range(len(request["environments"]))]
        codes = [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes]
        print(json.dumps(codes), flush=True)


def _fork(request: dict[str, Any], rank: int) -> int:
    """Start one process of a request; what comes back is its id."""
    if process := os.fork():
        return process
    code = 1
    try:
        _become(request, rank)
        from infty.cli import main

        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # to take apart what is loaded takes longer than most commands


def _become(request: dict[str, Any], rank: int) -> None:
    """Be what `infty …` is in a shell of its own; stdout is that of the first of several processes."""
    ways = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    files = (os.devnull, request["stdout"] if rank == 0 else os.devnull, request["stderr"])
    for wanted, (file, how) in enumerate(zip(files, (os.O_RDONLY, ways | os.O_TRUNC, ways), strict=True)):
        stream = os.open(file, how)
        os.dup2(stream, wanted)
        os.close(stream)
    sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    os.environ.clear()
    os.environ.update(request["environments"][rank])
    os.chdir(request["folder"])
    sys.argv = ["infty", *request["words"]]
    signal.alarm(LONGEST)


if __name__ == "__main__":
    serve()

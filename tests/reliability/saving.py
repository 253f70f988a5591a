"""`python -m tests.reliability.saving FOLDER` saves checkpoints and dies (-9), once as each operation on their files
begins; what is found after each death is told as JSON, a line each: [number, last step, best step, warnings]."""

import json
import os
import shutil
import signal
import sys
import warnings
from pathlib import Path

import torch

from infty.training.checkpoint import Checkpoint, TrainingState, load_best, load_last, save_checkpoint
from tests.reliability.operations import FILES

torch.set_num_threads(1)
FIRST, SECOND = 3, 6


def save(folder: Path, step: int) -> None:
    tensors = {"model": {"w": torch.full((2000,), float(step))}, "optimizer": {"w.step": torch.tensor(float(step))}}
    state = TrainingState(step=step, validated_step=step, best_step=step, best_loss=1 / step, wandb_id="a1b2")
    save_checkpoint(folder, Checkpoint(state, tensors))


def save_and_die(folder: Path, number: int) -> None:
    """Never returns: exit code 0 where there were fewer operations."""
    count = 0

    def note(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        if event in FILES and str(arguments[0]).startswith(str(folder)):
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(note)
    save(folder, SECOND)
    os._exit(0)


def main(place: Path) -> None:
    number, ended = 0, False
    while not ended:
        number += 1
        folder = place / str(number)
        folder.mkdir()
        save(folder, FIRST)
        child = os.fork()
        if child == 0:
            save_and_die(folder, number)
        ended = os.waitpid(child, 0)[1] == 0
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            last = load_last(folder)
        best = load_best(folder).state.step
        print(json.dumps([number, last and last.state.step, best, [str(warning.message) for warning in heard]]))
        shutil.rmtree(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

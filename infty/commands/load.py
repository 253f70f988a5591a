"""Load a trained run from disk: its model, its tokeniser and its experiment."""

from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError

from infty.base.errors import MissingError
from infty.base.progress import NOWHERE, show_on
from infty.corpora.tokenizers import Tokenizer
from infty.experiment import Experiment, build_task
from infty.memory.precision import HOST
from infty.model.interface import SegmentModel
from infty.model.tensors import load_weights
from infty.runs.folder import RunFolder
from infty.tasks.task import Task
from infty.training.checkpoint import Checkpoint, load_best


@dataclass(frozen=True)
class TrainedModel:
    """A trained model in evaluation mode, and its experiment."""

    model: SegmentModel
    tokenizer: Tokenizer | None  # of the text that it was trained on; None if tokens are symbols of the task's own
    experiment: Experiment
    step: int  # the optimiser step after which its weights were saved


def load_run(path: str | Path, device: str | torch.device = HOST) -> TrainedModel:
    """Load the best checkpoint of a run folder, or an exported and unpacked one, in float32. No corpus is needed.

    Raises:
        MissingError: There is no checkpoint of this version, or it is damaged.
    """
    run = RunFolder(Path(path))
    experiment, checkpoint = load_experiment(run), load_best(run.checkpoints)
    tokenizer = experiment.task.load_tokenizer(locate_tokenizer(run))
    size = tokenizer.vocab_size if tokenizer else experiment.task.vocab_size
    trained = _restore(run, experiment, checkpoint, tokenizer, size)
    trained.model.to(device)
    return trained


def load_with_task(run: RunFolder, data: Path) -> tuple[TrainedModel, Task]:
    """Load a run and its task. Raises MissingError as `load_run`, and if the text in `data` has changed."""
    with show_on(NOWHERE):
        task = build_task(load_experiment(run), data)
    return load_beside(run, task), task


def load_beside(run: RunFolder, task: Task) -> TrainedModel:
    """Load a run whose task is open already. Raises MissingError as `load_with_task` does."""
    experiment, checkpoint = load_experiment(run), load_best(run.checkpoints)
    refuse_other_text(checkpoint.state.tokens, task)
    return _restore(run, experiment, checkpoint, task.tokenizer, task.vocab_size)


def load_experiment(run: RunFolder) -> Experiment:
    """Load the experiment of a run. Raises MissingError if `config.yaml` is missing, damaged or of another version."""
    values = run.config()
    values.pop("cell")
    try:
        return Experiment.model_validate(values)
    except ValidationError as fault:
        first = fault.errors()[0]
        why = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise MissingError(f"{run.path / 'config.yaml'} is no configuration of this version: {why}") from None


def locate_tokenizer(run: RunFolder) -> Path:
    """Locate the tokeniser of a run on a text: beside the weights, which mean nothing without it."""
    return run.checkpoints / "tokenizer"


def refuse_other_text(digest: str | None, task: Task) -> None:
    """Raise MissingError if a checkpoint, trained on tokens of this digest, is of another text than the task."""
    if task.digest not in (None, digest):
        raise MissingError(
            f"this run was trained on another text than the corpus {task.name!r} is now (tokens "
            f"{str(digest)[:12]}, now {task.digest[:12]}): bring that back, or start over with --fresh"
        )


def _restore(
    run: RunFolder, experiment: Experiment, checkpoint: Checkpoint, tokenizer: Tokenizer | None, vocab_size: int
) -> TrainedModel:
    with torch.random.fork_rng():  # the initial weights are overwritten; the caller's random numbers are not ours
        model = experiment.model.build(vocab_size, seed=0)
    try:
        load_weights(model, checkpoint.tensors["model"])
    except RuntimeError:
        why = f"{run.checkpoints}: the best checkpoint is another model's; train again with --fresh"
        raise MissingError(why) from None
    return TrainedModel(model.eval(), tokenizer, experiment, checkpoint.state.step)

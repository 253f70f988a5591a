"""A run that can begin or go on, and what it writes of itself: settings, environment, tokeniser, metrics, status."""

import contextlib
import logging
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from infty.base.errors import MissingError, Stopped
from infty.base.files import read_json, write_json
from infty.commands.load import tokenizer_folder
from infty.config.settings import Settings
from infty.corpora.tokenizers import Tokenizer
from infty.experiment import ResolvedCell, Task
from infty.machine.environment import describe_environment
from infty.machine.placement import Machine
from infty.model.interface import SegmentModel, count_parameters
from infty.runs.folder import RunFolder, differences
from infty.runs.metrics import MetricsFile, ScreenProgress, Sink
from infty.runs.wandb import WandbRun
from infty.tasks.corpus import CorpusTask
from infty.training.checkpoint import Checkpoint, TrainingState
from infty.training.config import TrainingConfig
from infty.training.data_parallel import Replica
from infty.training.distributed import Group

logger = logging.getLogger(__name__)

Values = dict[str, Any]
REMOVED = ".removed"  # checkpoints that are being removed


@dataclass(frozen=True)
class Prepared:
    """A run that can begin or go on: its data and weights are here and fit, and so do disk and memory.

    training: the experiment's, in steps. begin: where the run stands; without tensors it begins. group: the processes
    that train together.
    """

    run: RunFolder
    resolved: ResolvedCell
    settings: Settings
    machine: Machine
    task: Task
    training: TrainingConfig
    model: SegmentModel
    group: Group
    begin: Checkpoint

    @cached_property
    def replica(self) -> Replica:
        """The model as training sees it. Not made before: what a trial of its memory does must not reach its hooks."""
        return Replica(self.model, self.group, self.machine.micro_batch)

    @property
    def state(self) -> TrainingState:
        """Where the run stands; moved on by training."""
        return self.begin.state

    def costs(self) -> Values:
        """Tokens and seconds of the optimiser steps so far."""
        tokens = self.task.tokens_seen(self.state.step, self.training.batch_size)
        speed = round(tokens / self.state.seconds)
        return {"tokens_seen": tokens, "wall_seconds": round(self.state.seconds, 2), "tokens_per_second": speed}


def set_down(prepared: Prepared) -> Values:
    """Write what is trained and with what, and say so; warn where a run goes on with other software than it began with.

    Returns `environment.json`.
    """
    p = prepared
    command = " ".join([p.resolved.command(), *p.settings.options()])  # that gives the same numbers again
    environment = {**describe_environment(p.machine), "command": command}
    file = p.run.path / "environment.json"
    if changed := differences({**_environment_before(file, environment), "command": command}, environment):
        warnings.warn(f"this run began in another environment: {'; '.join(changed)}", stacklevel=2)
    p.run.write_config(p.resolved.config())
    write_json(file, environment)
    if isinstance(p.task, CorpusTask):
        _keep_tokenizer(p.task.tokens.tokenizer, tokenizer_folder(p.run))
    cell, step = p.resolved.cell, p.state.step
    begin = f"continuing at step {step} of" if p.begin.tensors else "training for"
    logger.info(
        f"{cell.experiment} {cell.model}@{cell.case}, {cell.scale} scale, seed {cell.seed}: {begin} "
        f"{p.training.total_steps:,} steps, {count_parameters(p.model):,} parameters, {p.run.path}"
    )
    return environment


def _environment_before(file: Path, now: Values) -> Values:
    """What a run began with; the same as now where it begins, or nobody can tell any more."""
    try:
        return read_json(file, "it is written anew") if file.exists() else now
    except MissingError as fault:
        warnings.warn(str(fault), stacklevel=3)
        return now


def _keep_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write the tokeniser beside the checkpoints, which mean nothing without it; in one step."""
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    tokenizer.save(temporary)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.replace(folder)


def open_sinks(prepared: Prepared) -> list[Sink]:
    """Where metrics go: a file, the screen and W&B; of a process that does not lead, nowhere."""
    p, cell, state = prepared, prepared.resolved.cell, prepared.state
    if not p.group.leads:
        return []
    sinks: list[Sink] = [
        MetricsFile(p.run.metrics, state.step, validated=state.validated_step == state.step),
        ScreenProgress(f"{cell.experiment} {cell.model}@{cell.case}", p.training.total_steps, state.step),
    ]
    if p.settings.wandb != "disabled":
        name, config = "/".join(cell.folder.parts), p.resolved.config()
        sinks.append(WandbRun(p.run.path, state.wandb_id, name, p.settings.wandb_project, p.settings.wandb, config))
    return sinks


@contextlib.contextmanager
def kept_status(run: RunFolder) -> Iterator[None]:
    """Keep `status.json` true while a run goes on and however it ends."""
    run.write_status("running")
    try:
        yield
    except (Stopped, KeyboardInterrupt):
        with contextlib.suppress(OSError):  # as below
            run.write_status("stopped", "by a signal; the same command continues")
        raise
    except BaseException as fault:
        with contextlib.suppress(OSError):  # a full disk must not hide what failed
            run.write_status("failed", str(fault))
        raise
    run.write_status("done")


def empty(run: RunFolder) -> None:
    """Remove everything a run folder holds but its lock.

    The result first, then all checkpoints at once, and the configuration last: so an interruption leaves no run that
    seems finished, or has half a checkpoint, or is of unknown settings.
    """
    (run.path / "result.json").unlink(missing_ok=True)
    shutil.rmtree(run.path / REMOVED, ignore_errors=True)
    if run.checkpoints.is_dir():
        run.checkpoints.replace(run.path / REMOVED)
    for path in sorted(run.path.iterdir(), key=lambda path: (path.is_file(), path.name == "config.yaml")):
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != ".lock":
            path.unlink()

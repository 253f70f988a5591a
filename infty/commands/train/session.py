"""An opened run: the lock is held, its data and weights are here and fit, and so do disk and memory."""

import contextlib
import secrets
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from infty.base.errors import BusyError, InftyError, MissingError, UsageError
from infty.base.files import refuse_broken_link, refuse_protected, remove_folder, write_text
from infty.base.locks import READ_ONLY, HeldError
from infty.commands.load import refuse_other_text
from infty.commands.train.requirements import InitialWeights, ensure_corpora
from infty.config.settings import Settings
from infty.experiment import Cell, build_task
from infty.machine.placement import Machine
from infty.model.interface import SegmentModel
from infty.runs.folder import LOCK, RunFolder
from infty.tasks.task import Task
from infty.training.checkpoint import Checkpoint, TrainingState, load_last
from infty.training.config import TrainingConfig
from infty.training.data_parallel import Replica
from infty.training.distributed import Group
from infty.training.limits import refuse_full_disk, refuse_too_little_memory

OTHER_SETTINGS = "start over with --fresh (removes it), or keep both with --name"
REMOVED = ".removed"  # checkpoints that are being removed
LATE = 15  # seconds that a network's file system may take to show one machine what another has written


@dataclass(frozen=True)
class Session:
    """A run that can begin or go on, together with the processes of its group."""

    cell: Cell
    run: RunFolder
    settings: Settings
    machine: Machine
    group: Group
    task: Task
    training: TrainingConfig  # the experiment's, in steps
    model: SegmentModel
    begin: Checkpoint  # the one that it goes on from, or one without tensors if it begins

    @cached_property
    def replica(self) -> Replica:
        """The model wrapped for training; made only after the trial for memory, which must not call its hooks."""
        return Replica(self.model, self.group, self.machine.micro_batch)

    @property
    def state(self) -> TrainingState:
        """The state that training moves on."""
        return self.begin.state

    def describe_costs(self) -> dict[str, Any]:
        """Describe the tokens and seconds of the optimiser steps so far."""
        batches = self.task.count_batches(self.state.step, self.training.gradient_segments)
        tokens = self.task.count_tokens_seen(batches, self.training.batch_size)
        speed = round(tokens / self.state.seconds)
        return {"tokens_seen": tokens, "wall_seconds": round(self.state.seconds, 2), "tokens_per_second": speed}


@contextlib.contextmanager
def open_session(
    cell: Cell,
    run: RunFolder,
    settings: Settings,
    machine: Machine,
    group: Group,
    initial: InitialWeights | None = None,
    *,
    fresh: bool = False,
) -> Iterator[Session | None]:
    """Open a run: everything it needs is found and tried before anything of it is removed or written.

    Within the block nobody else writes there. Yields None if the run is finished and `fresh` does not ask for another.
    initial: weights that a new run starts from.

    Raises:
        BusyError: Another process writes there.
        UsageError: The folder holds a run with other settings.
        MissingError: A text is missing or has changed, or the processes do not see the same files; or the run, or its
            checkpoints, are linked to what is not there.
        InftyError: Disk or memory do not suffice.
    """
    refuse_broken_link(run.path)

    # Take the lock: nobody else writes to this run.
    with _hold_lock(run, group, may_read=run.finished and not fresh):
        # Make sure that all processes see this folder, and that it holds no other run.
        _refuse_other_folders(group, run)
        if not fresh:
            with group.take_turns():
                run.refuse_another(cell.config, OTHER_SETTINGS)
            if group.is_true_anywhere(group.leads and run.finished):
                yield None
                return

        with group.take_turns():
            # Find the checkpoint to go on from.
            refuse_broken_link(run.checkpoints)
            found = None if fresh else load_last(run.checkpoints)

            # Bring the data.
            task = bring_data(cell, settings)
            if found:
                refuse_other_text(found.state.tokens, task)
            elif initial:
                initial.refuse_vocabulary(task.vocab_size)

        # Agree on the step to go on from, and on the text.
        figures = (found.state.step if found else 0, int(task.digest[:15], 16) if task.digest else 0)
        if group.size > 1 and not all(map(group.is_same_everywhere, figures)):
            why = "the processes do not see the same checkpoints and texts: all machines must share --runs and data"
            raise MissingError(why)

        # Build the model.
        model = cell.experiment.model.build(task.vocab_size, cell.key.seed)

        # Load the weights that it starts from; those of a checkpoint are loaded with its optimiser.
        if initial and found is None:
            initial.load(model)
        machine.place(model)
        training = cell.experiment.training.count_steps(task)
        weights = {"origin": initial.origin, "sha256": initial.sha256} if initial else None
        begin = found or Checkpoint(TrainingState(tokens=task.digest, starting_weights=weights), {})
        session = Session(cell, run, settings, machine, group, task, training, model, begin)

        # Check that disk and memory suffice, for all processes.
        _refuse_together(session)

        # Clear what an earlier run left.
        if group.leads:
            if fresh:
                _clear(run)
            shutil.rmtree(run.path / REMOVED, ignore_errors=True)
        yield session


def bring_data(cell: Cell, settings: Settings) -> Task:
    """Bring the corpora that a cell lacks, and open its task. UsageError if its protocol is for another text."""
    ensure_corpora(cell.experiment, settings, cell.own)
    task = build_task(cell.experiment, settings.data)
    for split in ("validation", "test"):
        if why := task.explain_unfit(split):
            raise UsageError(why)
    return task


@contextlib.contextmanager
def _hold_lock(run: RunFolder, group: Group, *, may_read: bool) -> Iterator[None]:
    """Hold the lock on a run folder within the block; remove folders that were made for nothing. Raises BusyError.

    may_read: whether a lock that this user may not take is passed over, since nothing will be written.

    Raises:
        BusyError: Another process holds it.
        OSError: The folder can't be made or written to.
    """
    with contextlib.ExitStack() as stack:
        busy, by = False, ""
        if group.leads:
            made = [folder for folder in (run.path, *run.path.parents) if not folder.exists()]
            run.path.mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(run.lock())
                stack.callback(_remove_unused, run.path, made)
            except HeldError as fault:
                busy, by = True, str(fault)
            except OSError as fault:
                if not (may_read and fault.errno in READ_ONLY):
                    raise
        if group.is_true_anywhere(busy):
            raise BusyError(f"another process is training in {run.path}{by}; wait, or use --name for a second run")
        yield


def _remove_unused(path: Path, made: list[Path]) -> None:
    """Remove folders that were made for a run, innermost first, as far as they hold nothing but its lock."""
    with contextlib.suppress(OSError):  # it is for tidiness only
        files = list(path.iterdir()) if made else []
        if all(file.name.startswith(LOCK) for file in files):
            for file in files:
                file.unlink()
        for folder in made:
            folder.rmdir()


def _refuse_other_folders(group: Group, run: RunFolder) -> None:
    """Raise MissingError if a process does not see what the one that leads writes to the run folder."""
    if group.size == 1:
        return
    file, mark = run.path / ".together", group.find_largest(secrets.randbelow(2**62) if group.leads else 0)
    if group.leads:
        write_text(file, str(mark))
    group.wait()
    seen, tries = False, 0
    while not seen and tries < LATE:  # a network's file system may take a moment
        time.sleep(min(tries, 1))
        with contextlib.suppress(OSError):
            seen = file.read_text(encoding="utf-8") == str(mark)
        tries += 1
    missing = group.is_true_anywhere(not seen)
    if group.leads:
        file.unlink()
    if missing:
        raise MissingError(f"not all processes see the same {run.path}: --runs must be on a disk that they all share")


def _refuse_together(session: Session) -> None:
    """Raise InftyError in all processes if disk or memory of one do not suffice for the steps that are left."""
    s, fault = session, None
    try:
        if s.group.leads and s.state.step < s.training.total_steps:
            refuse_full_disk(s.model, s.task, s.training, s.run.checkpoints)
        if not s.machine.compiled and s.state.step < s.training.total_steps:  # each trial would compile
            refuse_too_little_memory(s.model, s.task, s.training, s.cell.key.seed, s.machine)
    except InftyError as found:
        fault = found
    if s.group.is_true_anywhere(fault is not None):
        raise fault or InftyError("another process refuses this: see what it says")


def _clear(run: RunFolder) -> None:
    """Remove everything a run folder holds but its lock; the result first, the configuration last.

    Raises:
        OSError: Some of it may not be removed; then nothing is.
    """
    refuse_protected(run.path, run.checkpoints)
    # In this order, an interruption leaves neither a run that seems finished nor one without settings.
    (run.path / "result.json").unlink(missing_ok=True)
    if (run.path / REMOVED).is_dir():
        remove_folder(run.path / REMOVED)
    if run.checkpoints.is_symlink() and run.checkpoints.is_dir():  # to a larger disk, which the new ones are for too
        _empty_at_once(run.checkpoints)
    elif run.checkpoints.is_dir():
        run.checkpoints.replace(run.path / REMOVED)
    for path in sorted(run.path.iterdir(), key=lambda path: (path.is_file(), path.name == "config.yaml")):
        if path.is_dir():
            remove_folder(path)
        elif not path.name.startswith(LOCK):
            path.unlink()


def _empty_at_once(folder: Path) -> None:
    """Empty a folder that can't be renamed itself, so that an interruption leaves no checkpoint to go on from."""
    removed = folder / REMOVED
    removed.mkdir(exist_ok=True)
    for path in sorted(folder.iterdir()):  # the newest checkpoint last: nothing goes on from an older one
        if path.name != REMOVED:
            path.replace(removed / path.name)
    remove_folder(removed)

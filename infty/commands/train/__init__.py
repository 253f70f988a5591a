"""What `infty train` does: a cell's run, from its folder to its result."""

import contextlib
import shutil
import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from infty.base.errors import BusyError, InftyError, MissingError
from infty.base.files import write_json
from infty.commands.evaluate import Asked, evaluate_run
from infty.commands.load import load_for, refuse_other_data
from infty.commands.train.agreement import is_held, refuse_other_folders, refuse_split_data, sole_writer
from infty.commands.train.ensure_corpora import provide
from infty.commands.train.initial_weights import StartingWeights, base_cell, given_start, trained_start
from infty.commands.train.session import REMOVED, Prepared, empty, kept_status, open_sinks, set_down
from infty.config.settings import Settings
from infty.experiment import ResolvedCell, Task, build_model, build_task
from infty.machine.launch import this_launch
from infty.machine.placement import prepare_machine
from infty.machine.ram import peak_memory_bytes
from infty.model.interface import count_parameters
from infty.runs.folder import SCHEMA, RunFolder
from infty.runs.metrics import Sinks
from infty.runs.wandb import new_wandb_id
from infty.tasks.corpus import CorpusTask
from infty.training.checkpoint import Checkpoint, TrainingState, load_last
from infty.training.cost import explained, flops_a_step, refuse_full_disk, refuse_too_little_memory
from infty.training.data_parallel import refuse_uneven
from infty.training.distributed import Group, joined
from infty.training.loop import train
from infty.training.signals import StopSignals

Values = dict[str, Any]


def train_cell(
    resolved: ResolvedCell, settings: Settings, console: Console, *, fresh: bool, own: Path | None = None
) -> Values:
    """Train one cell, or go on where it stopped; then test its best checkpoint. Returns `result.json`.

    A row with a memory is tested with it emptied as well: what it owes to it belongs beside its figure.

    own: texts of the user's, which the cell's corpus is named after.
    A finished run is returned as it is. What a run left is removed, if that was asked for, only once everything that a
    new one needs is there.
    Raises UsageError where the folder holds a run with other settings or another process writes there, MissingError
    where a text lacks, Stopped after a signal, InftyError where training fails.
    """
    run = RunFolder(settings.runs / resolved.cell.folder)
    with _prepared(run, resolved, settings, console, fresh=fresh, own=own) as prepared:
        if prepared is None:
            console.print(f"already finished: {run.path} (train again with --fresh)", soft_wrap=True)
            return run.result() if this_launch().leads else {}
        with _running(prepared) as stop:
            environment = set_down(prepared) if prepared.group.leads else {}
            with Sinks(open_sinks(prepared)) as log:
                _train(prepared, log, stop)
                outcome = _test(prepared, stop)
                if outcome:
                    log.log(prepared.state.step, outcome["metrics"])
            return _finish(prepared, outcome, environment) if outcome else {}


def train_trial(resolved: ResolvedCell, settings: Settings, console: Console, folder: Path) -> Values:
    """Train a cell in a run folder of its own, for its validations alone: the best of them, and what it cost.

    Nothing is tested. Raises as `train_cell`.
    """
    with _prepared(RunFolder(folder), resolved, settings, console, fresh=False) as prepared:
        assert prepared is not None, "a trial has no result that could be there"
        with _running(prepared) as stop:
            set_down(prepared)
            with Sinks(open_sinks(prepared)) as log:
                _train(prepared, log, stop)
            state = prepared.state
            return {"best_validation_loss": state.best_loss, "best_step": state.best_step, **prepared.costs()}


@contextlib.contextmanager
def _prepared(
    run: RunFolder,
    resolved: ResolvedCell,
    settings: Settings,
    console: Console,
    *,
    fresh: bool,
    own: Path | None = None,
) -> Iterator[Prepared | None]:
    """Everything that a run needs, found and tried before anything of it is removed or written. None: it is finished.

    Within the block nobody else writes there.
    """
    machine = prepare_machine(settings)
    for part in ("training", "pretraining"):
        if config := getattr(resolved.experiment, part):
            refuse_uneven(f"{part}.batch_size", config.batch_size, machine.launch)
    with joined(machine.launch, machine.device) as group, sole_writer(run, group):
        refuse_other_folders(group, run)
        if not fresh:
            with group.in_turn():
                run.refuse_another(resolved.config(), "start over with --fresh (removes it), or keep both with --name")
            if group.any(group.leads and run.finished):
                yield None
                return
        with group.in_turn():
            resume = None if fresh else load_last(run.checkpoints)
            may_fetch = settings.auto_fetch
            start = None if resume else given_start(resolved.experiment, settings, console, may_fetch=may_fetch)
            provide(resolved.experiment, settings, console, own)
            task = build_task(resolved.experiment, settings.data, console)
            _refuse_unfit_data(task, resume, start)
        refuse_split_data(group, resume, task)
        if start is None and resume is None:
            start = _trained_first(resolved, settings, console, group)
        model = build_model(resolved.experiment, task.vocab_size, resolved.cell.seed)
        if start:
            start.load(model)
        machine.place(model)
        training = resolved.experiment.training.counted(task.steps_an_epoch)
        begin = resume or Checkpoint(_new_state(task, start), {})
        prepared = Prepared(run, resolved, settings, machine, console, task, training, model, group, begin)
        _refuse_together(prepared)
        if group.leads:
            if fresh:
                empty(run)
            shutil.rmtree(run.path / REMOVED, ignore_errors=True)  # of an earlier one that was interrupted
        yield prepared


def _refuse_unfit_data(task: Task, resume: Checkpoint | None, start: StartingWeights | None) -> None:
    """Raise where a text is another than a run or weights are of, or than its protocol is for."""
    if resume:
        refuse_other_data(resume.state.tokens, task)
    if isinstance(task, CorpusTask):
        for split in ("validation", "test"):
            task.refuse_misnamed(split)
    if start:
        start.refuse_vocabulary(task.vocab_size)


@contextlib.contextmanager
def _running(prepared: Prepared) -> Iterator[StopSignals]:
    """Signals are heard, `status.json` is kept true, and what a device says when it is full is put into words."""
    group = prepared.group
    noted = kept_status(prepared.run) if group.leads else nullcontext()
    with StopSignals(insist=group.size == 1) as stop, noted, group.explained(), explained(prepared.machine.device):
        yield stop


def _train(prepared: Prepared, log: Sinks, stop: StopSignals) -> None:
    """Take the steps that are left."""
    train(
        prepared.replica,
        prepared.task,
        prepared.training,
        seed=prepared.resolved.cell.seed,
        folder=prepared.run.checkpoints,
        begin=prepared.begin,
        log=log,
        stop=stop,
    )


def _test(prepared: Prepared, stop: StopSignals) -> Values:
    """What the best checkpoint does on the test part; of a process that does not lead, nothing."""
    p = prepared
    with p.group.in_turn():  # the one that leads has written it
        trained = load_for(p.run, p.task)
    p.machine.place(trained.model)
    outcome = evaluate_run(p.run, trained, p.task, Asked(), p.console, stop, p.group)
    if p.resolved.experiment.model.long_range:
        p.console.print("tested again with the memory emptied: what the row owes to it", soft_wrap=True)
        evaluate_run(p.run, trained, p.task, Asked(knock_out="zero"), p.console, stop, p.group)
    peak = p.group.largest(peak_memory_bytes(p.machine.device))
    return {**outcome, "peak_memory_bytes": peak} if p.group.leads else {}


def _finish(prepared: Prepared, outcome: Values, environment: Values) -> Values:
    """Write `result.json`, and return it."""
    p, state = prepared, prepared.state
    result = {
        "schema": SCHEMA,
        **p.resolved.config()["cell"],
        **{key: outcome[key] for key in ("metrics", "totals", "calibration", "protocol", "data")},
        "training_data": p.task.data("train"),
        **({"starting_weights": state.starting_weights} if state.starting_weights else {}),
        "best_step": outcome["step"],
        "best_validation_loss": state.best_loss,
        "parameters": count_parameters(p.model),
        "memory_slots": p.resolved.experiment.model.memory_slots,
        **p.costs(),
        "training_flops": _flops(p),
        "peak_memory_bytes": outcome["peak_memory_bytes"],
        **{key: environment[key] for key in ("commit", "dirty", "command")},
    }
    write_json(p.run.path / "result.json", result)
    p.console.print(f"finished: {p.run.path}; the tables: infty report", soft_wrap=True)
    return result


def _trained_first(
    resolved: ResolvedCell, settings: Settings, console: Console, group: Group
) -> StartingWeights | None:
    """The weights that all rows of a GPT-2 start from, where the cell says that they are trained; else None.

    Trained now if they are not here, or of another text than is here now. Another process that is at it is awaited.
    """
    if (base := base_cell(resolved)) is None:
        return None
    run = RunFolder(settings.runs / base.cell.folder)
    fresh = False
    while True:
        start, why = None, ""
        try:
            if fresh or not group.any(group.leads and run.finished):
                console.print("all rows start from one GPT-2 without a memory, which is trained first", soft_wrap=True)
                train_cell(base, settings, console, fresh=fresh)
            start = trained_start(base, settings)
        except BusyError:
            console.print(f"waiting for another process, which trains {run.path}", soft_wrap=True)
            while not group.any(group.leads and not is_held(run)):
                pass
            fresh = False  # it did that too
            continue
        except MissingError as fault:
            if fresh:
                raise
            why = str(fault)
        if not group.any(start is None):
            return start
        console.print(f"the GPT-2 that all rows start from is trained again: {why}", soft_wrap=True)
        fresh = True


def _refuse_together(prepared: Prepared) -> None:
    """InftyError of all processes, before anything is removed, where disk or memory of one do not suffice."""
    fault = None
    try:
        _refuse_what_cannot_end(prepared)
    except InftyError as found:
        fault = found
    if prepared.group.any(fault is not None):
        raise fault or InftyError("another process refuses this: see what it says")


def _refuse_what_cannot_end(prepared: Prepared) -> None:
    """InftyError where disk or memory do not suffice for what is left."""
    p, model = prepared, prepared.model
    if p.state.step >= p.training.total_steps:
        return
    if p.group.leads:
        refuse_full_disk(model, p.task, p.training, p.run.checkpoints)
    if not p.machine.compiled:  # which would compile for the sizes that are tried
        refuse_too_little_memory(model, p.task, p.training, p.resolved.cell.seed, p.machine)


def _new_state(task: Task, start: StartingWeights | None) -> TrainingState:
    """The state of a run that begins."""
    tokens = task.tokens.digest if isinstance(task, CorpusTask) else None
    return TrainingState(wandb_id=new_wandb_id(), tokens=tokens, starting_weights=start.document() if start else None)


def _flops(prepared: Prepared) -> int | None:
    """FLOPs of all optimiser steps; None where they were compiled, which nothing counts, or that has no room."""
    p, model = prepared, prepared.model
    if p.machine.compiled:
        return None
    if p.machine.recompute:  # what is computed twice counts once
        model = build_model(p.resolved.experiment, p.task.vocab_size, p.resolved.cell.seed).to(p.machine.device)
    size, seed = p.training.batch_size, p.resolved.cell.seed
    try:
        return p.state.step * flops_a_step(model, p.task, size, seed, len(p.replica.pieces(size)[0]))
    except torch.OutOfMemoryError:  # a run that recomputes may need to
        warnings.warn("FLOPs were not counted: without --recompute a step has no room here", stacklevel=2)
        return None

"""What `infty train` does: a cell's run, from its folder to its result."""

import contextlib
import shutil
import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from rich.console import Console

from infty.environment import describe_environment
from infty.errors import BusyError, InftyError, MissingError, Stopped
from infty.experiment import ResolvedCell, Task, build_model, build_task
from infty.files import read_json, write_json
from infty.flops import flops_a_step
from infty.machine import Machine, prepare_machine
from infty.model.segments import SegmentModel, count_parameters
from infty.precheck import explained, refuse_full_disk, refuse_too_little_memory
from infty.provision import provide
from infty.resources import peak_memory_bytes
from infty.runs import SCHEMA, RunFolder, differences
from infty.settings import Settings
from infty.starting import StartingWeights, base_cell, given_start, trained_start
from infty.tasks.corpus import CorpusTask
from infty.together import is_held, refuse_other_folders, refuse_split_data, sole_writer
from infty.tracking import MetricsFile, ScreenProgress, Sink, Sinks, WandbRun, new_wandb_id
from infty.trained import Asked, evaluate_run, refuse_other_data
from infty.training.checkpoint import Checkpoint, TrainingState, load_last
from infty.training.distributed import Group, joined
from infty.training.loop import train
from infty.training.replica import Replica, refuse_uneven
from infty.training.signals import StopSignals

Values = dict[str, Any]
REMOVED = ".removed"  # checkpoints that are being removed


def train_cell(
    resolved: ResolvedCell,
    settings: Settings,
    console: Console,
    *,
    fresh: bool,
    own: Path | None = None,
    trial: Path | None = None,
) -> Values:
    """Train one cell, or go on where it stopped; then test its best checkpoint. Returns `result.json`.

    A row with a memory is tested with it emptied as well: what it owes to it belongs beside its figure.

    own: texts of the user's, which the cell's corpus is named after. trial: a run folder of its own, for training and
    validation alone: then what training found is returned, and nothing is tested.
    A finished run is returned as it is. What a run left is removed, if that was asked for, only once everything that a
    new one needs is there.
    Raises UsageError where the folder holds a run with other settings or another process writes there, MissingError
    where a text lacks, Stopped after a signal, InftyError where training fails.
    """
    machine = prepare_machine(settings)  # before anything is written or removed
    for part in ("training", "pretraining"):
        if config := getattr(resolved.experiment, part):
            refuse_uneven(f"{part}.batch_size", config.batch_size, machine.launch)
    run = RunFolder(trial or settings.runs / resolved.cell.folder)
    with joined(machine.launch, machine.device) as group, sole_writer(run, group):
        refuse_other_folders(group, run)
        if not fresh:
            with group.in_turn():
                run.refuse_another(resolved.config(), "start over with --fresh (removes it), or keep both with --name")
            if group.any(group.leads and run.finished):
                result = run.result() if group.leads else {}
                console.print(f"already finished: {run.path} (train again with --fresh)", soft_wrap=True)
                return result
        with group.in_turn():
            resume = None if fresh else load_last(run.checkpoints)
            may_fetch = settings.auto_fetch
            start = None if resume else given_start(resolved.experiment, settings, console, may_fetch=may_fetch)
            provide(resolved.experiment, settings, console, own)
            task = build_task(resolved.experiment, settings.data, console)
            if resume:
                refuse_other_data(resume.state.tokens, task)
            if isinstance(task, CorpusTask):
                for split in ("validation", "test"):
                    task.refuse_misnamed(split)
            if start:
                start.refuse_vocabulary(task.vocab_size)
        refuse_split_data(group, resume, task)
        if start is None and resume is None:
            start = _trained_first(resolved, settings, console, group)
        model = build_model(resolved.experiment, task.vocab_size, resolved.cell.seed)
        if start:
            start.load(model)
        machine.place(model)
        state = resume.state if resume else _new_state(task, start)
        fault = None
        try:
            _refuse_what_cannot_end(run, resolved, task, machine, model, state)
        except InftyError as found:
            fault = found
        if group.any(fault is not None):  # before anything is removed
            raise fault or InftyError("another process refuses this: see what it says")
        if group.leads:
            if fresh:
                _empty(run)
            shutil.rmtree(run.path / REMOVED, ignore_errors=True)  # of an earlier one that was interrupted
        replica = Replica(model, group, machine.micro_batch)
        noted = _status(run) if group.leads else nullcontext()
        with StopSignals(insist=group.size == 1) as stop, noted, group.explained():
            return _train_and_test(
                run, resolved, task, replica, settings, machine, console, stop, state, resume, trial is not None
            )


def _train_and_test(
    run: RunFolder,
    resolved: ResolvedCell,
    task: Task,
    replica: Replica,
    settings: Settings,
    machine: Machine,
    console: Console,
    stop: StopSignals,
    state: TrainingState,
    resume: Checkpoint | None,
    trial: bool,
) -> Values:
    """From what the folder holds to `result.json`; of a trial to what its validations found."""
    experiment, seed = resolved.experiment, resolved.cell.seed
    training, group, model = experiment.training.counted(task.steps_an_epoch), replica.group, replica.model
    environment, sinks = {}, []
    if group.leads:
        environment = _set_down(run, resolved, machine, settings)
        _announce(run, resolved, model, training.total_steps, resume, console)
        sinks = _open_sinks(run, resolved, settings, console, training.total_steps, state)
    with explained(machine.device), Sinks(sinks) as log:
        train(
            replica,
            task,
            training,
            seed=seed,
            folder=run.checkpoints,
            state=state,
            resume=resume,
            log=log,
            stop=stop,
        )
        if trial:
            found = {"best_validation_loss": state.best_loss, "best_step": state.best_step}
            return {**found, **_costs(state, training.batch_size, task)}
        outcome = evaluate_run(run, machine, Asked(), console, settings.data, stop, group)
        if experiment.model.long_range:
            console.print("tested again with the memory emptied: what the row owes to it", soft_wrap=True)
            evaluate_run(run, machine, Asked(knock_out="zero"), console, settings.data, stop, group)
        peak = group.largest(peak_memory_bytes(machine.device))
        if not group.leads:
            return {}
        log.log(state.step, outcome["metrics"])
    result = {
        "schema": SCHEMA,
        **resolved.config()["cell"],
        **{key: outcome[key] for key in ("metrics", "totals", "calibration", "protocol", "data")},
        "training_data": task.data("train"),
        **({"starting_weights": state.starting_weights} if state.starting_weights else {}),
        "best_step": outcome["step"],
        "best_validation_loss": state.best_loss,
        "parameters": count_parameters(model),
        "memory_slots": experiment.model.memory_slots,
        **_costs(state, experiment.training.batch_size, task),
        "training_flops": _flops(replica, task, state, resolved, machine),
        "peak_memory_bytes": peak,
        **{key: environment[key] for key in ("commit", "dirty", "command")},
    }
    write_json(run.path / "result.json", result)
    console.print(f"finished: {run.path}; the tables: infty report", soft_wrap=True)
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


def _refuse_what_cannot_end(
    run: RunFolder, resolved: ResolvedCell, task: Task, machine: Machine, model: SegmentModel, state: TrainingState
) -> None:
    """InftyError, before anything is written or removed, where disk or memory do not suffice for what is left."""
    training = resolved.experiment.training.counted(task.steps_an_epoch)
    if state.step >= training.total_steps:
        return
    if machine.launch.leads:
        refuse_full_disk(model, task, training, run.checkpoints)
    if not machine.compiled:  # which would compile for the sizes that are tried
        refuse_too_little_memory(model, task, training, resolved.cell.seed, machine)


def _new_state(task: Task, start: StartingWeights | None) -> TrainingState:
    """Of a run that begins."""
    tokens = task.tokens.digest if isinstance(task, CorpusTask) else None
    return TrainingState(wandb_id=new_wandb_id(), tokens=tokens, starting_weights=start.document() if start else None)


def _flops(replica: Replica, task: Task, state: TrainingState, resolved: ResolvedCell, machine: Machine) -> int | None:
    """Of all optimiser steps; None where they were compiled, which nothing counts."""
    if machine.compiled:
        return None
    batch_size, model = resolved.experiment.training.batch_size, replica.model
    if machine.recompute:  # what is computed twice counts once
        model = build_model(resolved.experiment, task.vocab_size, resolved.cell.seed).to(machine.device)
    return state.step * flops_a_step(model, task, batch_size, resolved.cell.seed, len(replica.pieces(batch_size)[0]))


def _costs(state: TrainingState, batch_size: int, task: Task) -> Values:
    tokens = task.tokens_seen(state.step, batch_size)
    speed = round(tokens / state.seconds)
    return {"tokens_seen": tokens, "wall_seconds": round(state.seconds, 2), "tokens_per_second": speed}


def _set_down(run: RunFolder, resolved: ResolvedCell, machine: Machine, settings: Settings) -> Values:
    """Write what is trained and with what; warn where a run goes on with other software than it began with."""
    command = " ".join([resolved.command(), *settings.options()])  # that gives the same numbers again
    environment = {**describe_environment(machine), "command": command}
    file = run.path / "environment.json"
    before = read_json(file) if file.exists() else environment
    if changed := differences({**before, "command": environment["command"]}, environment):
        warnings.warn(f"this run began in another environment: {'; '.join(changed)}", stacklevel=2)
    run.write_config(resolved.config())
    write_json(file, environment)
    return environment


def _announce(
    run: RunFolder,
    resolved: ResolvedCell,
    model: SegmentModel,
    steps: int,
    resume: Checkpoint | None,
    console: Console,
) -> None:
    """One line that says what begins, and where it is kept."""
    cell = resolved.cell
    begin = f"continuing at step {resume.state.step} of" if resume else "training for"
    console.print(
        f"{cell.experiment} {cell.model}@{cell.case}, {cell.scale} scale, seed {cell.seed}: {begin} "
        f"{steps:,} steps, {count_parameters(model):,} parameters, {run.path}",
        soft_wrap=True,
    )


def _open_sinks(
    run: RunFolder,
    resolved: ResolvedCell,
    settings: Settings,
    console: Console,
    steps: int,
    state: TrainingState,
) -> list[Sink]:
    cell = resolved.cell
    title = f"{cell.experiment} {cell.model}@{cell.case}"
    validated = state.validated_step == state.step
    sinks: list[Sink] = [
        MetricsFile(run.metrics, state.step, validated=validated),
        ScreenProgress(console, title, steps, state.step),
    ]
    if settings.wandb != "disabled":
        name, config = "/".join(cell.folder.parts), resolved.config()
        sinks.append(WandbRun(run.path, state.wandb_id, name, settings.wandb_project, settings.wandb, config))
    return sinks


@contextlib.contextmanager
def _status(run: RunFolder) -> Iterator[None]:
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


def _empty(run: RunFolder) -> None:
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

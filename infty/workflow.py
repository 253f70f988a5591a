"""What `infty train` and `infty eval` do: a cell's run, from its folder to its result."""

import contextlib
import hashlib
import shutil
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import Timeout
from pydantic import ValidationError
from rich.console import Console

from infty.environment import choose_device, describe_environment, peak_memory_bytes
from infty.errors import MissingError, Stopped, UsageError
from infty.evaluation import PROTOCOLS, evaluate
from infty.experiment import Experiment, ResolvedCell, build_model, build_task
from infty.files import write_json
from infty.interfaces import Batch
from infty.model.decoder import Decoder
from infty.runs import RunFolder, differences
from infty.settings import Settings
from infty.tasks.sort import SortTask
from infty.tracking import MetricsFile, ScreenProgress, Sink, Sinks, WandbRun, new_wandb_id, track
from infty.training.checkpoint import Checkpoint, load_best, load_last
from infty.training.loop import Progress, optimize, train
from infty.training.optimizer import make_optimizer
from infty.training.signals import StopSignals

SCHEMA = 1
Values = dict[str, Any]


@dataclass(frozen=True)
class LoadedRun:
    """A trained model with what it was trained on, and what it was asked to be."""

    model: Decoder
    task: SortTask
    experiment: Experiment
    step: int


def load_run(path: str | Path, device: str = "cpu") -> LoadedRun:
    """The best checkpoint of a run folder, in evaluation mode. MissingError where there is none or it is damaged."""
    run = RunFolder(Path(path))
    values = run.config()
    values.pop("cell")
    try:
        experiment = Experiment.model_validate(values)
    except ValidationError as fault:
        raise MissingError(
            f"{run.path / 'config.yaml'} is no configuration of this version: {fault.errors()[0]['msg']}"
        ) from None
    checkpoint = load_best(run.checkpoints)
    task = build_task(experiment)
    with torch.random.fork_rng():  # the initial weights are overwritten; the caller's random numbers are not ours
        model = build_model(experiment, task.vocab_size, seed=0)
    model.load_state_dict(checkpoint.tensors["model"])
    return LoadedRun(model.to(device).eval(), task, experiment, checkpoint.step)


def train_cell(resolved: ResolvedCell, settings: Settings, console: Console, *, fresh: bool) -> Values:
    """Train one cell, or go on where it stopped; then test its best checkpoint. Returns `result.json`.

    A finished run is returned as it is. Raises UsageError where the folder holds a run with other
    settings or another process writes there, Stopped after a signal, InftyError where training fails.
    """
    device = prepare_machine(settings)  # before anything is written or removed
    run = RunFolder(settings.runs / resolved.cell.folder)
    run.path.mkdir(parents=True, exist_ok=True)
    try:
        with run.lock():
            if fresh:
                _empty(run.path)
            _refuse_another(run, resolved)
            if run.finished:
                console.print(f"already finished: {run.path} (train again with --fresh)", soft_wrap=True)
                return run.result()
            return _train_locked(run, resolved, settings, device, console)
    except Timeout:
        raise UsageError(
            f"another process is training in {run.path}; wait for it, or use --name for a second run"
        ) from None


def evaluate_cell(
    resolved: ResolvedCell, settings: Settings, split: str, console: Console, batch_size: int | None
) -> Values:
    """Evaluate the best checkpoint of a cell's run.

    Raises MissingError, with the command that trains it, where there is none, and UsageError where the
    run has other settings than the cell.
    """
    run = RunFolder(settings.runs / resolved.cell.folder)
    if not (run.checkpoints / "best.json").is_file():
        raise MissingError(f"nothing trained yet in {run.path}; train it with: {resolved.command()}")
    _refuse_another(run, resolved)
    return evaluate_run(run, prepare_machine(settings), split, console, batch_size)


def evaluate_run(
    run: RunFolder,
    device: torch.device,
    split: str,
    console: Console,
    batch_size: int | None = None,
    stop: StopSignals | None = None,
) -> Values:
    """Evaluate a run's best checkpoint under its task's protocol and keep the outcome in `eval/`."""
    loaded = load_run(run.path, str(device))
    experiment, task = loaded.experiment, loaded.task
    digest = hashlib.sha256()
    size = batch_size or experiment.training.evaluation_batch_size
    batches = track(task.evaluation_batches(split, size), -(-task.sizes[split] // size), console, f"evaluating {split}")
    totals = evaluate(loaded.model, _hashed(_until(stop, batches), digest))
    outcome = {
        "schema": SCHEMA,
        "protocol": {
            "name": PROTOCOLS[experiment.task.kind],
            "unit": "symbol",
            "segment_length": experiment.model.segment_length,
            "memory_slots": experiment.model.memory_slots,
            "memory_reset": "sequence",
            "scored": "the symbols of the answer, teacher-forced",
        },
        "split": split,
        "step": loaded.step,
        "metrics": totals.metrics(split),
        "totals": vars(totals),
        "calibration": _calibration(experiment, task, split),
        "data": {"name": experiment.task.kind, "sha256": digest.hexdigest()},
    }
    folder = run.path / "eval"
    folder.mkdir(exist_ok=True)
    write_json(folder / f"{outcome['protocol']['name']}-{split}.json", outcome)
    return outcome


def dry_run(resolved: ResolvedCell, settings: Settings) -> Values:
    """Sizes of a cell, and the time of its training predicted from a few real steps. Writes nothing."""
    experiment, device = resolved.experiment, prepare_machine(settings)
    task = build_task(experiment)
    model = build_model(experiment, task.vocab_size, resolved.cell.seed).to(device)
    optimizer = make_optimizer(model, experiment.training.learning_rate)
    times: list[float] = []
    while len(times) < 2 or (len(times) < 5 and sum(times) < 5):
        start = time.perf_counter()
        optimize(model, optimizer, task, experiment.training, len(times), resolved.cell.seed)
        times.append(time.perf_counter() - start)
    tokens = experiment.training.steps * experiment.training.batch_size * _tokens_each(experiment)
    return {
        "command": resolved.command(),
        "folder": str(settings.runs / resolved.cell.folder),
        "parameters": _parameters(model),
        "memory_slots": experiment.model.memory_slots,
        "segment_length": experiment.model.segment_length,
        "steps": experiment.training.steps,
        "tokens": tokens,
        "device": str(device),
        "peak_memory_mb": round(peak_memory_bytes(device) / 2**20),
        "seconds_a_step": round(min(times[1:]), 4),
        "predicted_training_seconds": round(min(times[1:]) * experiment.training.steps, 2),
    }


def _train_locked(
    run: RunFolder, resolved: ResolvedCell, settings: Settings, device: torch.device, console: Console
) -> Values:
    experiment, cell = resolved.experiment, resolved.cell
    run.write_config(resolved.config())
    environment = {**describe_environment(device), "command": resolved.command()}
    write_json(run.path / "environment.json", environment)
    run.write_status("running")
    try:
        with StopSignals() as stop:
            resume = _resume(run)
            step = resume.step if resume else 0
            wandb_id = resume.state.get("wandb_id") if resume else None
            identity = {"wandb_id": wandb_id or new_wandb_id()}
            task = build_task(experiment)
            model = build_model(experiment, task.vocab_size, cell.seed).to(device)
            title = f"{cell.experiment} {cell.model}@{cell.case}"
            sinks: list[Sink] = [
                MetricsFile(run.metrics, step),
                ScreenProgress(console, title, experiment.training.steps, step),
            ]
            if settings.wandb != "disabled":
                name = "/".join(cell.folder.parts)
                sinks.append(
                    WandbRun(
                        run.path, identity["wandb_id"], name, settings.wandb_project, settings.wandb, resolved.config()
                    )
                )
            begin = f"continuing at step {step} of" if resume else "training for"
            console.print(
                f"{title}, {cell.scale} scale, seed {cell.seed}: {begin} {experiment.training.steps} steps, "
                f"{_parameters(model):,} parameters, {run.path}",
                soft_wrap=True,
            )
            with Sinks(sinks) as log:
                progress = train(
                    model,
                    task,
                    experiment.training,
                    seed=cell.seed,
                    folder=run.checkpoints,
                    resume=resume,
                    identity=identity,
                    log=log,
                    stop=stop,
                )
                outcome = evaluate_run(run, device, "test", console, stop=stop)
                log.log(progress.step, outcome["metrics"])
        result = _result(resolved, outcome, progress, _parameters(model), environment, device)
        write_json(run.path / "result.json", result)
    except (Stopped, KeyboardInterrupt):
        run.write_status("stopped", "by a signal; the same command continues")
        raise
    except BaseException as fault:
        with contextlib.suppress(OSError):  # a full disk must not hide what failed
            run.write_status("failed", str(fault))
        raise
    run.write_status("done")
    return result


def _result(
    resolved: ResolvedCell,
    outcome: Values,
    progress: Progress,
    parameters: int,
    environment: Values,
    device: torch.device,
) -> Values:
    experiment = resolved.experiment
    tokens = progress.step * experiment.training.batch_size * _tokens_each(experiment)
    return {
        "schema": SCHEMA,
        **resolved.config()["cell"],
        "metrics": outcome["metrics"],
        "totals": outcome["totals"],
        "calibration": outcome["calibration"],
        "protocol": outcome["protocol"],
        "data": outcome["data"],
        "best_step": outcome["step"],
        "best_validation_loss": progress.best_loss,
        "parameters": parameters,
        "memory_slots": experiment.model.memory_slots,
        "tokens_seen": tokens,
        "wall_seconds": round(progress.seconds, 2),
        "tokens_per_second": round(tokens / progress.seconds),
        "peak_memory_bytes": peak_memory_bytes(device),
        "commit": environment["commit"],
        "dirty": environment["dirty"],
        "command": environment["command"],
    }


def _calibration(experiment: Experiment, task: SortTask, split: str) -> Values:
    """What accuracy means here: chance, and the oracle that sees what attention over as many slots would."""
    window = experiment.model.memory_slots + experiment.task.length % experiment.model.segment_length
    return {"chance": task.chance(), "oracle_window": window, "oracle": task.window_oracle(split, window)}


def prepare_machine(settings: Settings) -> torch.device:
    """Set what the settings say of this machine. UsageError for a device that is not there."""
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    return choose_device(settings.device)


def _resume(run: RunFolder) -> Checkpoint | None:
    checkpoint, skipped = load_last(run.checkpoints)
    for text in skipped:
        warnings.warn(text, stacklevel=2)
    return checkpoint


def _refuse_another(run: RunFolder, resolved: ResolvedCell) -> None:
    """UsageError where the folder holds a run with other settings."""
    if not (run.path / "config.yaml").exists():
        return
    changed = differences(run.config(), resolved.config())
    if changed:
        listing = "\n".join(f"  {line}" for line in changed)
        raise UsageError(
            f"{run.path} holds a run with other settings:\n{listing}\n"
            "start over with --fresh (removes it), or keep both with --name"
        )


def _empty(folder: Path) -> None:
    """Remove everything a run folder holds but its lock."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != ".lock":
            path.unlink()


def _until(stop: StopSignals | None, batches: Iterator[Batch]) -> Iterator[Batch]:
    for batch in batches:
        if stop is not None and stop.received is not None:
            raise Stopped("stopped while testing; the same command tests what was trained", stop.received)
        yield batch


def _hashed(batches: Iterator[Batch], digest: Any) -> Iterator[Batch]:
    for batch in batches:
        digest.update(torch.cat([batch.tokens, batch.targets], 1).numpy().astype("<i8").tobytes())
        yield batch


def _tokens_each(experiment: Experiment) -> int:
    return experiment.task.length + experiment.task.vocabulary


def _parameters(model: Decoder) -> int:
    return sum(parameter.numel() for parameter in model.parameters())

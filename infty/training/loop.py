"""Train a model: stop, validate and save, take a step, log."""

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from infty.base.errors import InftyError, MissingError, Stopped
from infty.evaluation.evaluate import evaluate
from infty.model.tensors import load_weights, weight_tensors
from infty.tasks.task import Task
from infty.training.adam import Adam
from infty.training.ahead import Ahead
from infty.training.checkpoint import Checkpoint, TrainingState, save_checkpoint, write_pointers
from infty.training.config import TrainingConfig
from infty.training.data_parallel import Memory, Replica
from infty.training.signals import StopSignals
from infty.training.step import collect_optimizer_tensors, load_optimizer_tensors, make_optimizer, optimize


def train(
    replica: Replica,
    task: Task,
    config: TrainingConfig,
    *,
    seed: int,
    folder: Path,
    begin: Checkpoint,
    log: Callable[[int, Mapping[str, float | None]], None],
    stop: StopSignals,
) -> TrainingState:
    """Train to `config.total_steps`, with checkpoints in `folder`.

    Data, dropout and learning rate of a step are functions of (seed, step), so a continued run takes exactly the steps
    of an uninterrupted one. A signal ends a validation, which the continued run then repeats. Several processes take
    every step together, and one of them writes.

    begin: the checkpoint to continue from; without tensors: step 0. log: takes steps done, and metrics by name.

    Raises:
        Stopped: A signal came.
        InftyError: A loss or gradient is not finite, or a checkpoint can't be saved.
        MissingError: `begin` is another model's.
    """
    # Continue from a checkpoint, or begin.
    model, group, state = replica.model, replica.group, begin.state
    optimizer = make_optimizer(model, config.learning_rate, config.memory_learning_rate)
    memory = _restore(replica, optimizer, folder, begin, config.batch_size) if begin.tensors else None
    saved_step = state.step if begin.tensors else None
    data = Ahead(task, config.total_steps)

    def save() -> None:
        tensors = {"model": weight_tensors(model), "optimizer": collect_optimizer_tensors(optimizer, model)}
        if memory is not None and (kept := replica.gather_memory_tensors(memory)):
            tensors["state"] = kept
        if group.leads:
            save_checkpoint(folder, Checkpoint(state, tensors))

    while True:
        # A signal in any process stops all, after the steps since the last checkpoint are saved.
        if number := group.find_largest(stop.received or 0):
            if state.step != saved_step:
                save()
                group.wait()  # until it is written: when one process ends, a launcher kills the others
            raise Stopped(f"stopped at step {state.step}; the same command continues from there", number)

        # A checkpoint follows each validation; a run that stopped between a step and its validation continues here.
        if _validation_is_due(state, config):
            batches = task.evaluation_batches("validation", config.evaluation_batch_size, group.share)
            totals = group.sum_totals(evaluate(model, stop.yield_until_signal(batches), choices=task.has_answers))
            if group.is_true_anywhere(stop.received is not None):
                continue
            loss = totals.nats / totals.scored
            if not math.isfinite(loss):
                raise InftyError(f"validation loss {loss} at step {state.step}; try a lower training.learning_rate")
            log(state.step, task.compute_metrics("validation", totals))
            state.validated_step = state.step
            if state.best_loss is None or loss < state.best_loss:
                state.best_step, state.best_loss = state.step, loss
            save()
            saved_step = state.step
            continue

        if state.step >= config.total_steps:
            return state

        # Take one step; its seconds leave out validations and checkpoints.
        start = time.perf_counter()
        metrics, memory = optimize(replica, optimizer, data, config, state.step, seed, memory, folder.parent)
        state.step += 1
        state.seconds += time.perf_counter() - start
        if state.step % config.log_every == 0 or state.step == config.total_steps:
            log(state.step, metrics)


def _validation_is_due(state: TrainingState, config: TrainingConfig) -> bool:
    """Tell if a validation is due: once after every `evaluate_every` steps, and after the last."""
    ends = state.step % config.evaluate_every == 0 or state.step == config.total_steps
    return ends and state.step not in (0, state.validated_step)


def _restore(replica: Replica, optimizer: Adam, folder: Path, begin: Checkpoint, batch_size: int) -> Memory | None:
    """Restore weights and optimiser from a checkpoint; return its memory, if any. MissingError if they do not fit."""
    model = replica.model
    if replica.group.leads:
        write_pointers(folder, begin.state)  # the run may have been interrupted between a checkpoint and its pointers
    try:
        load_weights(model, begin.tensors["model"])
        load_optimizer_tensors(optimizer, model, begin.tensors["optimizer"])
        return replica.load_memory(begin.tensors["state"], batch_size) if "state" in begin.tensors else None
    except (KeyError, RuntimeError) as fault:
        why = (str(fault.args[0]) if fault.args else "").splitlines()[:2]
        raise MissingError(
            f"the checkpoint of step {begin.state.step} in {folder} is another model's ({' '.join(why)}); start over "
            "with --fresh"
        ) from None

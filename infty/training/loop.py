"""The training loop, from top to bottom: stop, step, log, evaluate, save."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, Protocol

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from infty.errors import InftyError, MissingError, Stopped
from infty.evaluation import evaluate
from infty.interfaces import UNSCORED, Batch, Task, TrainingData
from infty.model.segments import SegmentModel, State
from infty.model.state import load_state, state_tensors
from infty.model.unroll import unroll
from infty.model.weights import load_weights, weight_tensors
from infty.training.checkpoint import Checkpoint, TrainingState, point, save_checkpoint
from infty.training.faults import keep_batch
from infty.training.optimizer import load_optimizer_tensors, make_optimizer, optimizer_tensors, schedule
from infty.training.signals import StopSignals


def _is_none(value: object) -> bool:
    return value is None


class TrainingConfig(BaseModel):
    """How a model is trained: Adam, linear warm-up, cosine or line to 0, clipped gradients."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    steps: int | None = Field(default=None, gt=0, description="optimiser steps (section 4.1: 20,000); null: see epochs")
    epochs: int | None = Field(
        default=None, gt=0, exclude_if=_is_none, description="passes over the training part; null: see steps"
    )
    batch_size: int = Field(gt=0, description="sequences a step (section 4.1: 8)")
    learning_rate: float = Field(gt=0, description="peak of the schedule (section 4.1: 2.5e-4)")
    memory_learning_rate: float | None = Field(
        default=None, gt=0, exclude_if=_is_none, description="peak for the long-range memories; null: learning_rate"
    )
    schedule: Literal["cosine", "linear"] = Field(
        default="cosine", exclude_if=lambda kind: kind == "cosine", description="how the rate falls to 0"
    )
    warmup_steps: int = Field(default=0, ge=0, description="steps of linear warm-up")
    clip_norm: float = Field(default=0.25, gt=0, description="largest norm of the gradient (section 4.1: 0.25)")
    log_every: int = Field(default=10, gt=0, description="steps between lines of metrics")
    evaluate_every: int = Field(gt=0, description="steps between validations; each is followed by a checkpoint")
    evaluation_batch_size: int = Field(default=32, gt=0, description="sequences evaluated at once; changes no result")

    @model_validator(mode="after")
    def _one_length(self) -> "TrainingConfig":
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("wanted either steps or epochs; the other is null")
        return self

    @property
    def total_steps(self) -> int:
        """Optimiser steps. ValueError where they are still to be counted (see `counted`)."""
        if self.steps is None:
            raise ValueError(f"{self.epochs} epochs are not counted in steps yet")
        return self.steps

    def counted(self, steps_an_epoch: Callable[[int], int]) -> "TrainingConfig":
        """The same with epochs as steps. steps_an_epoch: of a task, for a batch size."""
        if self.epochs is None:
            return self
        steps = self.epochs * steps_an_epoch(self.batch_size)
        return self.model_copy(update={"steps": steps, "epochs": None})


class Log(Protocol):
    """Where metrics go."""

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Metrics after `step` optimiser steps, named `<split>/<name>`."""
        ...


def train(
    model: SegmentModel,
    task: Task,
    config: TrainingConfig,
    *,
    seed: int,
    folder: Path,
    state: TrainingState,
    resume: Checkpoint | None,
    log: Log,
    stop: StopSignals,
) -> TrainingState:
    """Train to `config.total_steps`, with checkpoints in `folder`. state: where the run stands, as `resume` has it.

    Data, dropout and learning rate of a step are functions of (seed, step): so a continued run takes
    exactly the steps that an uninterrupted one would have. A signal in the middle of a validation ends it there: the
    run that continues begins with it.
    Raises Stopped after a signal, InftyError where a loss or gradient is not finite or a checkpoint can't be saved, and
    MissingError where `resume` is another model's.
    """
    optimizer = make_optimizer(model, config.learning_rate, config.memory_learning_rate)
    memory = _restore(model, optimizer, folder, resume) if resume else None
    saved_step = state.step if resume else None

    def save() -> None:
        tensors = {"model": weight_tensors(model), "optimizer": optimizer_tensors(optimizer, model)}
        if memory is not None:
            tensors["state"] = state_tensors(memory)
        save_checkpoint(folder, Checkpoint(state, tensors))

    while True:
        if stop.received is not None:
            if state.step != saved_step:
                save()
            raise Stopped(f"stopped at step {state.step}; the same command continues from there", stop.received)

        if _validation_is_due(state, config):
            batches = task.evaluation_batches("validation", config.evaluation_batch_size)
            totals = evaluate(model, stop.until_received(batches), choices=task.has_answers)
            if stop.received is not None:
                continue
            validation = task.metrics("validation", totals)
            loss = validation["validation/loss"]
            if not math.isfinite(loss):
                raise InftyError(f"validation loss {loss} at step {state.step}; try a lower training.learning_rate")
            log.log(state.step, validation)
            state.validated_step = state.step
            if state.best_loss is None or loss < state.best_loss:
                state.best_step, state.best_loss = state.step, loss
            save()
            saved_step = state.step
            continue

        if state.step >= config.total_steps:
            return state

        start = time.perf_counter()
        metrics, memory = optimize(model, optimizer, task, config, state.step, seed, memory, folder.parent)
        state.step += 1
        state.seconds += time.perf_counter() - start
        if state.step % config.log_every == 0 or state.step == config.total_steps:
            log.log(state.step, metrics)


def batch_losses(
    model: SegmentModel, batch: Batch, state: State | None = None
) -> tuple[dict[str, Float[Tensor, ""]], State | None]:
    """`loss`, the mean cross-entropy of the scored targets in nats, and the model's auxiliary losses.

    state: what the batch goes on from, where it does; what comes after it is returned beside the losses.
    """
    scored = int((batch.targets != UNSCORED).sum())
    losses: dict[str, Tensor] = {}
    for output, segment in unroll(model, batch.segments(model.config.segment_length), state):
        for name, loss in {"loss": output.nats(segment.targets).sum() / scored, **output.auxiliary}.items():
            losses[name] = losses[name] + loss if name in losses else loss
        state = output.state
    return losses, state


def weighted(losses: dict[str, Float[Tensor, ""]], model: SegmentModel) -> Float[Tensor, ""]:
    """What is minimised: the loss and the auxiliary losses with the model's weights."""
    weights = {"loss": 1.0, **model.config.auxiliary_weights}
    return torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()


def optimize(
    model: SegmentModel,
    optimizer: torch.optim.Adam,
    task: TrainingData,
    config: TrainingConfig,
    step: int,
    seed: int,
    state: State | None = None,
    run: Path | None = None,
) -> tuple[dict[str, float], State | None]:
    """One optimiser step from the memory `state`: its metrics, and the memory after it if the task continues.

    InftyError before the update where loss or gradient are not finite; the batch is kept in the folder `run`, if given.
    """
    start = time.perf_counter()
    model.train()
    torch.manual_seed((seed << 32) + step + 1)
    batch = task.training_batch(step, config.batch_size, seed)
    losses, state = batch_losses(model, batch, state)
    total = weighted(losses, model)
    optimizer.zero_grad()
    total.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
    if not (total.isfinite() and norm.isfinite()):
        figures = {"loss": total.item(), **{f"loss/{name}": loss.item() for name, loss in losses.items()}}
        kept = keep_batch(run, step, batch, {**figures, "gradient_norm": norm.item()}) if run else None
        raise InftyError(
            f"loss {total.item():.4g}, gradient norm {norm.item():.4g} at step {step}: not finite, nothing was "
            f"updated{f' (the batch: {kept})' if kept else ''}; try a lower training.learning_rate"
        )
    share = schedule(step, config.total_steps, config.warmup_steps, config.schedule)
    for group in optimizer.param_groups:
        group["lr"] = share * group["peak"]
    optimizer.step()
    values = {f"train/{name}": loss.item() for name, loss in losses.items()}
    speed = batch.tokens.numel() / (time.perf_counter() - start)
    metrics = {
        **values,
        "train/gradient_norm": norm.item(),
        "train/learning_rate": share * config.learning_rate,
        "train/tokens_per_second": speed,
    }
    return metrics, state if task.continues else None


def _validation_is_due(state: TrainingState, config: TrainingConfig) -> bool:
    """After every `evaluate_every` steps and the last, once."""
    ends = state.step % config.evaluate_every == 0 or state.step == config.total_steps
    return ends and state.step not in (0, state.validated_step)


def _restore(model: SegmentModel, optimizer: torch.optim.Adam, folder: Path, resume: Checkpoint) -> State | None:
    """Weights and optimiser from a checkpoint; its memory, if it carries one. MissingError where they don't fit."""
    point(folder, resume.state)
    try:
        load_weights(model, resume.tensors["model"])
        load_optimizer_tensors(optimizer, model, resume.tensors["optimizer"])
        return load_state(model, resume.tensors["state"]) if "state" in resume.tensors else None
    except (KeyError, RuntimeError) as fault:
        why = (str(fault.args[0]) if fault.args else "").splitlines()[:2]
        raise MissingError(
            f"the checkpoint of step {resume.state.step} in {folder} is another model's ({' '.join(why)}); start over "
            "with --fresh"
        ) from None

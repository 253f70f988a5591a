"""The configuration of training."""

from typing import Literal

from pydantic import Field, model_validator

from infty.base.files import Strict, omit_default
from infty.tasks.task import TrainingData


class TrainingConfig(Strict):
    """The settings of training: Adam, linear warm-up, cosine or linear decay to 0, clipped gradients."""

    steps: int | None = Field(default=None, gt=0, description="optimiser steps (section 4.1: 20,000); null: see epochs")
    epochs: int | None = omit_default(None, gt=0, description="passes over the training part; null: see steps")
    batch_size: int = Field(gt=0, description="sequences a step (section 4.1: 8)")
    learning_rate: float = Field(gt=0, description="peak of the schedule (section 4.1: 2.5e-4)")
    memory_learning_rate: float | None = omit_default(
        None, gt=0, description="peak for the long-range memories; null: learning_rate"
    )
    schedule: Literal["cosine", "linear"] = omit_default("cosine", description="how the rate falls to 0")
    warmup_steps: int = Field(default=0, ge=0, description="steps of linear warm-up")
    gradient_segments: int = omit_default(
        1, gt=0, description="last segments through which the gradient flows; of a text, so many are read in a step"
    )
    clip_norm: float = Field(default=0.25, gt=0, description="largest norm of the gradient (section 4.1: 0.25)")
    log_every: int = Field(default=10, gt=0, description="steps between lines of metrics")
    evaluate_every: int = Field(gt=0, description="steps between validations; each is followed by a checkpoint")
    evaluation_batch_size: int = Field(default=32, gt=0, description="sequences evaluated at once; changes no result")

    @model_validator(mode="after")
    def _check_length(self) -> "TrainingConfig":
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("wanted either steps or epochs; the other is null")
        return self

    @property
    def total_steps(self) -> int:
        """The number of optimiser steps. ValueError if epochs are not converted to steps yet (see `count_steps`)."""
        if self.steps is None:
            raise ValueError(f"{self.epochs} epochs are not counted in steps yet")
        return self.steps

    def count_steps(self, task: TrainingData) -> "TrainingConfig":
        """Return this configuration with epochs converted to steps of a task."""
        if self.epochs is None:
            return self
        batches = self.epochs * task.count_steps_per_epoch(self.batch_size)
        steps = -(-batches // task.count_batches(1, self.gradient_segments))
        return self.model_copy(update={"steps": steps, "epochs": None})

"""One frozen, checked Experiment from a YAML cell, and the task and model it describes."""

import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from infty.config.definition import CellKey, Definition
from infty.config.faults import Fault, origin_of, raise_faults, value_faults
from infty.config.overlay import Values, overlay, parse_override
from infty.corpora.tokens import Portion
from infty.model.config import AnyModelConfig
from infty.model.interface import SegmentModel
from infty.tasks.corpus import NAMES, CorpusConfig
from infty.tasks.sort import SortConfig
from infty.tasks.task import Task
from infty.training.config import TrainingConfig

TaskChoice = Annotated[SortConfig | CorpusConfig, Field(discriminator="kind")]  # a new task joins here


class PretrainingText(BaseModel):
    """What a GPT-2 reads before it is fine-tuned on another text."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    corpus: str = Field(pattern=NAMES, description="name of a corpus that `infty data list` shows")
    train: Portion = Field(description="documents to train on")
    validation: Portion = Field(description="documents to validate on")


class PretrainingConfig(TrainingConfig):
    """How and on what a GPT-2 is trained first."""

    text: PretrainingText | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="another text than the task's; the tokeniser is learnt from it as well. null: the task's",
    )


class Experiment(BaseModel):
    """The science of one cell: what is learnt, by what, and how."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    task: TaskChoice = Field(description="what is learnt")
    model: AnyModelConfig = Field(description="what learns it")
    training: TrainingConfig = Field(description="how it is learnt")
    pretraining: PretrainingConfig | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="how a GPT-2 is trained first, without memory, for all rows to start from; null: it is not",
    )


@dataclass(frozen=True)
class Cell:
    """A cell with its checked values. origins: which layer each key came from; absent keys are defaults.

    made_by: the command that trains it, where it is no cell of a table.
    """

    key: CellKey
    experiment: Experiment
    origins: dict[tuple[str, ...], str]
    source: str
    overrides: tuple[str, ...] = ()
    made_by: str | None = None

    @property
    def config(self) -> Values:
        """What `config.yaml` of the run folder holds: everything that the result depends on."""
        k = self.key
        place = {"experiment": k.experiment, "scale": k.scale, "model": k.model, "case": k.case, "seed": k.seed}
        return {"cell": place, **self.experiment.model_dump(mode="json")}

    @property
    def command(self) -> str:
        """The command that trains this very cell."""
        return self.made_by or self.key.command(self.source, self.overrides)


def resolve(definition: Definition, key: CellKey, overrides: typing.Sequence[str] = ()) -> Cell:
    """The cell's values, overlaid and checked; UsageError with every fault at once."""
    definition.check_names(key.scale, key.model, key.case)
    parsed = [parse_override(text) for text in overrides]
    layers = definition.layers(key) + [("--set", values) for values, fault in parsed if fault is None]
    faults = definition.faults + [fault for _, fault in parsed if fault is not None]
    values, origins = overlay(layers)
    experiment = None
    try:
        experiment = Experiment.model_validate(values)
    except ValidationError as error:
        faults += value_faults(error, Experiment, origins, definition.path.name)
    else:
        faults += _task_faults(experiment, origins) + _start_faults(experiment, origins)
    raise_faults(faults)
    assert experiment is not None
    return Cell(key, experiment, origins, definition.source, tuple(overrides))


def build_task(experiment: Experiment, data: Path, *, make: bool = True) -> Task:
    """Open the source of sequences. data: the folder of corpora. MissingError if one that is read is not there.

    make: tokenise a text that is not tokenised yet, else MissingError.
    """
    first = experiment.pretraining and experiment.pretraining.text
    learnt_from = (first.corpus, first.train) if first else None
    return experiment.task.open(data, experiment.model.segment_length, learnt_from, make=make)


def build_model(experiment: Experiment, vocab_size: int, seed: int) -> SegmentModel:
    """Build the model with the initial weights that `seed` decides. UsageError if it does not fit the vocabulary."""
    torch.manual_seed(seed)
    return experiment.model.build(vocab_size)


def _start_faults(experiment: Experiment, origins: dict[tuple[str, ...], str]) -> list[Fault]:
    """What of the starting weights does not go together."""
    model = experiment.model
    if experiment.pretraining is None:
        return []
    origin = origin_of(origins, ("pretraining",), "")
    if not model.fine_tunes:
        return [Fault(origin, "pretraining", "is for model.kind gpt2 only")]
    if model.starting_weights is not None:
        return [
            Fault(origin, "pretraining", f"model.weights is {model.starting_weights!r}: one of the two must be null")
        ]
    return []


def _task_faults(experiment: Experiment, origins: dict[tuple[str, ...], str]) -> list[Fault]:
    """Find what of the task does not go together with the rest."""
    task, model = experiment.task, experiment.model
    found = [*task.find_faults(model.segment_length), *model.find_faults(task.vocab_size)]
    return [Fault(origin_of(origins, tuple(key.split(".")), ""), key, message) for key, message in found]

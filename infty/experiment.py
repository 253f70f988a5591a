"""One frozen, checked Experiment from a YAML cell, and the task and model it describes."""

import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from infty.base.errors import UsageError
from infty.config.definition import Cell, Definition
from infty.config.faults import Fault, nearest, origin_of, refuse, value_faults
from infty.config.overlay import Values, overlay, parse_override
from infty.corpora.tokens import Portion, open_tokens
from infty.model.config import AnyModelConfig, DecoderConfig, Gpt2ModelConfig
from infty.model.decoder import Decoder
from infty.model.interface import SegmentModel
from infty.tasks.corpus import NAMES, CorpusConfig, CorpusTask
from infty.tasks.protocols import TEXT_PROTOCOLS
from infty.tasks.sort import SortConfig, SortTask, nearest_lengths
from infty.training.config import TrainingConfig

Task = SortTask | CorpusTask


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

    task: Annotated[SortConfig | CorpusConfig, Field(discriminator="kind")] = Field(description="what is learnt")
    model: AnyModelConfig = Field(description="what learns it")
    training: TrainingConfig = Field(description="how it is learnt")
    pretraining: PretrainingConfig | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="how a GPT-2 is trained first, without memory, for all rows to start from; null: it is not",
    )


@dataclass(frozen=True)
class ResolvedCell:
    """A cell with its checked values. origins: which layer each key came from; absent keys are defaults.

    made_by: the command that trains it, where it is no cell of a table.
    """

    cell: Cell
    experiment: Experiment
    origins: dict[tuple[str, ...], str]
    source: str
    overrides: tuple[str, ...] = ()
    made_by: str | None = None

    def config(self) -> Values:
        """What `config.yaml` of the run folder holds: everything that the result depends on."""
        c = self.cell
        place = {"experiment": c.experiment, "scale": c.scale, "model": c.model, "case": c.case, "seed": c.seed}
        return {"cell": place, **self.experiment.model_dump(mode="json")}

    def command(self) -> str:
        """What trains this very cell."""
        return self.made_by or self.cell.command(self.source, self.overrides)


def resolve(definition: Definition, cell: Cell, overrides: typing.Sequence[str] = ()) -> ResolvedCell:
    """The cell's values, overlaid and checked; UsageError with every fault at once."""
    definition.check_names(cell.scale, cell.model, cell.case)
    parsed = [parse_override(text) for text in overrides]
    layers = definition.layers(cell) + [("--set", values) for values, fault in parsed if fault is None]
    faults = definition.faults + [fault for _, fault in parsed if fault is not None]
    values, origins = overlay(layers)
    experiment = None
    try:
        experiment = Experiment.model_validate(values)
    except ValidationError as error:
        faults += value_faults(error, Experiment, origins, definition.path.name)
    else:
        faults += _task_faults(experiment, origins) + _start_faults(experiment, origins)
    refuse(faults)
    assert experiment is not None
    return ResolvedCell(cell, experiment, origins, definition.source, tuple(overrides))


def build_task(experiment: Experiment, data: Path, *, make: bool = True) -> Task:
    """The source of sequences. `data`: the folder of corpora; MissingError where one is wanted that is not there.

    make: tokenise a text that is not tokenised yet, else MissingError.
    """
    match experiment.task:
        case SortConfig():
            return SortTask(experiment.task)
        case CorpusConfig():
            c = experiment.task
            first = experiment.pretraining and experiment.pretraining.text
            learnt_from = (first.corpus, first.train) if first else None
            tokens = open_tokens(data, c.corpus, c.tokenizer, c.portions, learnt_from=learnt_from, make=make)
            return CorpusTask(c, tokens, experiment.model.segment_length)


def build_model(experiment: Experiment, vocab_size: int, seed: int) -> SegmentModel:
    """The model with its initial weights, which `seed` decides. UsageError where it does not fit the vocabulary."""
    torch.manual_seed(seed)
    if isinstance(experiment.model, Gpt2ModelConfig):
        from infty.model.gpt2 import build_gpt2  # loads transformers, which nothing else wants

        return build_gpt2(experiment.model, vocab_size)
    try:
        return Decoder(experiment.model, vocab_size)
    except ValueError as fault:  # a vocabulary that came out smaller than the cutoffs
        raise UsageError(f"model.adaptive: {fault}") from None


def _start_faults(experiment: Experiment, origins: dict[tuple[str, ...], str]) -> list[Fault]:
    """What of the starting weights does not go together."""
    model, origin = experiment.model, origin_of(origins, ("pretraining",), "")
    if experiment.pretraining is None:
        return []
    if not isinstance(model, Gpt2ModelConfig):
        return [Fault(origin, "pretraining", "is for model.kind gpt2 only")]
    if model.weights is not None:
        return [Fault(origin, "pretraining", f"model.weights is {model.weights!r}: one of the two must be null")]
    return []


def _task_faults(experiment: Experiment, origins: dict[tuple[str, ...], str]) -> list[Fault]:
    """What of the task does not go together with the rest."""
    task, segment = experiment.task, experiment.model.segment_length
    if isinstance(task, CorpusConfig):
        faults = []
        protocol = TEXT_PROTOCOLS.get(task.protocol)
        if protocol and not protocol.has_blocks_of(segment, task.tokenizer.kind):
            origin = origin_of(origins, ("task", "protocol"), "")
            wanted = f"is for model.segment_length {protocol.block} and {protocol.tokenizer} tokens"
            faults.append(Fault(origin, "task.protocol", f"{task.protocol} {wanted}; gpt2-blocks-v1 is for others"))
        if protocol is None:
            known = nearest(task.protocol, TEXT_PROTOCOLS)
            origin = origin_of(origins, ("task", "protocol"), "")
            faults.append(Fault(origin, "task.protocol", f"no {task.protocol!r}; {known}"))
        model, size = experiment.model, task.tokenizer.vocab_size
        cuts = model.adaptive.cutoffs if isinstance(model, DecoderConfig) and model.adaptive else ()
        if cuts and cuts[-1] >= size:
            origin = origin_of(origins, ("model", "adaptive", "cutoffs"), "")
            message = f"the last, {cuts[-1]}, is not below the {size} of task.tokenizer.vocab_size"
            faults.append(Fault(origin, "model.adaptive.cutoffs", message))
        return faults
    fitting = nearest_lengths(task.length, task.vocabulary, segment)
    if fitting == [task.length]:
        return []
    origin = origin_of(origins, ("task", "length"), "")
    if not fitting:
        return [Fault(origin, "model.segment_length", f"{segment} is too short for the {task.vocabulary} targets")]
    return [
        Fault(
            origin,
            "task.length",
            f"at {task.length} the separator and the {task.vocabulary} targets would straddle two segments of "
            f"{segment}; the nearest that work: {' and '.join(map(str, fitting))}",
        )
    ]

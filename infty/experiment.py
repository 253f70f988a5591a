"""Resolve a cell of a YAML table to one frozen, checked Experiment, and build the task and model it describes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, get_args

from pydantic import Field, ValidationError

from infty.base.files import Strict, omit_default
from infty.config.definition import CellKey, Definition, Values, overlay, parse_override
from infty.config.faults import Fault, origin_of, raise_faults, value_faults
from infty.corpora.tokens import Portion
from infty.model.config import AnyModelConfig
from infty.tasks.corpus import CorpusConfig
from infty.tasks.first_seen import FirstSeenConfig
from infty.tasks.recall import RecallConfig
from infty.tasks.recall_text import RecallTextConfig
from infty.tasks.sort import SortConfig
from infty.tasks.sort_stretch import SortStretchConfig
from infty.tasks.task import Task
from infty.tasks.text import NAMES, TextConfig
from infty.training.config import TrainingConfig

AnyTaskConfig = (  # a new task joins here
    SortConfig | FirstSeenConfig | SortStretchConfig | RecallConfig | RecallTextConfig | CorpusConfig
)
TaskChoice = Annotated[AnyTaskConfig, Field(discriminator="kind")]
WITH_A_CORPUS = [kind.model_fields["kind"].default for kind in get_args(AnyTaskConfig) if issubclass(kind, TextConfig)]
WITHOUT_TEXT = [kind.model_fields["kind"].default for kind in get_args(AnyTaskConfig) if not kind.has_text]


class PretrainingText(Strict):
    """The text that a GPT-2 is trained on before it is fine-tuned on another."""

    corpus: str = Field(pattern=NAMES, description="name of a corpus that `infty data list` shows")
    train: Portion = Field(description="documents to train on")
    validation: Portion = Field(description="documents to validate on")


class PretrainingConfig(TrainingConfig):
    """The training of a GPT-2 that is then fine-tuned."""

    text: PretrainingText | None = omit_default(
        None, description="another text than the task's; the tokeniser is learnt from it as well. null: the task's"
    )


class Experiment(Strict):
    """The task, the model and the training of one cell."""

    task: TaskChoice = Field(description="what is learnt")
    model: AnyModelConfig = Field(description="what learns it")
    training: TrainingConfig = Field(description="how it is learnt")
    pretraining: PretrainingConfig | None = omit_default(
        None, description="how a GPT-2 is trained first, without memory, for all rows to start from; null: it is not"
    )


@dataclass(frozen=True)
class Cell:
    """A cell with its checked values."""

    key: CellKey
    experiment: Experiment
    origins: dict[tuple[str, ...], str]  # the layer that each key came from; absent keys are defaults
    source: str
    overrides: tuple[str, ...] = ()
    made_by: str | None = None  # the command that trains it, if it is not a cell of a table
    own: Path | None = None  # folder of the user's own texts, after which its corpus is named

    @property
    def config(self) -> Values:
        """The content of the run folder's `config.yaml`: everything that the result depends on."""
        place = {key: value for key, value in vars(self.key).items() if key != "variant"}
        return {"cell": place, **self.experiment.model_dump(mode="json")}

    @property
    def command(self) -> str:
        """The command that trains this cell."""
        return self.made_by or self.key.command(self.source, self.overrides)


def resolve(definition: Definition, key: CellKey, overrides: Sequence[str] = (), own: Path | None = None) -> Cell:
    """Resolve a cell: overlay its layers of values and check them. UsageError lists every fault at once."""
    definition.check_names(scales=key.scale, models=key.model, cases=key.case)
    parsed = [parse_override(text) for text in overrides]
    layers = definition.layers(key) + [("--set", values) for values, fault in parsed if fault is None]
    faults = definition.faults + [fault for _, fault in parsed if fault is not None]
    values, origins = overlay(layers)
    try:
        experiment = Experiment.model_validate(values)
    except ValidationError as error:
        raise_faults(faults + value_faults(error, Experiment, origins, definition.path.name))
        raise
    for name, why in _find_contradictions(experiment):
        faults.append(Fault(origin_of(origins, tuple(name.split(".")), ""), name, why))
    raise_faults(faults)
    return Cell(key, experiment, origins, definition.source, tuple(overrides), own=own)


def refuse_own_texts(definition: Definition, key: CellKey) -> None:
    """Raise UsageError if the task of a cell reads no texts, so that it can't read one's own."""
    task = overlay(definition.layers(key))[0].get("task")
    if isinstance(task, dict) and task.get("kind") in WITHOUT_TEXT:
        own = task["kind"] not in WITH_A_CORPUS
        why = f"{definition.name} {'makes its own sequences and has no texts' if own else 'reads a corpus by its name'}"
        raise_faults([*definition.faults, Fault("--data", "", f"{why}; yours are for: infty train text --data FOLDER")])


def build_task(experiment: Experiment, data: Path, *, make: bool = True) -> Task:
    """Open an experiment's task on the folder of corpora. make: tokenise a new text; else MissingError for it."""
    first = experiment.pretraining and experiment.pretraining.text
    learnt_from = (first.corpus, first.train) if first else None
    return experiment.task.open(data, experiment.model.segment_length, learnt_from, make=make)


def _find_contradictions(experiment: Experiment) -> Iterator[tuple[str, str]]:
    """Find contradictions between task, model and starting weights: the keys of settings, and messages."""
    task, model = experiment.task, experiment.model
    yield from task.find_faults(model.segment_length)
    yield from model.find_faults(task.vocab_size)
    if experiment.pretraining and not model.fine_tunes:
        yield "pretraining", "is for model.kind gpt2 only"
    elif experiment.pretraining and model.weights is not None:
        yield "pretraining", f"model.weights is {model.weights!r}: one of the two must be null"

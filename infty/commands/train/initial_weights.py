"""The weights of a GPT-2 before it is fine-tuned: of a folder, of the hub, or of a training of its own."""

import hashlib
import json
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any

from infty.base.files import sha256
from infty.commands.load import load_with_task
from infty.config.settings import Settings
from infty.corpora.gpt2_weights import WeightsFolder, find_weights, refuse_other_sizes
from infty.experiment import Cell, Experiment
from infty.model.interface import SegmentModel
from infty.runs.folder import BASE, RunFolder
from infty.training.checkpoint import find_best_checkpoint
from infty.training.config import TrainingConfig


@dataclass(frozen=True)
class InitialWeights(ABC):
    """Weights that rows start from. origin: where they come from. sha256: of their file."""

    origin: str
    sha256: str

    def document(self) -> dict[str, str]:
        """Return origin and sum, as results and checkpoints hold them."""
        return {"origin": self.origin, "sha256": self.sha256}

    @abstractmethod
    def refuse_vocabulary(self, vocab_size: int) -> None:
        """Raise UsageError if the weights are of another vocabulary than the tokens."""

    @abstractmethod
    def load(self, model: SegmentModel) -> None:
        """Put them into a model with memories, which stay as they are. MissingError if they do not fit."""


@dataclass(frozen=True)
class FolderWeights(InitialWeights):
    """Weights of a Hugging Face folder."""

    folder: WeightsFolder

    def refuse_vocabulary(self, vocab_size: int) -> None:
        """Raise UsageError if the weights are of another vocabulary than the tokens."""
        refuse_other_sizes(self.folder.config, {"vocab_size": vocab_size}, str(self.folder.path))

    def load(self, model: SegmentModel) -> None:
        """Read them from the folder."""
        model.load_decoder_file(self.folder.path)


@dataclass(frozen=True)
class TrainedWeights(InitialWeights):
    """Weights of a decoder that was trained here, without a memory."""

    model: SegmentModel

    def refuse_vocabulary(self, vocab_size: int) -> None:
        """Refuse none: they were trained in the same tokens."""

    def load(self, model: SegmentModel) -> None:
        """Copy them."""
        model.load_decoder(self.model)


def plan(cell: Cell) -> list[Cell]:
    """List what is trained for a cell, in order: what its rows start from, if that is trained here, and itself."""
    base = find_base(cell)
    return [base, cell] if base else [cell]


def find_base(cell: Cell) -> Cell | None:
    """Find the cell whose weights a row starts from: its model without a memory, the same for all rows of a case, and
    of all cases if it has a text of its own.

    Its folder has a hash of every setting that they depend on. None if they are not trained here.
    """
    experiment = cell.experiment
    if experiment.pretraining is None or not experiment.model.fine_tunes:
        return None
    task: dict[str, Any] = {"memory_reset": "document"}
    if text := experiment.pretraining.text:
        task |= {"corpus": text.corpus, "train": text.train, "validation": text.validation, "test": text.validation}
    parts: dict[str, Any] = {
        "task": experiment.task.model_copy(update=task),
        "model": experiment.model.model_copy(update={"long_range": None}),
        "training": TrainingConfig(**experiment.pretraining.model_dump(exclude={"text"})),
        "pretraining": None,
    }
    base = Experiment(**parts)
    digest = hashlib.sha256(json.dumps(base.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()[:8]
    case = text.corpus if text else cell.key.case
    key = replace(cell.key, model=BASE, case=case, seed=0, variant=f"+{digest}")
    return replace(cell, key=key, experiment=base, made_by=cell.command)


def load_trained_weights(base: Cell, settings: Settings) -> InitialWeights:
    """Load the weights of a finished base. MissingError if they are damaged, or of another text than is here."""
    run = RunFolder(settings.runs / base.key.folder)
    model = load_with_task(run, settings.data)[0].model
    name = f"{run.path.parent.name} seed {base.key.seed}"
    return TrainedWeights(name, sha256(find_best_checkpoint(run.checkpoints) / "model.safetensors"), model)


def find_initial_weights(experiment: Experiment, settings: Settings, *, may_fetch: bool) -> InitialWeights | None:
    """Find the weights that `model.weights` names, if it does.

    MissingError if they are not there or damaged; UsageError if they are of other sizes.
    """
    model = experiment.model
    if model.starting_weights is None:
        return None
    found = find_weights(model.starting_weights, settings.data, may_fetch=may_fetch)
    refuse_other_sizes(found.config, model.decoder_sizes, str(found.path))
    return FolderWeights(found.origin, found.sha256, found)

"""The weights of a GPT-2 before it is fine-tuned: of a folder, of the hub, or of a training of its own."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from infty.base.files import sha256
from infty.commands.load import load_with_task
from infty.config.settings import Settings
from infty.corpora.gpt2_weights import find_weights, refuse_other_sizes
from infty.experiment import Cell, Experiment
from infty.model.interface import SegmentModel
from infty.runs.folder import BASE, RunFolder
from infty.training.checkpoint import find_best_checkpoint
from infty.training.config import TrainingConfig


@dataclass(frozen=True)
class InitialWeights:
    """Weights that rows start from, of a folder, the hub or a run, with the sum of their file.

    refuse_vocabulary: raises UsageError if they are of another number of tokens. load: puts them into a model.
    """

    origin: str
    sha256: str
    refuse_vocabulary: Callable[[int], None]
    load: Callable[[SegmentModel], None]


def find_base(cell: Cell) -> Cell | None:
    """Find the cell whose weights a row starts from: its model without a memory. None if they are not trained here.

    Its folder has a hash of every setting that the weights depend on, so that all rows that can share it do.
    """
    experiment = cell.experiment
    if experiment.pretraining is None:
        return None
    task: dict[str, Any] = {"memory_reset": "document"}
    if text := experiment.pretraining.text:
        task |= {"corpus": text.corpus, "train": text.train, "validation": text.validation, "test": text.validation}
    base = Experiment(
        task=experiment.task.model_copy(update=task),
        model=experiment.model.model_copy(update={"long_range": None}),
        training=TrainingConfig(**experiment.pretraining.model_dump(exclude={"text"})),
    )
    digest = hashlib.sha256(json.dumps(base.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()[:8]
    case = text.corpus if text else cell.key.case
    key = replace(cell.key, model=BASE, case=case, seed=0, variant=f"+{digest}")
    return replace(cell, key=key, experiment=base, made_by=cell.command)


def load_trained_weights(base: Cell, settings: Settings) -> InitialWeights:
    """Load the weights of a finished base. MissingError if they are damaged, or of another text than is here."""
    run = RunFolder(settings.runs / base.key.folder)
    model = load_with_task(run, settings.data)[0].model
    origin = f"{run.path.parent.name} seed {base.key.seed}"
    file = find_best_checkpoint(run.checkpoints) / "model.safetensors"
    # Its vocabulary is never refused: it was trained in the same tokens.
    return InitialWeights(origin, sha256(file), lambda _: None, lambda new: new.load_decoder(model))


def find_initial_weights(experiment: Experiment, settings: Settings, *, may_fetch: bool) -> InitialWeights | None:
    """Find the weights that `model.weights` names, if it does. MissingError or UsageError if they are none that fit."""
    model = experiment.model
    if model.starting_weights is None:
        return None
    found = find_weights(model.starting_weights, settings.data, may_fetch=may_fetch)
    refuse = partial(refuse_other_sizes, found.config, where=str(found.path))
    refuse(model.decoder_sizes)
    return InitialWeights(
        found.origin,
        found.sha256,
        lambda size: refuse({"vocab_size": size}),
        lambda new: new.load_decoder_file(found.path),
    )

"""Ensure what a run begins with: the corpora that it reads, and the weights that a GPT-2 is fine-tuned from."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from infty.base.errors import MissingError, UsageError, suggest
from infty.base.files import sha256
from infty.commands.load import load_with_task
from infty.config.settings import Settings
from infty.corpora.gpt2_weights import find_weights, refuse_other_sizes
from infty.corpora.hub import fetch, is_offline
from infty.corpora.imports import import_corpus
from infty.corpora.registry import KNOWN
from infty.corpora.store import MANIFEST, Corpus, open_corpus, remedy, write_corpus
from infty.corpora.synthetic import make_sources
from infty.corpora.tokens import Portion
from infty.experiment import Cell, Experiment
from infty.model.gpt2_tensors import refuse_other_tensors
from infty.model.interface import SegmentModel
from infty.runs.folder import BASE, RunFolder
from infty.training.checkpoint import find_best_checkpoint
from infty.training.config import TrainingConfig


def ensure_corpora(experiment: Experiment, settings: Settings, own: Path | None = None) -> None:
    """Make, fetch or import from `own` the corpora that an experiment lacks here. MissingError if that fails."""
    task, texts = experiment.task, dict(experiment.task.texts)
    name = task.vocabulary_files
    if name and not (settings.data / name / MANIFEST).is_file():
        _bring(name, _list_splits(name), settings)
    if first := experiment.pretraining and experiment.pretraining.text:
        texts.setdefault(first.corpus, []).extend([first.train, first.validation])
    if own is not None:
        for name in task.texts:
            if not (settings.data / name / MANIFEST).is_file():
                import_corpus(settings.data, name, own, replace=False)
            del texts[name]
    for name, portions in texts.items():
        here = open_corpus(settings.data, name).splits if (settings.data / name / MANIFEST).is_file() else {}
        if lacking := {split: limit for split, limit in _count_documents(portions).items() if split not in here}:
            _bring(name, lacking, settings)


def _count_documents(portions: list[Portion]) -> dict[str, int | None]:
    """Count the documents that are read of each split; None: all."""
    counts: dict[str, int | None] = {}
    for portion in sorted(portions, key=lambda portion: portion.split):
        most, last = counts.get(portion.split, 0), portion.last
        counts[portion.split] = None if most is None or last is None else max(most, last)
    return counts


def _list_splits(name: str) -> dict[str, int | None]:
    hub = KNOWN[name].hub
    return dict.fromkeys(hub.files if hub else ())


def _bring(name: str, parts: dict[str, int | None], settings: Settings) -> None:
    if name not in KNOWN:
        raise MissingError(f"no corpus {name!r} in {settings.data}; {remedy(name)}")
    if name != "generated" and (not settings.auto_fetch or is_offline()):
        why = "auto_fetch is off" if not settings.auto_fetch else "HF_HUB_OFFLINE is set"
        raise MissingError(f"{settings.data} has no {name} ({', '.join(parts)}), and {why}; {remedy(name)}")
    fetch_known_corpus(name, parts, settings.data, replace=False)


def fetch_known_corpus(name: str, parts: dict[str, int | None], data: Path, *, replace: bool) -> Corpus:
    """Fetch or make a corpus that infty knows, or some parts of it. Raises UsageError if its name is not known."""
    if name not in KNOWN:
        raise UsageError(f"no corpus {name!r} on the hub; {suggest(name, KNOWN)}")
    if name == "generated":
        return write_corpus(data, name, make_sources(), "made by infty", replace=replace)
    return fetch(data, name, parts or _list_splits(name), replace=replace)


@dataclass(frozen=True)
class InitialWeights:
    """Weights that rows start from, taken from a folder, the hub or a run."""

    origin: str
    sha256: str  # of their file
    refuse_vocabulary: Callable[[int], None]  # raises UsageError if their vocabulary is of another size
    load: Callable[[SegmentModel], None]  # puts them into a model


def find_base(cell: Cell) -> Cell | None:
    """Find the cell whose weights a row starts from: its model without a memory. None if they are not trained here."""
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
    # Its folder has a hash of every setting that the weights depend on, so that all rows that can share it do.
    digest = hashlib.sha256(json.dumps(base.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()[:8]
    case = text.corpus if text else cell.key.case
    key = replace(cell.key, model=BASE, case=case, seed=0, variant=f"+{digest}")
    return replace(cell, key=key, experiment=base, made_by=cell.command, own=None)


def load_trained_weights(base: Cell, settings: Settings) -> InitialWeights:
    """Load the weights of a finished base. MissingError if they are damaged, or of another text than is here."""
    run = RunFolder(settings.runs / base.key.folder)
    model = load_with_task(run, settings.data)[0].model
    origin = f"{run.path.parent.name} seed {base.key.seed}"
    file = find_best_checkpoint(run.checkpoints) / "model.safetensors"
    # Its vocabulary is never refused: it was trained with the same tokens.
    return InitialWeights(origin, sha256(file), lambda _: None, lambda new: new.load_decoder(model))


def find_initial_weights(experiment: Experiment, settings: Settings, *, may_fetch: bool) -> InitialWeights | None:
    """Find the weights that `model.weights` names, if any. MissingError or UsageError if none are found that fit."""
    model = experiment.model
    if model.weights is None:
        return None
    found = find_weights(model.weights, settings.data, may_fetch=may_fetch)
    refuse = partial(refuse_other_sizes, found.config, where=str(found.path))
    refuse(model.model_dump(include={"num_layers", "num_heads", "hidden_size", "num_positions"}))
    refuse_other_tensors(found.path, model.num_layers)
    return InitialWeights(
        found.origin, found.sha256, lambda size: refuse({"vocab_size": size}), lambda new: new.load_decoder(found.path)
    )

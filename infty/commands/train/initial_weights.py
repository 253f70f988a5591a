"""Where a GPT-2's weights come from before it is fine-tuned: a folder, the hub, or a training of its own."""

import hashlib
import json
from dataclasses import dataclass, replace
from typing import Any

from infty.base.files import sha256
from infty.commands.load import load_with_task
from infty.config.settings import Settings
from infty.corpora.gpt2_weights import WeightsFolder, find_weights, refuse_other_sizes
from infty.experiment import Experiment, ResolvedCell
from infty.model.config import Gpt2ModelConfig
from infty.model.interface import SegmentModel
from infty.runs.folder import BASE, RunFolder
from infty.training.checkpoint import best_path
from infty.training.config import TrainingConfig


@dataclass(frozen=True)
class StartingWeights:
    """Weights that rows start from: a GPT-2 that was trained here, or a Hugging Face folder."""

    origin: str
    sha256: str
    source: SegmentModel | WeightsFolder

    def document(self) -> dict[str, str]:
        """Where the weights come from and their sum, as results and checkpoints hold it."""
        return {"origin": self.origin, "sha256": self.sha256}

    def refuse_vocabulary(self, vocab_size: int) -> None:
        """UsageError where a folder's weights are of another vocabulary than the tokens."""
        if isinstance(self.source, WeightsFolder):
            refuse_other_sizes(self.source.config, {"vocab_size": vocab_size}, str(self.source.path))

    def load(self, model: SegmentModel) -> None:
        """Put them into a model with memories, which stay as they are. MissingError where they do not fit."""
        from infty.model.gpt2 import Graft, load_base  # loads transformers

        assert isinstance(model, Graft)
        if isinstance(self.source, WeightsFolder):
            load_base(model, self.source.path)
            return
        assert isinstance(self.source, Graft)
        model.base.load_state_dict(self.source.base.state_dict())


def base_cell(resolved: ResolvedCell) -> ResolvedCell | None:
    """What a row's starting weights are trained by: its model without a memory, the same for all rows of a case, and
    of all cases where it has a text of its own.

    Its folder has a hash of every setting that they depend on. None where they are not trained here.
    """
    experiment = resolved.experiment
    if experiment.pretraining is None or not isinstance(experiment.model, Gpt2ModelConfig):
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
    case = text.corpus if text else resolved.cell.case
    cell = replace(resolved.cell, model=BASE, case=case, seed=0, variant=f"+{digest}")
    return replace(resolved, cell=cell, experiment=base, made_by=resolved.command())


def trained_start(base: ResolvedCell, settings: Settings) -> StartingWeights:
    """The weights of a finished `base_cell`. MissingError where they are damaged, or of another text than is here."""
    run = RunFolder(settings.runs / base.cell.folder)
    model = load_with_task(run, settings.data)[0].model
    name = f"{run.path.parent.name} seed {base.cell.seed}"
    return StartingWeights(name, sha256(best_path(run.checkpoints) / "model.safetensors"), model)


def given_start(experiment: Experiment, settings: Settings, *, may_fetch: bool) -> StartingWeights | None:
    """The weights that `model.weights` names, if it does.

    MissingError where they are not there or damaged; UsageError where they are of other sizes.
    """
    model = experiment.model
    if not isinstance(model, Gpt2ModelConfig) or model.weights is None:
        return None
    found = find_weights(model.weights, settings.data, may_fetch=may_fetch)
    sizes = ("num_layers", "num_heads", "hidden_size", "num_positions")
    refuse_other_sizes(found.config, {name: getattr(model, name) for name in sizes}, str(found.path))
    return StartingWeights(found.origin, found.sha256, found)

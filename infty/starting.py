"""Where a GPT-2's weights come from before it is fine-tuned: a folder, the hub, or a training of its own."""

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from infty.corpora.weights import find_weights, refuse_other_sizes
from infty.experiment import Experiment, ResolvedCell
from infty.files import sha256
from infty.model.config import Gpt2ModelConfig
from infty.model.segments import SegmentModel
from infty.runs import RunFolder
from infty.settings import Settings
from infty.trained import load_run
from infty.training.checkpoint import best_path

BASE = "base"  # row that a GPT-2 trained first has in the runs; it stands in no table


@dataclass(frozen=True)
class StartingWeights:
    """Weights that rows start from. run: the run that trained them; None: a Hugging Face folder."""

    origin: str
    sha256: str
    path: Path
    run: RunFolder | None = None

    def document(self) -> dict[str, str]:
        """For results and checkpoints."""
        return {"origin": self.origin, "sha256": self.sha256}

    def load(self, model: SegmentModel, data: Path) -> None:
        """Put them into a model with memories, which stay as they are. MissingError where they do not fit."""
        from infty.model.gpt2 import Graft, load_weights  # loads transformers

        assert isinstance(model, Graft)
        if self.run is None:
            load_weights(model, self.path)
            return
        base = load_run(self.run.path, data=data).model
        assert isinstance(base, Graft)
        model.base.load_state_dict(base.base.state_dict())


def base_cell(resolved: ResolvedCell) -> ResolvedCell | None:
    """What a row's starting weights are trained by: its model without a memory, the same for all rows of a case.

    Its folder has a hash of everything that they depend on. None where they are not trained here.
    """
    experiment = resolved.experiment
    if experiment.pretraining is None or not isinstance(experiment.model, Gpt2ModelConfig):
        return None
    parts: dict[str, Any] = {
        "task": experiment.task.model_copy(update={"memory_reset": "document"}),
        "model": experiment.model.model_copy(update={"long_range": None}),
        "training": experiment.pretraining,
        "pretraining": None,
    }
    base = Experiment(**parts)
    digest = hashlib.sha256(json.dumps(base.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()[:8]
    cell = replace(resolved.cell, model=BASE, seed=0, variant=f"+{digest}")
    return replace(resolved, cell=cell, experiment=base, made_by=resolved.command())


def trained_start(base: ResolvedCell, settings: Settings) -> StartingWeights:
    """The weights of a finished `base_cell`."""
    run = RunFolder(settings.runs / base.cell.folder)
    file = best_path(run.checkpoints) / "model.safetensors"
    return StartingWeights(f"{run.path.parent.name} seed {base.cell.seed}", sha256(file), file, run)


def given_start(
    experiment: Experiment, vocab_size: int, settings: Settings, console: Console, *, may_fetch: bool
) -> StartingWeights | None:
    """The weights that `model.weights` names, if it does.

    MissingError where they are not there or damaged; UsageError where they are of other sizes or another vocabulary.
    """
    model = experiment.model
    if not isinstance(model, Gpt2ModelConfig) or model.weights is None:
        return None
    found = find_weights(model.weights, settings.data, console, may_fetch=may_fetch)
    sizes = {name: getattr(model, name) for name in ("num_layers", "num_heads", "hidden_size", "num_positions")}
    refuse_other_sizes(found.config, {**sizes, "vocab_size": vocab_size}, str(found.path))
    return StartingWeights(found.origin, found.sha256, found.path)

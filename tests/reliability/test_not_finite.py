"""A loss or a gradient that is no number: nothing is updated, nothing good is lost, and the batch is kept."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from infty.base.batch import ALL, Batch, Share
from infty.base.errors import InftyError
from infty.model.config import DecoderConfig
from infty.model.decoder import Decoder
from infty.runs.folder import RunFolder
from infty.tasks.sort import SortConfig, SortTask
from infty.training.checkpoint import Checkpoint, TrainingState, load_last
from infty.training.config import TrainingConfig
from infty.training.data_parallel import Replica
from infty.training.loop import train
from infty.training.signals import StopSignals
from tests.reliability.runs import finish


@pytest.mark.parametrize("experiment", ["sort", "wikitext", pytest.param("gpt2", marks=pytest.mark.slower)])
def test_a_run_that_explodes_ends_in_one_line_and_keeps_the_batch(tmp_path: Path, experiment: str) -> None:
    place = ("--scale", "smoke", "--set", "training.learning_rate=1e30", "--name", "wild")
    done = finish(tmp_path, "train", experiment, *place)
    assert done.returncode == 1
    told = done.stderr.splitlines()[-1]
    assert told.startswith("infty: loss nan, gradient norm nan at step 1: not finite, nothing was updated (the batch: ")
    assert told.endswith("; try a lower training.learning_rate")
    case = {"sort": "x4", "wikitext": "main", "gpt2": "wikitext"}[experiment]
    run = RunFolder(tmp_path / f"runs/{experiment}/smoke/infty@{case}+wild/seed-0")
    assert run.state() == "failed"
    assert "not finite" in json.loads((run.path / "status.json").read_text())["why"]
    assert load_file(run.path / "not-finite/step-00000001/batch.safetensors")["tokens"].shape[0] == 4


class Poisoned(SortTask):
    """Makes a weight infinite at step 4 or in a validation, as a broken memory chip might.

    The batch of step 5 is made ahead once that of step 4 is taken.
    """

    model: Decoder
    in_validation = False

    def _poison(self) -> None:
        with torch.no_grad():
            next(self.model.parameters())[0, 0] = float("inf")

    def training_batch(self, step: int, batch_size: int, seed: int, rows: range | None = None) -> Batch:
        if step == 5:
            self._poison()
        return super().training_batch(step, batch_size, seed, rows)

    def evaluation_batches(self, split: str, batch_size: int, share: Share = ALL) -> Iterator[Batch]:
        if self.in_validation:
            self._poison()
        return super().evaluation_batches(split, batch_size, share)


class Quiet:
    def log(self, step: int, metrics: Mapping[str, float | None]) -> None:
        pass


def attempt(task: Poisoned, folder: Path) -> None:
    """Six steps with a validation after three, or as far as they come."""
    config = DecoderConfig(
        num_layers=1, num_heads=2, hidden_size=8, feed_forward_size=8, dropout=0.0, segment_length=8,
        short_term_length=8,
    )  # fmt: skip
    task.model = Decoder(config, task.vocab_size)
    training = TrainingConfig(steps=6, batch_size=2, learning_rate=1e-2, evaluate_every=3)
    folder.mkdir()
    begin = Checkpoint(TrainingState(wandb_id="a1"), {})
    train(Replica(task.model), task, training, seed=0, folder=folder, begin=begin, log=Quiet().log, stop=StopSignals())


CONFIG = SortConfig(vocabulary=3, length=13, train_sequences=9, validation_sequences=4, test_sequences=4)


def test_a_validation_that_is_no_number_makes_no_checkpoint(tmp_path: Path) -> None:
    task = Poisoned(CONFIG)
    task.in_validation = True
    with pytest.raises(InftyError, match=r"validation loss nan at step 3; try a lower training\.learning_rate"):
        attempt(task, tmp_path / "checkpoints")
    assert load_last(tmp_path / "checkpoints") is None


def test_the_last_good_checkpoint_stays_and_no_weight_is_touched(tmp_path: Path) -> None:
    task, folder = Poisoned(CONFIG), tmp_path / "checkpoints"
    with pytest.raises(InftyError, match="at step 4: not finite, nothing was updated"):
        attempt(task, folder)
    assert not any(parameter.isnan().any() for parameter in task.model.parameters())
    found = load_last(folder)
    assert found is not None
    assert found.state.step == 3
    assert all(tensor.isfinite().all() for tensor in found.tensors["model"].values())
    kept, wanted = load_file(tmp_path / "not-finite/step-00000004/batch.safetensors"), task.training_batch(4, 2, 0)
    assert torch.equal(kept["tokens"], wanted.tokens)
    assert torch.equal(kept["targets"], wanted.targets)
    figures = json.loads((tmp_path / "not-finite/step-00000004/figures.json").read_text())
    assert figures["step"] == 4
    assert figures["loss"] == "nan"

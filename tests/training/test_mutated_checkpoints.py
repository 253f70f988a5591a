"""Checkpoints that anything may have been done to: they are whole, or they are refused in one line of our own."""

import contextlib
import hashlib
import json
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

from infty.base.errors import InftyError, MissingError
from infty.memory.longterm import LongTermMemoryConfig
from infty.memory.sticky import StickyConfig
from infty.model.config import DecoderConfig
from infty.model.decoder import Decoder
from infty.model.interface import SegmentModel
from infty.model.tensors import load_weights, state_tensors
from infty.tasks.sort import SortConfig, SortTask
from infty.training.checkpoint import Checkpoint, TrainingState, load_best, load_last, save_checkpoint
from infty.training.config import TrainingConfig
from infty.training.data_parallel import Replica, compute_losses
from infty.training.loop import train
from infty.training.signals import StopSignals
from infty.training.step import collect_optimizer_tensors, make_optimizer
from tests.mutations import mutated_bytes, mutated_json

pytestmark = pytest.mark.fuzz
FILES = ("model.safetensors", "optimizer.safetensors", "state.safetensors", "state.json", "MANIFEST.json")
LAST = "step-00000002"
FAST = next(filter(Path.is_dir, [Path("/dev/shm")]), None)  # a disk would be waited for at every checkpoint


class Carrying(SortTask):
    """Sorting whose memory goes on from step to step, as that of a text does."""

    continues = True


def make() -> tuple[Decoder, Carrying]:
    long_range = LongTermMemoryConfig(
        hidden_size=8, num_heads=2, segment_length=8, num_basis=6, num_samples=6, sticky=StickyConfig(num_bins=3)
    )
    config = DecoderConfig(
        num_layers=1, num_heads=2, hidden_size=8, feed_forward_size=8, dropout=0.0, segment_length=8,
        short_term_length=8, long_range=long_range,
    )  # fmt: skip
    task = Carrying(SortConfig(vocabulary=3, length=13, train_sequences=9, validation_sequences=2, test_sequences=2))
    return Decoder(config, task.vocab_size), task


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two checkpoints of a run: weights, moments, and a memory."""
    folder = tmp_path_factory.mktemp("saved")
    model, task = make()
    optimizer = make_optimizer(model, 1e-3)
    losses, memory = compute_losses(model, [task.training_batch(0, 2, 0)])
    losses["loss"].backward()
    optimizer.step()
    assert memory is not None
    tensors = {
        "model": dict(model.state_dict()),
        "optimizer": collect_optimizer_tensors(optimizer, model),
        "state": state_tensors(memory),
    }
    for step in (1, 2):
        state = TrainingState(step=step, validated_step=step, best_step=step, best_loss=1.5, wandb_id="a1b2")
        save_checkpoint(folder, Checkpoint(state, tensors))
    return folder


@contextlib.contextmanager
def copied(saved: Path) -> Iterator[Path]:
    """One that may be harmed."""
    with tempfile.TemporaryDirectory(dir=FAST) as place:
        yield Path(shutil.copytree(saved, Path(place) / "checkpoints"))


def seal(folder: Path) -> None:
    """Sums that fit what is there now, as somebody would write who means harm."""
    files = [path for path in folder.iterdir() if path.name != "MANIFEST.json"]
    sums = {p.name: {"bytes": p.stat().st_size, "sha256": hashlib.sha256(p.read_bytes()).hexdigest()} for p in files}
    (folder / "MANIFEST.json").write_text(json.dumps(sums))


class Quiet:
    def log(self, step: int, metrics: Mapping[str, float | None]) -> None:
        pass


def go_on(folder: Path) -> None:
    """What `infty train` and `infty eval` do with checkpoints, to the first step."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        resume = load_last(folder)
    for warning in heard:
        assert len(str(warning.message).splitlines()) == 1
    model, task = make()
    begin = resume or Checkpoint(TrainingState(wandb_id="a1"), {})
    config = TrainingConfig(steps=3, batch_size=2, learning_rate=1e-3, evaluate_every=3)
    train(Replica(model), task, config, seed=0, folder=folder, begin=begin, log=Quiet().log, stop=StopSignals())
    load_into(model, folder)


def load_into(model: SegmentModel, folder: Path) -> None:
    try:
        load_weights(model, load_best(folder).tensors["model"])
    except RuntimeError:  # which `load_run` tells as a MissingError
        raise MissingError("of another model") from None


def survives(action: Callable[[Path], object], folder: Path) -> None:
    """It works, or an error of ours says in one line why not."""
    fault: InftyError | None = None
    try:
        action(folder)
    except InftyError as caught:
        fault = caught
    assert fault is None or len(str(fault).splitlines()) == 1


@given(st.data(), st.sampled_from(FILES), st.booleans())
def test_bytes_gone_wrong(saved: Path, data: st.DataObject, name: str, sealed: bool) -> None:
    """With the sums of before, or with sums made to fit."""
    with copied(saved) as folder:
        path = folder / LAST / name
        path.write_bytes(data.draw(mutated_bytes(path.read_bytes())))
        if sealed and name != "MANIFEST.json":
            seal(folder / LAST)
        survives(go_on, folder)


@given(st.data(), st.sampled_from(["state.json", "MANIFEST.json"]))
def test_values_gone_wrong(saved: Path, data: st.DataObject, name: str) -> None:
    with copied(saved) as folder:
        path = folder / LAST / name
        path.write_bytes(data.draw(mutated_json(json.loads(path.read_text()))))
        if name == "state.json":
            seal(folder / LAST)
        survives(go_on, folder)


@given(st.data(), st.sampled_from(["last.json", "best.json"]))
def test_pointers_gone_wrong(saved: Path, data: st.DataObject, name: str) -> None:
    with copied(saved) as folder:
        path = folder / name
        path.write_bytes(data.draw(mutated_json(json.loads(path.read_text()))))
        survives(load_best, folder)
        survives(go_on, folder)


DTYPES = (torch.float32, torch.float64, torch.float16, torch.int64, torch.bool, torch.complex64)


@given(st.data(), st.sampled_from(["model", "optimizer", "state"]))
def test_tensors_of_another_model(saved: Path, data: st.DataObject, stem: str) -> None:
    """Names gone, added or exchanged; other shapes, other types: with sums that fit."""
    with copied(saved) as folder:
        found = load_last(folder)
        assert found is not None
        tensors = dict(found.tensors[stem])
        name = data.draw(st.sampled_from(sorted(tensors)))
        shape = data.draw(st.lists(st.integers(0, 9), max_size=4))
        other = torch.zeros(shape, dtype=data.draw(st.sampled_from(DTYPES)))
        match data.draw(st.sampled_from(["gone", "other", "added", "renamed", "none"])):
            case "gone":
                del tensors[name]
            case "other":
                tensors[name] = other
            case "added":
                tensors[data.draw(st.sampled_from(["x", "0.x", "7.short_term.hidden", "a.exp_avg", ""]))] = other
            case "renamed":
                tensors[f"{name}x"] = tensors.pop(name)
            case _:
                tensors = {}
        (folder / LAST / f"{stem}.safetensors").write_bytes(save(tensors))
        seal(folder / LAST)
        survives(go_on, folder)

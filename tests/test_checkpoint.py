"""Checkpoints: whole or not there, checked before they are believed."""

import hashlib
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from infty.errors import MissingError
from infty.training.checkpoint import Checkpoint, load_best, load_last, save_checkpoint


def checkpoint(step: int, best_step: int | None = None) -> Checkpoint:
    tensors = {"model": {"w": torch.full((3,), float(step))}, "optimizer": {"w.step": torch.tensor(float(step))}}
    return Checkpoint(step, tensors, {"best_step": best_step})


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(3, best_step=3))
    found, warnings = load_last(tmp_path)
    assert found is not None
    assert (found.step, found.state, warnings) == (3, {"best_step": 3}, [])
    assert torch.equal(found.tensors["model"]["w"], torch.full((3,), 3.0))


def test_the_last_two_and_the_best_are_kept(tmp_path: Path) -> None:
    for step in range(1, 6):
        save_checkpoint(tmp_path, checkpoint(step, best_step=min(step, 2)))
    assert sorted(path.name for path in tmp_path.glob("step-*")) == ["step-00000002", "step-00000004", "step-00000005"]
    assert load_best(tmp_path).step == 2


@pytest.mark.parametrize("damage", ["truncate", "alter", "pickle", "no manifest", "empty manifest", "elsewhere"])
def test_a_damaged_checkpoint_is_skipped_with_a_warning_and_nothing_is_executed(tmp_path: Path, damage: str) -> None:
    save_checkpoint(tmp_path, checkpoint(1))
    save_checkpoint(tmp_path, checkpoint(2, best_step=2))
    path = tmp_path / "step-00000002/model.safetensors"
    manifest = path.with_name("MANIFEST.json")
    match damage:
        case "truncate":
            path.write_bytes(path.read_bytes()[:-5])
        case "alter":
            path.write_bytes(path.read_bytes()[:-1] + b"\x01")
        case "pickle":
            path.write_bytes(pickle.dumps(_Malicious(tmp_path / "executed")))
            entry = {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
            manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "model.safetensors": entry}))
        case "no manifest":
            manifest.unlink()
        case "empty manifest":
            manifest.write_text("{}")
        case _:
            entry = json.loads(manifest.read_text())["model.safetensors"]
            manifest.write_text(json.dumps({"../../elsewhere.safetensors": entry}))
    found, warnings = load_last(tmp_path)
    assert found is not None
    assert found.step == 1
    assert len(warnings) == 1
    assert "it is skipped" in warnings[0]
    with pytest.raises(MissingError):
        load_best(tmp_path)
    assert not (tmp_path / "executed").exists()


class _Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_what_an_interrupted_save_left_is_not_a_checkpoint(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(1, best_step=1))
    shutil.copytree(tmp_path / "step-00000001", tmp_path / ".step-00000002.tmp")
    found, warnings = load_last(tmp_path)
    assert found is not None
    assert (found.step, warnings) == (1, [])
    save_checkpoint(tmp_path, checkpoint(3, best_step=1))
    assert not (tmp_path / ".step-00000002.tmp").exists()

"""Checkpoints: whole or not there, checked before they are believed."""

import errno
import hashlib
import json
import pickle
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from infty.base.errors import InftyError, MissingError
from infty.training.checkpoint import Checkpoint, TrainingState, load_best, load_last, save_checkpoint, verify_best


def checkpoint(step: int, best_step: int | None = None) -> Checkpoint:
    tensors = {"model": {"w": torch.full((3,), float(step))}, "optimizer": {"w.step": torch.tensor(float(step))}}
    return Checkpoint(TrainingState(step=step, best_step=best_step, best_loss=0.5, wandb_id="a1b2"), tensors)


def kept(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*step-*"))


def step_of(found: Checkpoint | None) -> int:
    assert found is not None
    return found.state.step


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(3, best_step=3))
    found = load_last(tmp_path)
    assert found is not None
    assert found.state == checkpoint(3, best_step=3).state
    assert torch.equal(found.tensors["model"]["w"], torch.full((3,), 3.0))


def test_the_last_two_and_the_best_are_kept(tmp_path: Path) -> None:
    for step in range(1, 6):
        save_checkpoint(tmp_path, checkpoint(step, best_step=min(step, 2)))
    assert kept(tmp_path) == ["step-00000002", "step-00000004", "step-00000005"]
    assert step_of(load_best(tmp_path)) == 2


@pytest.mark.parametrize(
    "harm", ["truncate", "alter", "pickle", "no manifest", "empty manifest", "elsewhere", "another step", "no state"]
)
def test_a_damaged_checkpoint_is_skipped_with_a_warning_and_nothing_is_executed(tmp_path: Path, harm: str) -> None:
    save_checkpoint(tmp_path, checkpoint(1))
    save_checkpoint(tmp_path, checkpoint(2, best_step=2))
    path = tmp_path / "step-00000002/model.safetensors"
    manifest = path.with_name("MANIFEST.json")

    def sealed(name: str, content: bytes) -> None:
        """With sums that fit, as somebody would who means harm."""
        path.with_name(name).write_bytes(content)
        entry = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        manifest.write_text(json.dumps({**json.loads(manifest.read_text()), name: entry}))

    match harm:
        case "truncate":
            path.write_bytes(path.read_bytes()[:-5])
        case "alter":
            damage(path)
        case "pickle":
            sealed("model.safetensors", pickle.dumps(_Malicious(tmp_path / "executed")))
        case "no manifest":
            manifest.unlink()
        case "empty manifest":
            manifest.write_text("{}")
        case "another step":
            sealed("state.json", b'{"step": 7, "wandb_id": "a1b2"}')
        case "no state":
            sealed("state.json", b'{"step": 2, "wandb_id": "../../x", "best_step": "x"}')
        case _:
            entry = json.loads(manifest.read_text())["model.safetensors"]
            manifest.write_text(json.dumps({"../../elsewhere.safetensors": entry}))
    with pytest.warns(UserWarning, match=r"step-00000002.*; it is skipped") as heard:
        assert step_of(load_last(tmp_path)) == 1
    assert len(heard) == 1
    with pytest.raises(MissingError, match="train again with --fresh"):
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
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert step_of(load_last(tmp_path)) == 1
    save_checkpoint(tmp_path, checkpoint(3, best_step=1))
    assert not (tmp_path / ".step-00000002.tmp").exists()


def test_new_checkpoints_are_kept_beside_damaged_ones_of_later_steps(tmp_path: Path) -> None:
    """A run that went back behind two damaged checkpoints must not drop what it saves as the oldest."""
    for step in (4, 6, 9):
        save_checkpoint(tmp_path, checkpoint(step, best_step=4))
    for step in (6, 9):
        damage(tmp_path / f"step-{step:08d}/model.safetensors")
    with pytest.warns(UserWarning, match="it is skipped"):
        assert step_of(load_last(tmp_path)) == 4
    save_checkpoint(tmp_path, checkpoint(5, best_step=4))
    assert kept(tmp_path) == ["step-00000004", "step-00000005"]


def test_a_damaged_best_checkpoint_is_replaced_by_the_one_that_goes_on(tmp_path: Path) -> None:
    for step in (3, 6):
        save_checkpoint(tmp_path, checkpoint(step, best_step=3))
    damage(tmp_path / "step-00000003/model.safetensors")
    with pytest.warns(UserWarning, match="step-00000003, is damaged: step-00000006 takes its place"):
        found = load_last(tmp_path)
    assert found is not None
    assert (found.state.best_step, found.state.best_loss) == (6, None)


@pytest.mark.parametrize("name", ["step-00000002/MANIFEST.json", "step-00000002/state.json", "best.json"])
def test_a_disk_that_fails_for_a_moment_is_no_damage(tmp_path: Path, name: str) -> None:
    """A good checkpoint would be given up, and be dropped when the next one is saved."""
    save_checkpoint(tmp_path, checkpoint(1))
    save_checkpoint(tmp_path, checkpoint(2, best_step=2))
    faults = [OSError(errno.EIO, "Input/output error")]

    def refuse(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and str(arguments[0]) == str(tmp_path / name) and faults:
            raise faults.pop()

    sys.addaudithook(refuse)
    load = load_best if name == "best.json" else load_last
    with pytest.raises(OSError, match="Input/output error"):
        load(tmp_path)
    assert step_of(load(tmp_path)) == 2


@pytest.mark.parametrize("content", [None, "", "[]", "{}"])
def test_of_a_best_checkpoint_that_is_not_named_the_way_out_is_told_once(tmp_path: Path, content: str | None) -> None:
    save_checkpoint(tmp_path, checkpoint(2, best_step=2))
    (tmp_path / "best.json").unlink()
    if content is not None:
        (tmp_path / "best.json").write_text(content)
    with pytest.raises(MissingError, match=r"best\.json .*; train again with --fresh$") as raised:
        load_best(tmp_path)
    assert str(raised.value).count(";") == 1


def test_sums_tell_a_whole_best_checkpoint_without_its_tensors(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(2, best_step=2))
    verify_best(tmp_path)
    for file, fault in (("model.safetensors", "is not what was saved"), ("MANIFEST.json", "lacks model.safetensors")):
        path = tmp_path / "step-00000002" / file
        before = path.read_bytes()
        path.write_bytes(b"{}")
        with pytest.raises(MissingError, match=f"{fault}.*; train again with --fresh"):
            verify_best(tmp_path)
        path.write_bytes(before)


def test_a_step_saved_again_replaces_the_first(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(3))
    save_checkpoint(tmp_path, checkpoint(3, best_step=3))
    found = load_last(tmp_path)
    assert found is not None
    assert found.state.best_step == 3
    assert kept(tmp_path) == ["step-00000003"]


@pytest.mark.parametrize("times", [1, 2])
def test_saving_is_tried_once_more_before_it_fails(tmp_path: Path, times: int) -> None:
    """The system refuses the temporary folder that often: Python asks its hooks before it makes one."""
    save_checkpoint(tmp_path, checkpoint(1, best_step=1))
    faults = [OSError(errno.EIO, "Input/output error")] * times

    def refuse(event: str, arguments: tuple[object, ...]) -> None:
        if event == "os.mkdir" and str(arguments[0]) == str(tmp_path / ".step-00000002.tmp") and faults:
            raise faults.pop()

    sys.addaudithook(refuse)
    if times == 1:
        save_checkpoint(tmp_path, checkpoint(2, best_step=1))
    else:
        with pytest.raises(InftyError, match=r"step 2 could not be saved \(Input/output error\); earlier ones stay"):
            save_checkpoint(tmp_path, checkpoint(2, best_step=1))
    assert step_of(load_last(tmp_path)) == 3 - times
    assert step_of(load_best(tmp_path)) == 1
    assert not list(tmp_path.glob(".*"))


def test_where_no_checkpoint_is_whole_nothing_begins_again_by_itself(tmp_path: Path) -> None:
    for step in (3, 6):
        save_checkpoint(tmp_path, checkpoint(step, best_step=step))
        damage(tmp_path / f"step-{step:08d}/model.safetensors")
    with (
        pytest.warns(UserWarning, match="it is skipped"),
        pytest.raises(MissingError, match=r"no checkpoint in .* --fresh"),
    ):
        load_last(tmp_path)
    assert kept(tmp_path) == ["step-00000003", "step-00000006"]


def test_a_checkpoint_that_made_way_for_one_that_never_came_is_there_again(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(3, best_step=3))
    (tmp_path / "step-00000003").rename(tmp_path / ".step-00000003.old.tmp")
    assert step_of(load_last(tmp_path)) == 3
    assert step_of(load_best(tmp_path)) == 3

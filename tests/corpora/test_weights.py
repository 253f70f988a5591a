"""Starting weights: what is believed of a folder, and what is fetched."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from transformers import GPT2Config, GPT2LMHeadModel

from infty.corpora.known import KNOWN
from infty.corpora.weights import find_weights, refuse_other_sizes
from infty.errors import MissingError, UsageError
from tests.conftest import Infty
from tests.corpora.test_hub import UNPINNED, Hub, environment, hub

__all__ = ["hub"]
QUIET = Console(quiet=True)
SIZES = {"num_layers": 2, "num_heads": 2, "hidden_size": 16, "num_positions": 16, "vocab_size": 400}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "tiny"
    sizes = GPT2Config(vocab_size=400, n_positions=16, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
    GPT2LMHeadModel(sizes).save_pretrained(path)
    return path


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "my weights"))


def found(given: str, data: Path, *, may_fetch: bool = False) -> Any:
    return find_weights(given, data, QUIET, may_fetch=may_fetch)


def test_a_folder_is_named_by_its_last_part_and_its_config_is_read(folder: Path, tmp_path: Path) -> None:
    weights = found(str(folder), tmp_path)
    assert (weights.path, weights.origin) == (folder, "my weights")
    refuse_other_sizes(weights.config, SIZES, "here")


def test_a_folder_that_is_none_is_refused_with_what_to_do(folder: Path, tmp_path: Path) -> None:
    def refused(match: str, given: str = str(folder)) -> None:
        with pytest.raises(MissingError, match=match) as caught:
            found(given, tmp_path)
        assert "\n" not in str(caught.value)

    refused("no folder .*nowhere; wanted a folder with config.json", str(tmp_path / "nowhere"))
    refused("no folder", str(folder / "config.json"))
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text("[]")
    refused("config.json")
    (folder / "config.json").unlink()
    refused("has no config.json")
    (folder / "config.json").write_text(config)
    whole = (folder / "model.safetensors").read_bytes()
    for damaged in (whole[: len(whole) // 2], b"\x80\x04\x95\x1c\x00\x00\x00\x00.", b""):
        (folder / "model.safetensors").write_bytes(damaged)
        refused("damaged or no safetensors")
    (folder / "model.safetensors").unlink()
    refused("has no model.safetensors")
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch /tmp/opened'\ntR.")
    refused("pickled weights only, which are not read")
    (folder / "model.safetensors.index.json").write_text("{}")
    refused("in several files")


def test_sizes_that_differ_are_named_with_what_to_set() -> None:
    config = {"model_type": "gpt2", "n_layer": 6, "vocab_size": 50_257}
    with pytest.raises(UsageError) as caught:
        refuse_other_sizes(config, {**SIZES, "num_heads": 12, "num_positions": 1024}, "w")
    assert str(caught.value) == (
        "w does not fit: its num_layers is 6, not 2 (--set model.num_layers=6); its hidden_size is 768, not 16 "
        "(--set model.hidden_size=768); it has a vocabulary of 50257, and task.tokenizer makes 400 tokens"
    )
    with pytest.raises(UsageError, match="type 'llama'; wanted gpt2"):
        refuse_other_sizes({"model_type": "llama"}, SIZES, "w")


def test_a_hub_name_that_is_not_here_is_not_fetched_unasked(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"auto_fetch is off; allow it, or download .* --set model.weights=FOLDER"):
        found("openai-community/gpt2", tmp_path)


def test_the_pinned_commit_is_looked_for_and_other_commits_are_not_taken_for_it(folder: Path, tmp_path: Path) -> None:
    pin = KNOWN["gpt2"].hub
    assert pin is not None
    shutil.copytree(folder, tmp_path / "weights" / f"openai-community--gpt2@{'0' * 12}")
    with pytest.raises(MissingError):
        found("openai-community/gpt2", tmp_path)
    shutil.copytree(folder, tmp_path / "weights" / f"openai-community--gpt2@{pin.revision[:12]}")
    assert found("openai-community/gpt2", tmp_path).origin == f"openai-community/gpt2@{pin.revision[:12]}"


def test_weights_are_fetched_once_and_recorded_by_their_commit(
    infty: Infty, hub: Hub, saved: Path, tmp_path: Path
) -> None:
    """The main branch of a repository that is not pinned; a download that breaks off goes on."""
    names = ("config.json", "model.safetensors")
    hub.files["someone/tiny"] = {name: (saved / name).read_bytes() for name in names} | {"pytorch_model.bin": b"x"}
    hub.cut = 1
    words = ["train", "gpt2", "--scale", "smoke", "--model", "gpt2", "--json", "--set", "model.weights=someone/tiny"]
    words += ["--set", "pretraining=null"]
    done = infty(*words, **environment(hub))
    assert done.returncode == 0, done.stderr
    assert f"fetching someone/tiny at {UNPINNED[:12]}: 0.1 MB" in done.stderr
    assert json.loads(done.stdout)["starting_weights"]["origin"] == f"someone/tiny@{UNPINNED[:12]}"
    assert not [path for path, _ in hub.asked if path.endswith(".bin")]
    asked = len(hub.asked)
    again = infty(*words, "--seed", "1", **environment(hub), HF_HUB_OFFLINE="1")
    assert again.returncode == 0, again.stderr
    assert len(hub.asked) == asked
    assert {path.name for path in (tmp_path / "corpora/weights").glob("[!.]*")} == {f"someone--tiny@{UNPINNED[:12]}"}


def test_what_is_not_what_the_hub_lists_is_not_kept(infty: Infty, hub: Hub, saved: Path, tmp_path: Path) -> None:
    hub.files["someone/tiny"] = {name: (saved / name).read_bytes() for name in ("config.json", "model.safetensors")}
    hub.lie = True
    words = ["train", "gpt2", "--scale", "smoke", "--set", "model.weights=someone/tiny", "--set", "pretraining=null"]
    done = infty(*words, **environment(hub))
    assert (done.returncode, "is not what the hub lists" in done.stderr) == (3, True), done.stderr
    assert not list((tmp_path / "corpora/weights").glob("[!.]*"))
    assert not list(tmp_path.rglob("config.yaml"))
    done = infty(*words, HF_HUB_OFFLINE="1")
    assert (done.returncode, "HF_HUB_OFFLINE is set" in done.stderr) == (3, True), done.stderr

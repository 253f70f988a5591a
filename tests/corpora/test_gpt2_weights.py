"""Starting weights: what is believed of a folder, and what is fetched."""

import hashlib
import json
import logging
import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from filelock import FileLock
from huggingface_hub import constants, file_download

from infty.base import locks
from infty.base.errors import InftyError, MissingError, UsageError
from infty.corpora.gpt2_weights import find_weights, refuse_other_sizes
from infty.corpora.hub import fetch
from infty.corpora.registry import KNOWN
from tests.conftest import Infty, save_gpt2
from tests.corpora.test_hub import UNPINNED, Hub, environment, hub

__all__ = ["hub"]
NAMES = ("config.json", "model.safetensors")
INDEX = "model.safetensors.index.json"
TINY = f"someone--tiny@{UNPINNED[:12]}"
SIZES = {"num_layers": 2, "num_heads": 2, "hidden_size": 16, "num_positions": 16, "vocab_size": 400}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_gpt2(tmp_path_factory.mktemp("saved") / "tiny")


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "my weights"))


@pytest.fixture
def near(hub: Hub, saved: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The hub, asked from this process, with the repository someone/tiny."""
    monkeypatch.setattr(constants, "ENDPOINT", hub.address)
    template = hub.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 100)  # bytes that are on disk before the next are waited for
    hub.files["someone/tiny"] = {name: (saved / name).read_bytes() for name in NAMES}
    return hub


def found(given: str, data: Path, *, may_fetch: bool = False) -> Any:
    return find_weights(given, data, may_fetch=may_fetch)


def test_a_folder_is_named_by_its_last_part_and_its_config_is_read(folder: Path, tmp_path: Path) -> None:
    weights = found(str(folder), tmp_path)
    assert (weights.path, weights.origin) == (folder, "my weights")
    assert weights.config == json.loads((folder / "config.json").read_text())
    assert weights.sha256 == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    refuse_other_sizes(weights.config, SIZES, "here")


def test_a_folder_that_is_none_is_refused_with_what_to_do(folder: Path, tmp_path: Path) -> None:
    def refused(match: str, given: str = str(folder)) -> None:
        with pytest.raises(MissingError, match=match) as caught:
            found(given, tmp_path)
        assert "\n" not in str(caught.value)

    for nowhere in (str(tmp_path / "nowhere"), "./someone/tiny", "~nobody/tiny", "tiny", "x" * 300):
        refused("is not there; wanted a folder with config.json .* or a hub name: OWNER/NAME", nowhere)
    refused("is a file; wanted a folder", str(folder / "config.json"))
    config = (folder / "config.json").read_text()
    for damaged in ("[]", "{", ""):
        (folder / "config.json").write_text(damaged)
        refused("config.json (holds no JSON object|can't be read .*); save or copy it there again$")
    (folder / "config.json").unlink()
    refused("has no config.json; put the one")
    (folder / "config.json").write_text(config)
    whole = (folder / "model.safetensors").read_bytes()
    for damaged in (whole[: len(whole) // 2], b"\x80\x04\x95\x1c\x00\x00\x00\x00.", b""):
        (folder / "model.safetensors").write_bytes(damaged)
        refused("damaged or no safetensors .*; save or copy it there again")
    (folder / "model.safetensors").unlink()
    refused("has no model.safetensors; .*save_pretrained")
    opened = tmp_path / "opened"
    (folder / "pytorch_model.bin").write_bytes(f"cos\nsystem\n(S'touch {opened}'\ntR.".encode())
    refused(
        r"pickled weights only, which are not read .*GPT2LMHeadModel.from_pretrained\(…\).save_pretrained\(FOLDER\)"
    )
    assert not opened.exists()
    (folder / "model.safetensors.index.json").write_text("{}")
    refused("in several files; .*max_shard_size")


def test_a_folder_that_reads_like_a_hub_name_is_the_folder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder, "openai-community/gpt2")
    assert found("openai-community/gpt2", tmp_path / "data").origin == "gpt2"
    monkeypatch.chdir("openai-community/gpt2")
    assert found(".", tmp_path / "data").origin == "gpt2"


def test_sizes_that_differ_are_named_with_what_to_set() -> None:
    config = {"model_type": "gpt2", "n_layer": 6, "vocab_size": 50_257}
    with pytest.raises(UsageError) as caught:
        refuse_other_sizes(config, {**SIZES, "num_heads": 12, "num_positions": 1024}, "w")
    assert str(caught.value) == (
        "w does not fit: its num_layers is 6, not 2 (--set model.num_layers=6); its hidden_size is 768, not 16 "
        "(--set model.hidden_size=768); it has a vocabulary of 50257, and task.tokenizer makes 400 tokens"
    )
    odd = {"model_type": "gpt2", "activation_function": "relu", "tie_word_embeddings": False, "n_inner": 3}
    with pytest.raises(UsageError) as caught:
        refuse_other_sizes(odd, {}, "w")
    for part in ("activation_function is 'relu'", "tie_word_embeddings is False", "n_inner is 3"):
        assert part in str(caught.value)
    with pytest.raises(UsageError, match="type 'llama'; wanted gpt2"):
        refuse_other_sizes({"model_type": "llama"}, SIZES, "w")


def test_a_hub_name_that_is_not_here_is_not_fetched_unasked(tmp_path: Path) -> None:
    with pytest.raises(
        MissingError, match=r"auto_fetch = true lets .* download .* by hand.* --set model.weights=FOLDER"
    ):
        found("openai-community/gpt2", tmp_path)


def test_the_pinned_commit_is_looked_for_and_other_commits_are_not_taken_for_it(folder: Path, tmp_path: Path) -> None:
    pin = KNOWN["gpt2"].hub
    assert pin is not None
    shutil.copytree(folder, tmp_path / "weights" / f"openai-community--gpt2@{'0' * 12}")
    with pytest.raises(MissingError):
        found("openai-community/gpt2", tmp_path)
    shutil.copytree(folder, tmp_path / "weights" / f"openai-community--gpt2@{pin.revision[:12]}")
    assert found("openai-community/gpt2", tmp_path).origin == f"openai-community/gpt2@{pin.revision[:12]}"


def test_of_the_main_branch_what_is_here_is_taken_and_of_other_names_only_what_they_name(
    near: Hub, folder: Path, tmp_path: Path
) -> None:
    kept = tmp_path / "weights"
    shutil.copytree(folder, kept / TINY)
    for given in ("someone/tiny", "someone/tiny@main", f"someone/tiny@{UNPINNED}", f"someone/tiny@{UNPINNED[:12]}"):
        assert found(given, tmp_path).origin == f"someone/tiny@{UNPINNED[:12]}"
    assert near.asked == []
    for other in ("v1", "1" * 40, UNPINNED[:12].replace("c", "d")):
        with pytest.raises(MissingError, match=rf"at {other} nothing is in .*; here is someone/tiny@{UNPINNED[:12]}$"):
            found(f"someone/tiny@{other}", tmp_path)
        with pytest.raises(MissingError, match=f"someone/tiny has no revision {other} on the hub; .*; here is someone"):
            found(f"someone/tiny@{other}", tmp_path, may_fetch=True)
    with pytest.raises(MissingError, match=r"the hub shows no someone/tinny: .* public\? you can also download"):
        found("someone/tinny", tmp_path, may_fetch=True)
    shutil.copytree(folder, kept / f"someone--tiny@{'1' * 12}")
    with pytest.raises(MissingError, match=f"here is someone/tiny@1{{12}}, someone/tiny@{UNPINNED[:12]}$"):
        found("someone/tiny", tmp_path)
    assert found("someone/tiny@" + "1" * 40, tmp_path).origin == "someone/tiny@" + "1" * 12


def test_a_download_that_breaks_off_is_gone_on_with(
    near: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Within a call from the byte where it broke, in the next call from the file. Once whole, nobody is asked."""
    stays_down = iter([True, False, True, False])  # each time that the library waits to try again

    def wait(seconds: float) -> None:
        if next(stays_down):
            raise OSError("the line is down")

    monkeypatch.setattr(file_download, "time", SimpleNamespace(sleep=wait))
    for cut, name in enumerate(NAMES, start=1):
        near.cut = cut
        match = rf"{name} could not be fetched \(the line is down\).*goes on from there"
        with pytest.raises(MissingError, match=match):
            found("someone/tiny", tmp_path, may_fetch=True)
        assert not (tmp_path / "weights" / TINY).exists()
    near.cut = 1
    caplog.set_level(logging.INFO, "infty")
    first = find_weights("someone/tiny", tmp_path, may_fetch=True)
    size = sum(map(len, near.files["someone/tiny"].values())) / 1e6
    said = f"fetching someone/tiny at {UNPINNED[:12]}: {size:.1f} MB in 2 files from the hub, into {first.path}"
    assert [record.message for record in caplog.records if record.name.startswith("infty.")] == [said]
    for name, data in near.files["someone/tiny"].items():
        asked = [part for path, part in near.asked if path.endswith(f"/resolve/{UNPINNED}/{name}")]
        assert asked[:2] == [None, None]
        assert len(asked) == 3
        assert asked[2] is not None
        assert len(data) // 2 - 100 < int(asked[2].removeprefix("bytes=").partition("-")[0]) <= len(data) // 2
    assert {path.name: path.read_bytes() for path in first.path.iterdir()} == near.files["someone/tiny"]
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    assert found("someone/tiny", tmp_path, may_fetch=True) == first
    assert found("someone/tiny", tmp_path) == first
    with pytest.raises(MissingError, match=r"can't be reached .* by hand"):
        found("someone/other", tmp_path, may_fetch=True)


def test_a_download_waits_for_another_and_says_so(near: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "PATIENCE", 0)
    (tmp_path / "weights").mkdir()
    text = partial(fetch, tmp_path, "wikitext", {"test": None}, replace=False)
    for lock, what, begin in (
        (f"weights/.{TINY}.lock", "someone/tiny", partial(found, "someone/tiny", tmp_path, may_fetch=True)),
        (".wikitext.download.lock", "wikitext", text),
    ):
        with (
            FileLock(tmp_path / lock),
            pytest.warns(UserWarning, match=f"waiting for another process that fetches {what}"),
            pytest.raises(InftyError, match=f"another process that fetches {what} .* for too long"),
        ):
            begin()
    assert not [path for path, _ in near.asked if "/resolve/" in path]


def test_a_damaged_file_is_removed_and_a_folder_that_lost_one_is_fetched_again(near: Hub, tmp_path: Path) -> None:
    near.lie = True
    with pytest.raises(MissingError, match=r"config.json is not what the hub lists at c0ffeec, and was removed"):
        found("someone/tiny", tmp_path, may_fetch=True)
    assert not [path for name in NAMES for path in tmp_path.rglob(name)]
    near.lie = False
    weights = found("someone/tiny", tmp_path, may_fetch=True).path / "model.safetensors"
    weights.write_bytes(b"?")
    with pytest.raises(MissingError, match=r"damaged or no .*; remove that folder, and it is fetched again"):
        found("someone/tiny", tmp_path, may_fetch=True)
    weights.unlink()
    assert found("someone/tiny", tmp_path, may_fetch=True).origin == f"someone/tiny@{UNPINNED[:12]}"


def test_a_repository_without_safetensors_is_refused_before_anything_is_fetched(near: Hub, tmp_path: Path) -> None:
    del near.files["someone/tiny"]["model.safetensors"]
    for name, why in (("README.md", "has no model"), ("pytorch_model.bin", "pickled weights only"), (INDEX, "several")):
        near.files["someone/tiny"][name] = b"x"
        with pytest.raises(MissingError, match=f"someone/tiny at main .*{why}"):
            found("someone/tiny", tmp_path, may_fetch=True)
    assert not [path for path, _ in near.asked if "/resolve/" in path]


def test_weights_are_fetched_once_and_recorded_by_their_commit(
    infty: Infty, hub: Hub, saved: Path, tmp_path: Path
) -> None:
    """The main branch of a repository that is not pinned; a download that breaks off goes on."""
    hub.files["someone/tiny"] = {name: (saved / name).read_bytes() for name in NAMES} | {"pytorch_model.bin": b"x"}
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
    assert {path.name for path in (tmp_path / "corpora/weights").glob("[!.]*")} == {TINY}


def test_what_is_not_what_the_hub_lists_is_not_kept(infty: Infty, hub: Hub, saved: Path, tmp_path: Path) -> None:
    hub.files["someone/tiny"] = {name: (saved / name).read_bytes() for name in NAMES}
    hub.lie = True
    words = ["train", "gpt2", "--scale", "smoke", "--set", "model.weights=someone/tiny", "--set", "pretraining=null"]
    done = infty(*words, **environment(hub))
    assert (done.returncode, "is not what the hub lists" in done.stderr) == (3, True), done.stderr
    assert not list((tmp_path / "corpora/weights").glob("[!.]*"))
    assert not list(tmp_path.rglob("config.yaml"))
    done = infty(*words, HF_HUB_OFFLINE="1")
    assert (done.returncode, "HF_HUB_OFFLINE is set" in done.stderr) == (3, True), done.stderr

"""Starting weights of a GPT-2: a folder as Hugging Face saves them, or the same from the public hub."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock
from rich.console import Console
from safetensors import SafetensorError, safe_open

from infty.corpora.hub import download, list_files
from infty.corpora.known import KNOWN, Hub
from infty.errors import MissingError, UsageError
from infty.files import read_json, sha256

WEIGHTS, CONFIG = "model.safetensors", "config.json"
PICKLED, SHARDED = "pytorch_model.bin", "model.safetensors.index.json"
HUB_NAME = re.compile(r"(?P<repository>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>[\w.-]+))?")
COMMIT = re.compile(r"[0-9a-f]{40}")
HELP = f"or download {CONFIG} and {WEIGHTS} by hand, and give their folder with --set model.weights=FOLDER"
# Our name of each size, its name in config.json, and GPT-2 small's value, which stands where the file has none.
SIZES = {
    "num_layers": ("n_layer", 12),
    "num_heads": ("n_head", 12),
    "hidden_size": ("n_embd", 768),
    "num_positions": ("n_positions", 1024),
    "vocab_size": ("vocab_size", 50_257),
}


@dataclass(frozen=True)
class WeightsFolder:
    """A folder with `config.json`, here as `config`, and `model.safetensors`, whose sum is `sha256`.

    origin: what results name it by: the hub's name and commit, or the last part of its path.
    """

    path: Path
    origin: str
    config: dict[str, Any]
    sha256: str


def find_weights(given: str, data: Path, console: Console, *, may_fetch: bool) -> WeightsFolder:
    """The weights at a folder, or of a hub name (`owner/name`, `owner/name@revision`), kept below the data folder.

    may_fetch: whether the hub may be asked for what is not here. MissingError, with what to do, where the weights are
    not there, can't be fetched, or are no safetensors.
    """
    path, name = Path(given).expanduser(), HUB_NAME.fullmatch(given)
    if path.exists() or name is None:
        if not path.is_dir():
            wanted = f"wanted a folder with {CONFIG} and {WEIGHTS}, or a hub name like openai-community/gpt2"
            raise MissingError(f"model.weights: no folder {given}; {wanted}")
        return _read(path, path.resolve().name)
    revision = name["revision"] or _pinned(name["repository"])
    folder, commit = _from_hub(name["repository"], revision, data / "weights", console, may_fetch=may_fetch)
    return _read(folder, f"{name['repository']}@{commit}")


def refuse_other_sizes(config: dict[str, Any], wanted: dict[str, int], where: str) -> None:
    """UsageError, with what to set, where a `config.json` is of no GPT-2 or of other sizes than those wanted."""
    if config.get("model_type") != "gpt2":
        raise UsageError(f"{where} is a model of type {config.get('model_type')!r}; wanted gpt2")
    faults = []
    for name, size in wanted.items():
        key, default = SIZES[name]
        found = config.get(key, default)
        if found == size:
            continue
        if name == "vocab_size":
            faults.append(f"it has a vocabulary of {found}, and task.tokenizer makes {size} tokens")
        else:
            faults.append(f"its {name} is {found}, not {size} (--set model.{name}={found})")
    if faults:
        raise UsageError(f"{where} does not fit: {'; '.join(faults)}")


def _read(path: Path, origin: str) -> WeightsFolder:
    if not (path / WEIGHTS).is_file():
        why = f"has no {WEIGHTS}"
        if (path / SHARDED).is_file():
            why = f"has its weights in several files; wanted one {WEIGHTS}"
        elif (path / PICKLED).is_file():
            why = (
                f"has pickled weights only, which are not read since they can run code; "
                f"GPT2LMHeadModel.from_pretrained(…).save_pretrained(FOLDER) makes a {WEIGHTS} of them"
            )
        raise MissingError(f"model.weights: {path} {why}")
    try:
        with safe_open(path / WEIGHTS, framework="np") as file:
            file.keys()
    except (SafetensorError, OSError) as fault:
        raise MissingError(f"model.weights: {path / WEIGHTS} is damaged or no safetensors ({fault})") from None
    if not (path / CONFIG).is_file():
        raise MissingError(f"model.weights: {path} has no {CONFIG}")
    return WeightsFolder(path, origin, read_json(path / CONFIG), sha256(path / WEIGHTS))


def _pinned(repository: str) -> str:
    """The commit that is known of a repository, else its main branch."""
    hubs = [known.hub for known in KNOWN.values() if known.hub]
    return next((hub.revision for hub in hubs if hub.repository == repository), "main")


def _from_hub(repository: str, revision: str, kept: Path, console: Console, *, may_fetch: bool) -> tuple[Path, str]:
    """The folder of a repository's files, fetched if they are not here, and the commit they are of (12 digits)."""
    stem = repository.replace("/", "--")
    known = f"{stem}@{revision[:12]}" if COMMIT.fullmatch(revision) else f"{stem}@*"
    here = sorted(path for path in kept.glob(known) if (path / WEIGHTS).is_file() and (path / CONFIG).is_file())
    if len(here) == 1:
        return here[0], here[0].name.rpartition("@")[2]
    if not may_fetch:
        raise MissingError(f"model.weights: {repository} is not in {kept}, and auto_fetch is off; allow it, {HELP}")
    hub = Hub(repository, revision, {}, "model")
    commit, listed = list_files(hub, repository, HELP)
    files = {file.name: file for file in listed if file.name in (CONFIG, WEIGHTS)}
    if absent := {CONFIG, WEIGHTS} - files.keys():
        raise MissingError(
            f"model.weights: {repository} at {revision} has no {' and no '.join(sorted(absent))}; {HELP}"
        )
    folder = kept / f"{stem}@{commit[:12]}"
    console.print(
        f"fetching {repository} at {commit[:12]}: {sum(f.bytes for f in files.values()) / 1e6:,.1f} MB, into {folder}",
        soft_wrap=True,
    )
    temporary = kept / f".{folder.name}.download"
    kept.mkdir(parents=True, exist_ok=True)
    with FileLock(kept / f".{folder.name}.lock"):
        if not folder.is_dir():  # another process fetched them while this one waited
            for name in (CONFIG, WEIGHTS):
                download(replace(hub, revision=commit), files[name], temporary, HELP, console)
            temporary.replace(folder)
    return folder, commit[:12]

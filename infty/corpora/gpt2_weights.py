"""Starting weights of a GPT-2: a folder as Hugging Face saves them, or the same from the public hub."""

import logging
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from infty.base.errors import MissingError, UsageError, describe_fault, flatten
from infty.base.files import move_folder, read_json, sha256
from infty.base.locks import hold_lock
from infty.corpora.hub import download, list_files
from infty.corpora.registry import KNOWN, Hub

logger = logging.getLogger(__name__)

WEIGHTS, CONFIG = "model.safetensors", "config.json"
PICKLED, SHARDED = "pytorch_model.bin", "model.safetensors.index.json"
HUB_NAME = re.compile(r"(?P<repository>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>[\w.-]+))?")
COMMIT = re.compile(r"[0-9a-f]{12,40}")  # results and folders name a commit by its first 12 digits
HELP = f"you can also download {CONFIG} and {WEIGHTS} by hand, and give their folder with --set model.weights=FOLDER"
SAVE = "GPT2LMHeadModel.from_pretrained(…).save_pretrained(FOLDER"
# Our name of each size, its name in config.json, and GPT-2 small's value, which stands if the file has none.
SIZES = {
    "num_layers": ("n_layer", 12),
    "num_heads": ("n_head", 12),
    "hidden_size": ("n_embd", 768),
    "num_positions": ("n_positions", 1024),
    "vocab_size": ("vocab_size", 50_257),
}
# The other settings that shape a GPT-2, with the values that the models here have.
SHAPE = {
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "reorder_and_upcast_attn": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
}


@dataclass(frozen=True)
class WeightsFolder:
    """A folder with `config.json`, here as `config`, and `model.safetensors`, whose sum is `sha256`."""

    path: Path
    origin: str  # what results name it by: the hub's name and commit, or the last part of its path
    config: dict[str, Any]
    sha256: str


def find_weights(given: str, data: Path, *, may_fetch: bool) -> WeightsFolder:
    """Find the weights in a folder, or of a hub name (`owner/name`, `owner/name@revision`), kept below the data folder.

    may_fetch: the hub may be asked for what is not here.

    Raises:
        MissingError: The weights are not there, can't be fetched, or are no safetensors; the message says what to do.
    """
    path, name = Path(os.path.expanduser(given)), HUB_NAME.fullmatch(given)  # Path's own raises for an unknown ~user
    if os.path.exists(path) or name is None:  # Path's own raises for names that no file can have
        if not os.path.isdir(path):
            why = "is a file" if os.path.exists(path) else "is not there"
            wanted = f"a folder with {CONFIG} and {WEIGHTS}, or a hub name: OWNER/NAME or OWNER/NAME@REVISION"
            raise MissingError(f"model.weights: {given} {why}; wanted {wanted}")
        return _read(path, os.path.basename(os.path.abspath(path)), "save or copy it there again")
    pins = {known.hub.repository: known.hub.revision for known in KNOWN.values() if known.hub}
    revision = name["revision"] or pins.get(name["repository"], "main")
    folder = _find_on_hub(name["repository"], revision, data / "weights", may_fetch=may_fetch)
    origin = f"{name['repository']}@{folder.name.rpartition('@')[2]}"
    return _read(folder, origin, "remove that folder, and it is fetched again")


def is_on_the_hub(given: str) -> bool:
    """Tell whether this is a name on the hub; else it is a folder."""
    return HUB_NAME.fullmatch(given) is not None and not os.path.exists(given)


def refuse_other_sizes(config: dict[str, Any], wanted: dict[str, int], where: str) -> None:
    """Raise UsageError, with what to set, if a `config.json` is of no GPT-2 or of other sizes than those wanted."""
    if config.get("model_type") != "gpt2":
        raise UsageError(f"{where} is a model of type {flatten(repr(config.get('model_type')))}; wanted gpt2")
    faults = []
    for name, size in wanted.items():
        key, default = SIZES[name]
        found = config.get(key, default)
        if type(found) is not int or found != size:
            found = flatten(str(found))
            words = f"it has a vocabulary of {found}, and task.tokenizer makes {size} tokens"
            other = f"its {name} is {found}, not {size} (--set model.{name}={found})"
            faults.append(words if name == "vocab_size" else other)
    width = config.get("n_embd", SIZES["hidden_size"][1])
    inner = {"n_inner": 4 * width} if type(width) is int else {}
    for key, value in {**SHAPE, **inner}.items():
        if config.get(key, value) not in ((value, None) if key == "n_inner" else (value,)):
            faults.append(f"its {key} is {flatten(repr(config[key]))}, and models here have {value!r}")
    if faults:
        raise UsageError(f"{where} does not fit: {'; '.join(faults)}")


def _read(path: Path, origin: str, mend: str) -> WeightsFolder:
    """Read a folder's configuration and the header of its weights. mend: what to do if a file is damaged."""
    if why := _explain_lack({name for name in (CONFIG, WEIGHTS, PICKLED, SHARDED) if (path / name).is_file()}):
        raise MissingError(f"model.weights: {path} {why}")
    try:
        with safe_open(path / WEIGHTS, framework="np") as file:
            file.keys()
    except (SafetensorError, OSError) as fault:
        why = f"is damaged or no safetensors ({describe_fault(fault)})"
        raise MissingError(f"model.weights: {path / WEIGHTS} {why}; {mend}") from None
    return WeightsFolder(path, origin, read_json(path / CONFIG, mend), sha256(path / WEIGHTS))


def _explain_lack(files: set[str]) -> str | None:
    """Say why the files of a folder or a repository are not enough, and what to do; None if they are."""
    if WEIGHTS in files:
        return None if CONFIG in files else f"has no {CONFIG}; put the one that was saved with {WEIGHTS} beside it"
    if SHARDED in files:
        return f'has its weights in several files; {SAVE}, max_shard_size="50GB") makes one {WEIGHTS} of them'
    if PICKLED in files:
        return f"has pickled weights only, which are not read since they can run code; {SAVE}) makes {WEIGHTS} of them"
    return f"has no {WEIGHTS}; {SAVE}) writes one"


def _find_on_hub(repository: str, revision: str, kept: Path, *, may_fetch: bool) -> Path:
    """Find the folder of a repository's files; fetch it if it is not here."""
    # For a commit its folder is taken, for the main branch the only one that is here.
    stem = f"{repository.replace('/', '--')}@"
    here = {path.name.removeprefix(stem): path for path in sorted(kept.glob(f"{stem}*")) if _is_whole(path)}
    commit = revision[:12] if COMMIT.fullmatch(revision) else None  # that of another branch or tag only the hub knows
    fit = [path for key, path in here.items() if key == commit or revision == "main"]
    if len(fit) == 1:
        return fit[0]
    others = f"; here is {', '.join(f'{repository}@{commit}' for commit in here)}" if here else ""
    if not may_fetch:
        missing = f"there is no folder {repository}, and of the hub's {repository} at {revision} nothing is in {kept}"
        raise MissingError(f"model.weights: {missing}; auto_fetch = true lets train fetch it; {HELP}{others}")

    # The hub says what it has before anything is downloaded.
    commit, listed = list_files(Hub(repository, revision, {}, "model"), repository, HELP + others)
    if why := _explain_lack({file.name for file in listed}):
        raise MissingError(f"model.weights: {repository} at {revision} {why}")
    files = [file for name in (CONFIG, WEIGHTS) for file in listed if file.name == name]
    size = f"{sum(file.bytes for file in files) / 1e6:,.1f} MB in {len(files)} files"
    folder = kept / f"{stem}{commit[:12]}"
    logger.info(f"fetching {repository} at {commit[:12]}: {size} from the hub, into {folder}")

    # The folder is whole or not there; a later call begins with the first missing file.
    temporary = folder.with_name(f".{folder.name}.download")
    with hold_lock(folder.with_name(f".{folder.name}.lock"), f"fetches {repository}"):
        if not _is_whole(folder):  # else another process fetched them while this one waited
            download(Hub(repository, commit, {}, "model"), files, temporary, HELP)
            shutil.rmtree(temporary / ".cache", ignore_errors=True)  # what the hub's library notes of downloads
            move_folder(temporary, folder)
    return folder


def _is_whole(folder: Path) -> bool:
    return (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()

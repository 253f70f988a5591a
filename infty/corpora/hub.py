"""Corpora from the public hub, at a pinned commit, with their sums checked. The only place that uses a network."""

import os
import shutil
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from rich.console import Console

from infty.corpora.known import KNOWN, Hub
from infty.corpora.layouts import find_pg19, find_wikitext
from infty.corpora.store import Corpus, building, open_corpus, remedy, seal, write_corpus
from infty.corpora.tokenizers import BpeTokenizer
from infty.errors import InftyError, MissingError, UsageError
from infty.files import sha256

TIMEOUT = 10  # seconds to wait for the hub's first answer


@dataclass(frozen=True)
class HubFile:
    """A file of a repository, its size, and its sum where the hub keeps one."""

    name: str
    bytes: int
    sha256: str | None


def is_offline() -> bool:
    """Whether the user told the hub's library to use no network."""
    return any(os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE") for name in ("HF_HUB_OFFLINE",))


def fetch(data: Path, name: str, parts: list[str], console: Console, *, replace: bool) -> Corpus:
    """Download the parts of a corpus (splits, or the files of a tokeniser) and import them. A broken download goes on.

    MissingError where the hub can't be reached, refuses, or sends something else than was pinned.
    """
    known = KNOWN[name]
    if known.hub is None:
        raise UsageError(f"{name} is not on the hub; {remedy(name)}")
    wanted = look(name, parts)
    total = sum(file.bytes for file in wanted)
    console.print(
        f"fetching {name} ({', '.join(parts)}): {total / 1e6:,.1f} MB in {len(wanted)} files from "
        f"{known.hub.repository} at {known.hub.revision[:7]}, into {data / name}; {known.licence}",
        soft_wrap=True,
    )
    downloads = data / f".{name}.download"
    for file in wanted:
        _download(known.hub, file, downloads, name, console)
    origin = f"{known.hub.repository}@{known.hub.revision}"
    if known.layout == "tokenizer":
        corpus = import_tokenizer(data, name, downloads, origin, replace=replace)
    else:
        find = {"wikitext": find_wikitext, "pg19": find_pg19}[known.layout]
        corpus = write_corpus(data, name, find(downloads), origin, console, replace=replace)
    shutil.rmtree(downloads, ignore_errors=True)
    return corpus


def look(name: str, parts: list[str]) -> list[HubFile]:
    """The files that hold the parts, as the hub lists them. MissingError within seconds where there is no network."""
    from huggingface_hub import HfApi

    hub = KNOWN[name].hub
    assert hub is not None
    if absent := [part for part in parts if part not in hub.files]:
        raise UsageError(f"{name} has no {absent[0]!r}; there is {', '.join(hub.files)}")
    if is_offline():
        raise MissingError(f"HF_HUB_OFFLINE is set, so {name} can't be fetched; {remedy(name)}")
    try:
        info = HfApi().repo_info(
            hub.repository, repo_type=hub.kind, revision=hub.revision, timeout=TIMEOUT, files_metadata=True
        )
    except InftyError:
        raise
    except Exception as fault:  # of the network, of the hub, of its library: the user can do the same about each
        why = str(fault).strip().splitlines() or [type(fault).__name__]
        raise MissingError(f"the hub can't be reached ({why[0]}); try again later; {remedy(name)}") from None
    patterns = [hub.files[part] for part in parts]
    found = [
        HubFile(s.rfilename, s.size or 0, hub.sums.get(s.rfilename) or (s.lfs.sha256 if s.lfs else None))
        for s in getattr(info, "siblings", None) or []
        if any(fnmatch(s.rfilename, pattern) for pattern in patterns)
    ]
    if lacking := [p for p in patterns if not any(fnmatch(file.name, p) for file in found)]:
        raise MissingError(f"{hub.repository} at {hub.revision[:7]} has no {lacking[0]}; {remedy(name)}")
    return found


def import_tokenizer(data: Path, name: str, folder: Path, origin: str, *, replace: bool) -> Corpus:
    """GPT-2's `vocab.json` and `merges.txt` from a folder. MissingError where they are something else."""
    path = data / name
    BpeTokenizer.gpt2(folder)
    if path.exists() and not replace:
        raise UsageError(f"{path} is here already; --replace puts the new one in its place")
    with building(data, name) as temporary:
        for file in ("vocab.json", "merges.txt"):
            shutil.copyfile(folder / file, temporary / file)
        seal(temporary, path, {"splits": {}, "source": origin})
    return open_corpus(data, name)


def _download(hub: Hub, file: HubFile, folder: Path, name: str, console: Console) -> None:
    """One file, gone on with where a download broke off, and checked. MissingError where it can't be had."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils import disable_progress_bars

    if not console.is_terminal:
        disable_progress_bars()
    try:
        path = Path(
            hf_hub_download(hub.repository, file.name, repo_type=hub.kind, revision=hub.revision, local_dir=folder)
        )
    except InftyError:
        raise
    except Exception as fault:  # as above
        why = str(fault).strip().splitlines() or [type(fault).__name__]
        raise MissingError(
            f"{file.name} could not be fetched ({why[0]}); the same command goes on from there; {remedy(name)}"
        ) from None
    if path.stat().st_size != file.bytes or (file.sha256 and sha256(path) != file.sha256):
        path.unlink()
        raise MissingError(
            f"{file.name} is not what the hub lists at {hub.revision[:7]}, and was removed; fetch it again"
        )

"""Corpora from the public hub, at a pinned commit, with their sums checked. The only place that uses a network."""

import logging
import math
import os
import shutil
from dataclasses import dataclass
from dataclasses import replace as changed
from fnmatch import fnmatch
from pathlib import Path

from infty.base.errors import MissingError, UsageError
from infty.base.files import hold_lock, sha256
from infty.base.messages import describe_fault
from infty.base.screen import screen
from infty.corpora.layouts import find_pg19, find_wikitext
from infty.corpora.registry import KNOWN, Hub
from infty.corpora.store import (
    Corpus,
    open_corpus,
    refuse_no_corpus,
    remedy,
    replace_data,
    write_corpus,
    write_manifest,
)
from infty.corpora.tokenizers import BpeTokenizer

logger = logging.getLogger(__name__)

TIMEOUT = 10  # seconds to wait for the hub's first answer


@dataclass(frozen=True)
class HubFile:
    """A file of a repository, its size, and its sum if the hub keeps one."""

    name: str
    bytes: int
    sha256: str | None


def is_offline() -> bool:
    """Tell whether the user told the hub's library to use no network."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def fetch(data: Path, name: str, parts: dict[str, int | None], *, replace: bool) -> Corpus:
    """Download the parts of a corpus (splits, or the files of a tokeniser) and import them. A broken download goes on.

    parts: how many documents of each are wanted; None: all.

    MissingError if the hub can't be reached, refuses, or sends something else than was pinned; UsageError if the corpus
    is not on the hub.
    """
    known = KNOWN[name]
    if known.hub is None:
        raise UsageError(f"{name} is not on the hub; {remedy(name)}")

    # The size is told before anything is downloaded.
    wanted = find_files(name, parts)
    total = sum(file.bytes for file in wanted)
    logger.info(
        f"fetching {name} ({', '.join(parts)}): {total / 1e6:,.1f} MB in {len(wanted)} files from "
        f"{known.hub.repository} at {known.hub.revision[:7]}, into {data / name}; {known.licence}"
    )

    # What was downloaded stays until it is imported: a fetch that is stopped is gone on with.
    downloads = data / f".{name}.download"
    data.mkdir(parents=True, exist_ok=True)
    with hold_lock(data / f".{name}.download.lock", f"fetches {name}"):  # the second fetches what the first left
        for path in downloads.rglob("*.parquet"):
            if str(path.relative_to(downloads)) not in {file.name for file in wanted}:
                path.unlink()  # of an earlier fetch that was stopped
        for file in wanted:
            download(known.hub, file, downloads, remedy(name))
        origin = f"{known.hub.repository}@{known.hub.revision}"
        if known.layout == "tokenizer":
            corpus = import_tokenizer(data, name, downloads, origin, replace=replace)
        else:
            found = {"wikitext": find_wikitext, "pg19": find_pg19}[known.layout](downloads)
            sources = {split: changed(found[split], limit=limit) for split, limit in parts.items()}
            corpus = write_corpus(data, name, sources, origin, replace=replace)
        shutil.rmtree(downloads, ignore_errors=True)
    return corpus


def find_files(name: str, parts: dict[str, int | None]) -> list[HubFile]:
    """Find the files that hold the parts, as the hub lists them.

    UsageError if the corpus has no such part. MissingError within seconds if there is no network.
    """
    hub = KNOWN[name].hub
    assert hub is not None
    if absent := [part for part in parts if part not in hub.files]:
        raise UsageError(f"{name} has no {absent[0]!r}; there is {', '.join(hub.files)}")
    _, listed = list_files(hub, name, remedy(name))
    found = []
    for part, limit in parts.items():
        files = sorted((file for file in listed if fnmatch(file.name, hub.files[part])), key=lambda file: file.name)
        if not files:
            raise MissingError(f"{hub.repository} at {hub.revision[:7]} has no {hub.files[part]}; {remedy(name)}")
        found += files[: _count_files(len(files), limit, KNOWN[name].documents.get(part))]
    return found


def list_files(hub: Hub, name: str, help: str) -> tuple[str, list[HubFile]]:
    """Ask for the commit of a revision, and the files of the repository there. help: what else the user can do.

    MissingError within seconds if there is no network, or none is wanted; and if the hub has no such thing.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    if is_offline():
        raise MissingError(f"HF_HUB_OFFLINE is set, so {name} can't be fetched; {help}")
    try:
        info = HfApi().repo_info(
            hub.repository, repo_type=hub.kind, revision=hub.revision, timeout=TIMEOUT, files_metadata=True
        )
    except RevisionNotFoundError:
        raise MissingError(f"{hub.repository} has no revision {hub.revision} on the hub; {help}") from None
    except RepositoryNotFoundError:
        raise MissingError(f"the hub shows no {hub.repository}: is it spelt so, and public? {help}") from None
    except Exception as fault:  # of the network, of the hub, of its library: the user can do the same about each
        raise MissingError(f"the hub can't be reached ({describe_fault(fault)}); try again later; {help}") from None
    listed = [
        HubFile(s.rfilename, s.size or 0, hub.sums.get(s.rfilename) or (s.lfs.sha256 if s.lfs else None))
        for s in getattr(info, "siblings", None) or []
    ]
    return info.sha or hub.revision, listed


def _count_files(files: int, limit: int | None, documents: int | None) -> int:
    """Count the files of a split that hold its first `limit` documents, with half as many again to be sure."""
    return files if limit is None or documents is None else math.ceil(1.5 * limit / documents * files)


def import_tokenizer(data: Path, name: str, folder: Path, origin: str, *, replace: bool) -> Corpus:
    """Import GPT-2's `vocab.json` and `merges.txt` from a folder.

    MissingError if they are something else, UsageError if there are some already and `replace` is not set.
    """
    path = data / name
    refuse_no_corpus(path)
    BpeTokenizer.gpt2(folder)
    sums = known.hub.sums if (known := KNOWN.get(name)) and known.hub else {}
    if wrong := [file for file, wanted in sums.items() if sha256(folder / file) != wanted]:
        raise MissingError(f"{folder / wrong[0]} is in GPT-2's form, and is not GPT-2's; {remedy(name)}")
    if path.exists() and not replace:
        raise UsageError(f"{path} is here already; --replace puts the new one in its place")
    with replace_data(path) as temporary:
        for file in ("vocab.json", "merges.txt"):
            shutil.copyfile(folder / file, temporary / file)
        write_manifest(temporary, {"splits": {}, "origin": origin})
    return open_corpus(data, name)


def download(hub: Hub, file: HubFile, folder: Path, help: str) -> None:
    """Download a file, or the rest of one that broke off, and check it. MissingError if it can't be had."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils import disable_progress_bars

    if not screen().is_terminal:
        disable_progress_bars()
    try:
        path = Path(
            hf_hub_download(hub.repository, file.name, repo_type=hub.kind, revision=hub.revision, local_dir=folder)
        )
    except Exception as fault:  # as above
        raise MissingError(
            f"{file.name} could not be fetched ({describe_fault(fault)}); the same command goes on from there; {help}"
        ) from None
    if path.stat().st_size != file.bytes or (file.sha256 and sha256(path) != file.sha256):
        path.unlink()
        raise MissingError(
            f"{file.name} is not what the hub lists at {hub.revision[:7]}, and was removed; fetch it again"
        )

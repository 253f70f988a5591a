"""Corpora from the public hub, at a pinned commit, with their sums checked. The only place that uses a network."""

import logging
import math
import os
import shutil
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

from infty.base.errors import MissingError, UsageError, describe_fault
from infty.base.files import sha256
from infty.base.locks import hold_lock
from infty.base.progress import screen
from infty.corpora.imports import import_folder
from infty.corpora.registry import KNOWN, Hub
from infty.corpora.store import Corpus, remedy

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
    """Download the parts of a corpus (splits, or the files of a tokeniser) and import them. Downloads are resumed.

    parts: how many documents of each are wanted; None: all.

    Raises:
        MissingError: The hub can't be reached, refuses, or sends other files than the pinned ones.
        UsageError: The corpus is not on the hub, or has no such part.
    """
    hub = KNOWN[name].hub
    if hub is None:
        raise UsageError(f"{name} is not on the hub; {remedy(name)}")

    # The size is logged before anything is downloaded.
    wanted = _find_files(hub, name, parts)
    size = f"{sum(file.bytes for file in wanted) / 1e6:,.1f} MB in {len(wanted)} files"
    place = f"{hub.repository} at {hub.revision[:7]}, into {data / name}; {KNOWN[name].licence}"
    logger.info(f"fetching {name} ({', '.join(parts)}): {size} from {place}")

    # Downloads are kept until they are imported, so that a stopped fetch can be resumed.
    downloads = data / f".{name}.download"
    with hold_lock(data / f".{name}.download.lock", f"fetches {name}"):  # the second fetches what the first left
        for path in downloads.rglob("*.parquet"):
            if str(path.relative_to(downloads)) not in {file.name for file in wanted}:
                path.unlink()  # of an earlier fetch that was stopped
        download(hub, wanted, downloads, remedy(name))
        corpus = import_folder(data, name, downloads, f"{hub.repository}@{hub.revision}", parts, replace=replace)
        shutil.rmtree(downloads, ignore_errors=True)
    return corpus


def _find_files(hub: Hub, name: str, parts: dict[str, int | None]) -> list[HubFile]:
    if absent := [part for part in parts if part not in hub.files]:
        raise UsageError(f"{name} has no {absent[0]!r}; there is {', '.join(hub.files)}")
    _, listed = list_files(hub, name, remedy(name))
    found = []
    for part, limit in parts.items():
        files = sorted((file for file in listed if fnmatch(file.name, hub.files[part])), key=lambda file: file.name)
        if not files:
            raise MissingError(f"{hub.repository} at {hub.revision[:7]} has no {hub.files[part]}; {remedy(name)}")
        if limit is not None and (documents := KNOWN[name].documents.get(part)):
            files = files[: math.ceil(1.5 * limit / documents * len(files))]  # half as many again to be sure
        found += files
    return found


def list_files(hub: Hub, name: str, help: str) -> tuple[str, list[HubFile]]:
    """Ask the hub for a revision's commit and files. MissingError, with `help`, within seconds if it can't tell."""
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


def download(hub: Hub, files: list[HubFile], folder: Path, help: str) -> None:
    """Download files, or the rest of one that broke off, and check each. MissingError if one can't be fetched."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils import disable_progress_bars

    if not screen().is_terminal:
        disable_progress_bars()
    # Not snapshot_download: its threads don't say which file failed, it doesn't go on with the first that is missing,
    # and without a network it returns an incomplete folder.
    get = partial(hf_hub_download, hub.repository, repo_type=hub.kind, revision=hub.revision, local_dir=folder)
    for file in files:
        try:
            path = Path(get(file.name))
        except Exception as fault:  # whichever it is, the same command goes on
            why = f"{file.name} could not be fetched ({describe_fault(fault)})"
            raise MissingError(f"{why}; the same command goes on from there; {help}") from None
        if path.stat().st_size != file.bytes or (file.sha256 and sha256(path) != file.sha256):
            path.unlink()
            why = f"{file.name} is not what the hub lists at {hub.revision[:7]}, and was removed"
            raise MissingError(f"{why}; fetch it again")

"""The corpora on this machine, and a check that their files are unchanged."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infty.base.errors import MissingError
from infty.base.table import Table
from infty.corpora.manifest import MANIFEST, TokensManifest, is_whole
from infty.corpora.registry import KNOWN, ORIGIN, get_known
from infty.corpora.store import NAME, Corpus, open_corpus, remedy


@dataclass(frozen=True)
class Entry:
    """One corpus: here, missing or damaged. Its fields are what JSON holds."""

    name: str
    title: str
    licence: str
    state: str
    source: str
    splits: dict[str, dict[str, Any]]
    tokens: list[str]
    next: str | None


def inventory(data: Path) -> list[Entry]:
    """List every corpus that infty knows or the data folder holds. Sums are not checked (see `verify`)."""
    here = {path.parent.name for path in data.glob(f"*/{MANIFEST}")} if data.is_dir() else set()
    here = {name for name in here if NAME.fullmatch(name)}  # not what a killed process left
    return [_look_up(data, name, name in here) for name in [*KNOWN, *sorted(here - set(KNOWN))]]


def _look_up(data: Path, name: str, here: bool) -> Entry:
    known, state, help = get_known(name), "missing", remedy(name)
    if here:
        try:
            return describe_corpus(open_corpus(data, name))
        except MissingError as fault:
            state, help = "damaged", str(fault)
    origin = f"{known.hub.repository}@{known.hub.revision[:7]}" if known.hub else "–"
    return Entry(name, known.title, known.licence, state, origin, {}, [], help)


def describe_corpus(corpus: Corpus) -> Entry:
    """Describe a corpus that is here."""
    tokens = [path.name for path in _list_token_folders(corpus.path)]
    source = ", ".join(sorted({counts["source"] for counts in corpus.splits.values()})) or ORIGIN
    return Entry(corpus.name, corpus.known.title, corpus.known.licence, "here", source, corpus.splits, tokens, None)


def _list_token_folders(path: Path) -> list[Path]:
    return sorted(manifest.parent for manifest in path.glob(f"tokens/[!.]*/{MANIFEST}"))


@dataclass(frozen=True)
class Verified:
    """Unchanged files (`whole`), and what is wrong with each of the others, with what to do (`faults`)."""

    whole: list[str]
    faults: list[str]

    def refuse_faults(self) -> None:
        """Raise MissingError with all faults, if there are any."""
        if self.faults:
            raise MissingError("\n".join(self.faults))


def verify(data: Path, names: list[str]) -> Verified:
    """Check the sum of every file of the named corpora, or of all."""
    names = names or [entry.name for entry in inventory(data) if entry.state != "missing"]
    checked = [entry for name in names for entry in _check_files(data, name)]
    whole = [str(path.relative_to(data)) for path, fault in checked if not fault]
    return Verified(whole, [fault for _, fault in checked if fault])


def _check_files(data: Path, name: str) -> Iterator[tuple[Path, str | None]]:
    """Go through the files of a corpus and of its tokens, each with what is wrong with it, if anything is."""
    path = data / name
    folders = [path, *(_list_token_folders(path) if (path / MANIFEST).is_file() else [])]
    for folder in folders:
        mend = remedy(name) if folder == path else f"remove {folder}, it is made again"
        try:
            if folder == path:
                corpus = open_corpus(data, name)
                checked = {file: corpus.is_whole(file) for file in corpus.files}
            else:
                files = TokensManifest.read(folder, mend).files
                checked = {file: is_whole(folder / file, entry) for file, entry in files.items()}
        except MissingError as fault:
            yield folder, str(fault)
            continue
        for file, whole in checked.items():
            yield folder / file, None if whole else f"{folder / file} is damaged or missing; {mend}"


def inventory_table(entries: list[Entry]) -> Table:
    """Make the table of `infty data list`: a row per split."""
    rows = []
    for entry in entries:
        for split, counts in (entry.splits or {"–": {}}).items():
            figures = [f"{counts[key]:,}" if key in counts else "–" for key in ("documents", "words", "lines", "bytes")]
            rows.append([entry.name, entry.state, split, *figures, counts.get("sha256", "–")[:12]])
    notes = [f"{entry.name}: {entry.title}; {entry.licence}; from {entry.source}" for entry in entries]
    notes += [f"{entry.name}: {entry.next}" for entry in entries if entry.next]
    headings = ["corpus", "state", "split", "documents", "words", "line ends", "bytes", "sha256"]
    return Table("corpora", headings, rows, notes)

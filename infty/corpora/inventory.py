"""What corpora are on this machine, and whether they are what they were."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infty.corpora.known import KNOWN
from infty.corpora.store import MANIFEST, Corpus, is_whole, open_corpus, read_manifest, remedy
from infty.errors import MissingError
from infty.table import Table

ORIGIN = "a folder of the user's"


@dataclass(frozen=True)
class Entry:
    """One corpus: here, missing or damaged."""

    name: str
    title: str
    licence: str
    state: str
    source: str
    splits: dict[str, dict[str, Any]]
    tokens: list[str]
    next: str | None

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return vars(self)


def inventory(data: Path) -> list[Entry]:
    """Every corpus that infty knows, and every other one in the data folder. Sums are not checked (see `verify`)."""
    here = {path.parent.name for path in data.glob(f"*/{MANIFEST}")} if data.is_dir() else set()
    return [_entry(data, name, name in here) for name in [*KNOWN, *sorted(here - set(KNOWN))]]


def described(corpus: Corpus) -> Entry:
    """One that is here."""
    known = corpus.known
    title, licence = (known.title, known.licence) if known else (corpus.name, "your own")
    tokens = sorted(path.parent.name for path in corpus.path.glob(f"tokens/*/{MANIFEST}"))
    origins = sorted({counts["source"] for counts in corpus.splits.values()})
    return Entry(corpus.name, title, licence, "here", ", ".join(origins) or ORIGIN, corpus.splits, tokens, None)


def verify(data: Path, names: list[str]) -> list[str]:
    """Check the sum of every file of the named corpora, or of all; the files that were checked.

    MissingError, with each file that is not what it was, and what to do.
    """
    found, faults = [], []
    for name in names or [entry.name for entry in inventory(data) if entry.state != "missing"]:
        path = data / name
        if not (path / MANIFEST).is_file():
            faults.append(f"no corpus {name!r} in {data}; {remedy(name)}")
            continue
        for folder in [path, *sorted(parent.parent for parent in path.glob(f"tokens/*/{MANIFEST}"))]:
            try:
                files = read_manifest(folder)["files"]
            except MissingError as fault:
                faults.append(str(fault))
                continue
            for file, entry in files.items():
                if is_whole(folder / file, entry):
                    found.append(str((folder / file).relative_to(data)))
                else:
                    mend = remedy(name) if folder == path else f"remove {folder}, it is made again"
                    faults.append(f"{folder / file} is damaged or missing; {mend}")
    if faults:
        raise MissingError("\n".join(faults))
    return found


def inventory_table(entries: list[Entry]) -> Table:
    """`infty data list` for the screen: a row a split."""
    rows = []
    for entry in entries:
        for split, counts in (entry.splits or {"–": {}}).items():
            figures = [f"{counts[key]:,}" if key in counts else "–" for key in ("documents", "words", "lines", "bytes")]
            rows.append([entry.name, entry.state, split, *figures, counts.get("sha256", "–")[:12]])
    notes = [f"{entry.name}: {entry.title}; {entry.licence}; from {entry.source}" for entry in entries]
    notes += [f"{entry.name}: {entry.next}" for entry in entries if entry.next]
    headings = ["corpus", "state", "split", "documents", "words", "line ends", "bytes", "sha256"]
    return Table("corpora", headings, rows, notes)


def _entry(data: Path, name: str, here: bool) -> Entry:
    known = KNOWN.get(name)
    title, licence = (known.title, known.licence) if known else (name, "your own")
    origin = f"{known.hub.repository}@{known.hub.revision[:7]}" if known and known.hub else "–"
    if not here:
        return Entry(name, title, licence, "missing", origin, {}, [], remedy(name))
    try:
        corpus = open_corpus(data, name)
    except MissingError as fault:
        return Entry(name, title, licence, "damaged", origin, {}, [], str(fault))
    return described(corpus)

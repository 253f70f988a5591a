"""Corpora on disk: `<data>/<name>/<split>.txt`, its documents, and a manifest with sums, which is written last."""

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from infty.base.errors import InftyError, MissingError, UsageError
from infty.base.files import FileSum, exclusive, flush, sha256, write_json, write_text
from infty.base.progress import show_bar
from infty.corpora.layouts import Source
from infty.corpora.manifest import MANIFEST, SCHEMA, CorpusManifest, is_whole, read_manifest, split_files
from infty.corpora.registry import KNOWN, SPLITS, Known
from infty.corpora.text_pieces import count_words, read_pieces

logger = logging.getLogger(__name__)

NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")  # of a corpus


@dataclass(frozen=True)
class Document:
    """One document of a split. start, bytes: where its UTF-8 stands. words: between white space. lines: line ends."""

    name: str
    start: int
    bytes: int
    words: int
    lines: int


class _Documents(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    documents: list[Document]


@dataclass(frozen=True)
class Corpus:
    """An imported corpus. splits: bytes, words, lines, documents, sha256 and source of each that there is.

    A split is `partial` where only its first documents were fetched.
    """

    path: Path
    splits: dict[str, dict[str, Any]]
    files: dict[str, FileSum]

    @property
    def name(self) -> str:
        """The name under which it was imported."""
        return self.path.name

    @property
    def known(self) -> Known | None:
        """What is known of a corpus of this name."""
        return KNOWN.get(self.name)

    def documents(self, split: str) -> list[Document]:
        """The documents of a split, in order. MissingError where they are damaged."""
        name = f"{split}.documents.json"
        self.check(name)
        try:
            documents = _Documents.model_validate_json((self.path / name).read_bytes()).documents
        except (OSError, ValidationError):
            documents = []
        if split not in self.splits or not _add_up(documents, self.splits[split]):
            raise self._damaged(name)
        return documents

    def text(self, document: Document, split: str) -> Iterator[str]:
        """A document's text, in pieces. MissingError where the file is cut short or no longer text."""
        name = f"{split}.txt"
        try:
            with (self.path / name).open("rb") as file:
                file.seek(document.start)
                window = _Window(file, document.bytes)
                yield from read_pieces(window, name)
        except (OSError, MissingError):
            raise self._damaged(name) from None
        if window.left:
            raise self._damaged(name)

    def check(self, name: str) -> None:
        """MissingError, with what to do, where a file is not what was imported."""
        if not is_whole(self.path / name, self.files.get(name)):
            raise self._damaged(name)

    def is_whole(self, split: str) -> bool:
        """Whether a split is what was imported."""
        try:
            self.check(f"{split}.txt")
            self.documents(split)
        except MissingError:
            return False
        return True

    def _damaged(self, name: str) -> MissingError:
        return MissingError(f"{self.path / name} is not what was imported; {remedy(self.name)}")

    @property
    def counts_line_ends(self) -> bool:
        """Whether a line's end is predicted like a word, as in WikiText."""
        return self.known is not None and self.known.layout in ("wikitext", "generated")

    def words(self, documents: list[Document]) -> int:
        """How many words a perplexity a word divides by."""
        return sum(document.words + self.counts_line_ends * document.lines for document in documents)


def open_corpus(folder: Path, name: str) -> Corpus:
    """The corpus `name` below the data folder. MissingError, with the commands that help, where there is none."""
    path = folder / name
    if not (path / MANIFEST).is_file():
        raise MissingError(f"no corpus {name!r} in {folder}; {remedy(name)}")
    manifest = read_manifest(path, CorpusManifest, remedy(name))
    splits = {split: counts.model_dump(exclude_none=True) for split, counts in manifest.splits.items()}
    return Corpus(path, {**splits}, {**manifest.files})


def remedy(name: str) -> str:
    """The commands that bring a corpus here."""
    if name == "generated":
        return "it is made again by: infty data fetch generated"
    if name in KNOWN:
        return f"get it with: infty data fetch {name}, or from your own copy: infty data import {name} FOLDER"
    return "give your own files with: infty train text --data FOLDER"


def write_corpus(folder: Path, name: str, sources: dict[str, Source], origin: str, *, replace: bool) -> Corpus:
    """Import: copy the text of every split, count it, and put a manifest beside it. Whole or not there.

    Splits that are here already and that `sources` has not stay. UsageError where a split is here with another text and
    `replace` is not asked for, or where something else is in its place; InftyError where the disk is full; MissingError
    where the text is no text.
    """
    path = folder / name
    refuse_no_corpus(path)
    with building(folder, name) as temporary:
        splits: dict[str, dict[str, Any]] = {}
        with show_bar(f"importing {name}", sum(source.bytes for source in sources.values())) as advance:
            for split, source in sources.items():
                splits[split] = {**_write_split(temporary, split, source, advance), "source": origin}
        here = _whole_splits(path)
        others = [split for split in splits if split in here and here[split]["sha256"] != splits[split]["sha256"]]
        if others and not replace:
            raise UsageError(f"{path} has another text as {' and '.join(others)}; --replace puts this in its place")
        if not others and splits.keys() <= here.keys():
            logger.info(f"{name} is here already, the same: {path}")
            return open_corpus(folder, name)
        kept = {split: counts for split, counts in here.items() if split not in splits}
        for file in (file for split in kept for file in split_files(split)):
            shutil.copyfile(path / file, temporary / file)
        both = {**kept, **splits}
        seal(temporary, path, {"splits": {split: both[split] for split in SPLITS if split in both}})
    return open_corpus(folder, name)


def refuse_no_corpus(path: Path) -> None:
    """UsageError where something is in a corpus's place that is none: it would be lost."""
    if os.path.lexists(path) and not (path / MANIFEST).is_file():
        raise UsageError(f"{path} is there already and is no corpus; move it away, or take another name")


def _add_up(documents: list[Document], counts: dict[str, Any]) -> bool:
    """Whether documents follow one another through the bytes of a split, and together hold what it holds."""
    edges = list(accumulate((d.bytes for d in documents), initial=0))
    sums = len(documents), edges[-1], sum(d.words for d in documents), sum(d.lines for d in documents)
    return (
        sums == tuple(counts[name] for name in ("documents", "bytes", "words", "lines"))
        and [d.start for d in documents] == edges[:-1]
        and all(d.bytes > 0 and d.words >= 0 and d.lines >= 0 for d in documents)
    )


def _whole_splits(path: Path) -> dict[str, dict[str, Any]]:
    """The splits of a corpus that are what was imported; none where it is damaged or not there."""
    try:
        corpus = open_corpus(path.parent, path.name)
    except MissingError:
        return {}
    return {split: counts for split, counts in corpus.splits.items() if corpus.is_whole(split)}


def seal(temporary: Path, path: Path, contents: dict[str, Any]) -> None:
    """Write sums and manifest of a finished folder, wait until all is on disk, and give it its name.

    What had the name before makes way in one rename; token files that lie in it stay.
    """
    files = {p.name: {"bytes": p.stat().st_size, "sha256": sha256(p)} for p in sorted(temporary.iterdir())}
    for name in files:
        flush(temporary / name)
    write_json(temporary / MANIFEST, {"schema": SCHEMA, **contents, "files": files})
    flush(temporary)
    old = _old(path)
    shutil.rmtree(old, ignore_errors=True)
    if path.exists():
        path.replace(old)
    try:
        temporary.replace(path)
    except OSError:
        if old.exists():
            old.replace(path)
        raise
    if (old / "tokens").is_dir():
        (old / "tokens").replace(path / "tokens")
    shutil.rmtree(old, ignore_errors=True)
    flush(path.parent)


def _old(path: Path) -> Path:
    """Where a folder is while another takes its place."""
    return path.with_name(f".{path.name}.old")


@contextlib.contextmanager
def building(folder: Path, name: str) -> Iterator[Path]:
    """A temporary folder beside `folder/name`, which is gone afterwards whatever happens. One process at a time.

    InftyError where the disk is full, the folder can't be written to, or another process takes too long.
    """
    path, temporary = folder / name, folder / f".{name}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with exclusive(path.with_name(f".{path.name}.lock"), f"makes {path}"):
            try:
                shutil.rmtree(temporary, ignore_errors=True)  # what a killed process left
                if _old(path).is_dir() and not path.exists():  # one that was killed between two renames
                    _old(path).replace(path)
                temporary.mkdir()
                yield temporary
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    except OSError as fault:
        why = f"{fault.filename}: {fault.strerror}" if fault.filename else str(fault.strerror or fault)
        hint = "another folder of corpora: INFTY_DATA or infty.toml"
        raise InftyError(f"{path} could not be made ({why}); nothing was left there ({hint})") from None


def _write_split(folder: Path, split: str, source: Source, advance: Callable[[int], None]) -> dict[str, Any]:
    documents: list[Document] = []
    place = start = words = ends = 0
    inside, title, digest = False, "", hashlib.sha256()

    def close() -> None:
        if place > start:
            name = source.names[len(documents)] if source.names else title or str(len(documents))
            documents.append(Document(name, start, place - start, words, ends))

    with (folder / f"{split}.txt").open("wb") as file:
        for begins, piece in source.documents():
            if begins:
                close()
                if len(documents) == source.limit:
                    start = place
                    break
                start, words, ends, inside, title = place, 0, 0, False, ""
            words += count_words(piece, inside)
            inside = not piece[-1:].isspace() if piece else inside
            ends += piece.count("\n")
            title = title or piece.strip()[:80].partition("\n")[0].strip("= ")
            data = piece.encode()
            digest.update(data)
            file.write(data)
            place += len(data)
            advance(len(data))
        close()
    if not documents:
        raise MissingError(f"the {split} split holds no text: wanted one document at least that is not empty")
    write_text(folder / f"{split}.documents.json", json.dumps({"documents": [asdict(d) for d in documents]}) + "\n")
    return {
        "documents": len(documents),
        "bytes": place,
        "words": sum(d.words for d in documents),
        "lines": sum(d.lines for d in documents),
        "sha256": digest.hexdigest(),
        **({"partial": True} if source.limit else {}),
    }


class _Window:
    """The next `size` bytes of a file."""

    def __init__(self, file: Any, size: int) -> None:
        self.file, self.left = file, size

    def read(self, size: int) -> bytes:
        data = self.file.read(min(size, self.left))
        self.left -= len(data)
        return data

"""Corpora on disk: `<data>/<name>/<split>.txt`, its documents, and a manifest with sums, which is written last."""

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import accumulate, chain
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from infty.base.errors import InftyError, MissingError, UsageError, count
from infty.base.files import Count, FileSum, Strict, replace_folder, sum_files, write_json, write_text
from infty.base.locks import READ_ONLY, hold_lock
from infty.base.progress import Advance, show_bar
from infty.corpora.layouts import Source
from infty.corpora.manifest import MANIFEST, SCHEMA, CorpusManifest, is_whole, split_files
from infty.corpora.registry import KNOWN, SPLITS, Known, get_known
from infty.corpora.text_pieces import TextCounter, read_pieces

logger = logging.getLogger(__name__)

TOKENS = "tokens"  # folder of a corpus's token files
NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")  # of a corpus


@dataclass(frozen=True)
class Document:
    """One document of a split."""

    name: str
    start: Count  # its first byte in the split's text
    bytes: Annotated[Count, Field(gt=0)]  # of its UTF-8
    words: Count  # between white space
    lines: Count  # line ends


class _Documents(Strict):
    documents: list[Document]


@dataclass(frozen=True)
class Corpus:
    """An imported corpus. splits: `SplitCounts` of each split that it has, as in its manifest."""

    path: Path
    splits: dict[str, dict[str, Any]]
    files: dict[str, FileSum]

    @property
    def name(self) -> str:
        """The name under which it was imported."""
        return self.path.name

    @property
    def known(self) -> Known:
        """What the registry knows of a corpus of this name."""
        return get_known(self.name)

    def documents(self, split: str) -> list[Document]:
        """Read the documents of a split, in order. MissingError if they are damaged."""
        name = f"{split}.documents.json"
        self.check(name)
        try:
            documents = _Documents.model_validate_json((self.path / name).read_bytes()).documents
        except (OSError, ValidationError):
            documents = []

        # They must follow one another without gaps, and add up to the counts of the split.
        counts, edges = self.splits.get(split, {}), [*accumulate((d.bytes for d in documents), initial=0)]
        if {**counts, **_count(documents)} != counts or [d.start for d in documents] != edges[:-1]:
            raise self._report_damage(name)
        return documents

    def text(self, document: Document, split: str) -> Iterator[str]:
        """Read a document's text, in pieces. MissingError if the file is cut short or no longer text."""
        name = f"{split}.txt"
        try:
            with (self.path / name).open("rb") as file:
                file.seek(document.start)
                yield from read_pieces(file, name, document.bytes)
        except (OSError, MissingError):
            raise self._report_damage(name) from None

    def check(self, name: str) -> None:
        """Raise MissingError, with what to do, if a file is not what was imported."""
        if not is_whole(self.path / name, self.files.get(name)):
            raise self._report_damage(name)

    def is_whole(self, name: str) -> bool:
        """Tell whether a file is what was imported, and if it holds documents, whether they add up."""
        split, _, kind = name.partition(".")
        with contextlib.suppress(MissingError):
            if kind == "documents.json":
                self.documents(split)
            else:
                self.check(name)
            return True
        return False

    def _report_damage(self, name: str) -> MissingError:
        return MissingError(f"{self.path / name} is not what was imported; {remedy(self.name)}")

    def words(self, texts: Iterable[Document | TextCounter]) -> int:
        """Count the words that a perplexity per word divides by; in WikiText's layout, line ends count as words."""
        return sum(self.known.count_words(text.words, text.lines) for text in texts)


def open_corpus(folder: Path, name: str) -> Corpus:
    """Open the corpus `name` below the data folder. MissingError, with the commands that help, if there is none."""
    path = folder / name
    if not (path / MANIFEST).is_file():
        raise MissingError(f"no corpus {name!r} in {folder}; {remedy(name)}")
    manifest = CorpusManifest.read(path, remedy(name))
    splits = {split: counts.model_dump(exclude_none=True) for split, counts in manifest.splits.items()}
    return Corpus(path, {**splits}, manifest.files)


def remedy(name: str) -> str:
    """Name the commands that bring a corpus here."""
    if name == "generated":
        return "it is made again by: infty data fetch generated"
    if name in KNOWN:
        return f"get it with: infty data fetch {name}, or from your own copy: infty data import {name} FOLDER"
    return "give your own files with: infty train text --data FOLDER"


def write_corpus(folder: Path, name: str, sources: dict[str, Source], origin: str, *, replace: bool) -> Corpus:
    """Import a corpus: copy the text of every split, count it, and put a manifest beside it. Whole or not there.

    Splits that are here but not in `sources` stay.

    Raises:
        UsageError: A split is here with another text, unless `replace`, or something else is in its place.
        InftyError: The disk is full.
        MissingError: The text is no text, or not what is known of the corpus.
    """
    path = folder / name
    refuse_no_corpus(path)
    with replace_data(path) as temporary:
        # Only a text that has been read once can be compared with the one that is here.
        with show_bar(f"importing {name}", sum(source.bytes for source in sources.values())) as advance:
            new = {split: _write_split(temporary, split, source, origin, advance) for split, source in sources.items()}
        for split, source in sources.items():
            if source.limit is None:
                _refuse_miscounted(name, split, new[split])
        here = _find_whole_splits(path)
        others = [split for split in new if split in here and here[split]["sha256"] != new[split]["sha256"]]
        if others and not replace:
            raise UsageError(f"{path} has another text as {' and '.join(others)}; --replace puts this in its place")
        if not others and new.keys() <= here.keys():
            logger.info(f"{name} is here already, the same: {path}")
            shutil.rmtree(temporary)
            return open_corpus(folder, name)

        # The splits that are here and were not imported stay, beside the new ones.
        if stay := [split for split in SPLITS if split in here.keys() - new.keys()]:
            logger.info(f"{name}: kept from an earlier import: {', '.join(stay)}")
        for file in (file for split in here.keys() - new.keys() for file in split_files(split)):
            shutil.copyfile(path / file, temporary / file)
        both = {**here, **new}
        write_manifest(temporary, {"splits": {split: both[split] for split in SPLITS if split in both}})
    return open_corpus(folder, name)


def _refuse_miscounted(name: str, split: str, counts: dict[str, Any]) -> None:
    """Raise MissingError if a split seems a whole one that infty knows, and counts otherwise; log if it is a part."""
    known, documents = get_known(name), counts["documents"]
    words = known.count_words(counts["words"], counts["lines"])
    whole = known.is_whole(split, documents, words)
    if split not in known.words or (whole and words == known.words[split]):
        return
    published = f"{known.documents[split]:,} and " if split in known.documents else ""
    wanted = f"the whole has {published}{known.words[split]:,}"
    unit = "words, with line ends," if words != counts["words"] else "words"
    why = f"{name} {split} has {count(documents, 'document')} and {words:,} {unit} here, and {wanted}"
    if known.is_miscounted(split, documents, words):
        raise MissingError(f"{why}: something was lost or put in on the way; {remedy(name)}")
    part = "" if whole else ": its figures can't be held against published ones"
    logger.info(f"{why}{part}")


def copy_corpus(folder: Path, name: str, files: list[Path], origin: str) -> Corpus:
    """Import files as they are, in the place of what is there. InftyError if the disk is full."""
    with replace_data(folder / name) as temporary:
        for file in files:
            shutil.copyfile(file, temporary / file.name)
        write_manifest(temporary, {"splits": {}, "origin": origin})
    return open_corpus(folder, name)


def refuse_no_corpus(path: Path) -> None:
    """Raise UsageError if something other than a corpus is in its place: it would be lost."""
    if os.path.lexists(path) and not (path / MANIFEST).is_file():
        raise UsageError(f"{path} is there already and is no corpus; move it away, or take another name")


def _find_whole_splits(path: Path) -> dict[str, dict[str, Any]]:
    """Find the splits of a corpus that are what was imported; none if it is damaged or not there."""
    with contextlib.suppress(MissingError):
        corpus = open_corpus(path.parent, path.name)
        return {split: said for split, said in corpus.splits.items() if all(map(corpus.is_whole, split_files(split)))}
    return {}


def write_manifest(folder: Path, contents: dict[str, Any]) -> None:
    """Write the manifest of a folder that is otherwise finished: its contents, and the sums of its files."""
    write_json(folder / MANIFEST, {"schema": SCHEMA, **contents, "files": sum_files(folder)})


@contextlib.contextmanager
def replace_data(path: Path) -> Iterator[Path]:
    """Replace a folder of data, except the token files in it, one process at a time. InftyError if that fails."""
    try:
        with (
            hold_lock(path.with_name(f".{path.name}.lock"), f"makes {path}"),
            replace_folder(path, keep=[TOKENS]) as temporary,
        ):
            yield temporary
    except OSError as fault:
        why = f"{fault.filename}: {fault.strerror}" if fault.filename else str(fault.strerror or fault)
        hint = "another folder of corpora: INFTY_DATA or infty.toml"
        if path.parent.name == TOKENS and fault.errno in READ_ONLY:
            hint += f", where links to the texts suffice: mkdir FOLDER; cp -rs {path.parent.parent.absolute()} FOLDER"
        raise InftyError(f"{path} could not be made ({why}); nothing was left there ({hint})") from None


def _write_split(folder: Path, split: str, source: Source, origin: str, advance: Advance) -> dict[str, Any]:
    """Write the text and the documents of a split; return what its manifest says."""
    documents, digest, place = list[Document](), hashlib.sha256(), 0
    title, counts = "", TextCounter()
    with (folder / f"{split}.txt").open("wb") as file:
        for begins, piece in chain(source.documents, [(True, "")]):
            # A document ends with the piece before the next one; one without text is dropped.
            if begins and counts.bytes:
                name = source.names[len(documents)] if source.names else title or str(len(documents))
                documents.append(Document(name, place, counts.bytes, counts.words, counts.lines))
                place += counts.bytes
                if len(documents) == source.limit:
                    break
                title, counts = "", TextCounter()

            # Without a name from the layout, it is named by the beginning of its first line with text.
            title = title or piece.strip()[:80].partition("\n")[0].strip("= ")
            data = counts.add(piece)
            digest.update(data)
            file.write(data)
            advance(len(data))
    if not any(document.words for document in documents):
        raise MissingError(f"the {split} split holds no text: wanted one document at least that is not empty")

    write_text(folder / f"{split}.documents.json", json.dumps({"documents": [asdict(d) for d in documents]}) + "\n")
    partial = {"partial": True} if source.limit else {}
    return {**_count(documents), "sha256": digest.hexdigest(), **partial, "source": origin}


def _count(documents: list[Document]) -> dict[str, int]:
    """Count what a split holds, as its manifest says it."""
    sums = {key: sum(getattr(document, key) for document in documents) for key in ("bytes", "words", "lines")}
    return {"documents": len(documents), **sums}

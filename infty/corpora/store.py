"""Corpora on disk: `<data>/<name>/<split>.txt`, its documents, and a manifest with sums, which is written last."""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from rich.console import Console

from infty.corpora.known import KNOWN, Known
from infty.corpora.layouts import Source
from infty.corpora.pieces import read_pieces
from infty.errors import InftyError, MissingError, UsageError
from infty.files import flush, read_json, sha256, write_json, write_text
from infty.tracking import bar

SCHEMA = 1
LOCK_SECONDS = 1  # to wait for another process that makes the same
MANIFEST = "MANIFEST.json"


@dataclass(frozen=True)
class Document:
    """One document of a split. start, bytes: where its UTF-8 stands. words: between white space. lines: line ends."""

    name: str
    start: int
    bytes: int
    words: int
    lines: int


@dataclass(frozen=True)
class Corpus:
    """An imported corpus. splits: bytes, words, lines, documents and sha256 of each that there is."""

    path: Path
    splits: dict[str, dict[str, Any]]
    source: str
    files: dict[str, dict[str, Any]]

    @property
    def name(self) -> str:
        """Under which it was imported."""
        return self.path.name

    @property
    def known(self) -> Known | None:
        """What is known of a corpus of this name."""
        return KNOWN.get(self.name)

    def documents(self, split: str) -> list[Document]:
        """Of a split, in order. MissingError where they are damaged."""
        name = f"{split}.documents.json"
        self.check(name)
        return [Document(**entry) for entry in read_json(self.path / name)["documents"]]

    def text(self, document: Document, split: str) -> Iterator[str]:
        """A document's text, in pieces."""
        with (self.path / f"{split}.txt").open("rb") as file:
            file.seek(document.start)
            yield from read_pieces(_Window(file, document.bytes), f"{self.name} {split}")

    def check(self, name: str) -> None:
        """MissingError, with what to do, where a file is not what was imported."""
        if not is_whole(self.path / name, self.files.get(name)):
            raise MissingError(f"{self.path / name} is not what was imported; {remedy(self.name)}")

    @property
    def counts_line_ends(self) -> bool:
        """Whether a line's end is predicted like a word, as in WikiText."""
        return self.known is not None and self.known.layout in ("wikitext", "generated")

    def words(self, documents: list[Document]) -> int:
        """What a perplexity a word divides by."""
        return sum(document.words + self.counts_line_ends * document.lines for document in documents)


def open_corpus(folder: Path, name: str) -> Corpus:
    """The corpus `name` below the data folder. MissingError, with the commands that help, where there is none."""
    path = folder / name
    if not (path / MANIFEST).is_file():
        raise MissingError(f"no corpus {name!r} in {folder}; {remedy(name)}")
    manifest = read_manifest(path)
    try:
        return Corpus(path, manifest["splits"], manifest["source"], manifest["files"])
    except KeyError as fault:
        raise MissingError(f"{path / MANIFEST} lacks {fault}; {remedy(name)}") from None


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a folder of data. MissingError where it is damaged or of another version."""
    try:
        manifest = read_json(path / MANIFEST)
        if manifest.get("schema") == SCHEMA and isinstance(manifest["files"], dict):
            return manifest
    except (MissingError, KeyError):
        pass
    raise MissingError(f"{path / MANIFEST} is damaged; {remedy(path.name)}")


def is_whole(path: Path, entry: dict[str, Any] | None) -> bool:
    """Whether a file is what its manifest says."""
    if entry is None or not path.is_file() or path.stat().st_size != entry["bytes"]:
        return False
    return sha256(path) == entry["sha256"]


def remedy(name: str) -> str:
    """The commands that bring a corpus here."""
    if name == "generated":
        return "it is made again by: infty data fetch generated"
    if name in KNOWN:
        return f"get it with: infty data fetch {name}, or from your own copy: infty data import {name} FOLDER"
    return "give your own files with: infty train text --data FOLDER"


def write_corpus(
    folder: Path, name: str, sources: dict[str, Source], origin: str, console: Console, *, replace: bool
) -> Corpus:
    """Import: copy the text of every split, count it, and put a manifest beside it. Whole or not there.

    UsageError where another corpus of this name is there and `replace` is not asked for; InftyError where the disk
    is full or another process imports the same; MissingError where the text is no text.
    """
    path = folder / name
    with building(folder, name) as temporary:
        splits: dict[str, dict[str, Any]] = {}
        with bar(console, f"importing {name}", sum(source.bytes for source in sources.values())) as advance:
            for split, source in sources.items():
                splits[split] = _write_split(temporary, split, source, advance)
        if path.exists() and (path / MANIFEST).is_file() and not replace:
            if read_json(path / MANIFEST).get("splits") == splits:
                console.print(f"{name} is here already, the same: {path}", soft_wrap=True)
                return open_corpus(folder, name)
            raise UsageError(f"{path} holds another corpus of this name; --replace puts the new one in its place")
        seal(temporary, path, {"splits": splits, "source": origin})
    return open_corpus(folder, name)


def seal(temporary: Path, path: Path, contents: dict[str, Any]) -> None:
    """Write sums and manifest of a finished folder, wait until all is on disk, and give it its name."""
    files = {p.name: {"bytes": p.stat().st_size, "sha256": sha256(p)} for p in sorted(temporary.iterdir())}
    for name in files:
        flush(temporary / name)
    write_json(temporary / MANIFEST, {"schema": SCHEMA, **contents, "files": files})
    flush(temporary)
    if path.exists():
        shutil.rmtree(path)
    temporary.replace(path)
    flush(path.parent)


@contextlib.contextmanager
def building(folder: Path, name: str) -> Iterator[Path]:
    """A temporary folder beside `folder/name`, which is gone afterwards whatever happens. One process at a time.

    InftyError where the disk is full or another process is at it.
    """
    path, temporary = folder / name, folder / f".{name}.tmp"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f".{name}.lock", timeout=LOCK_SECONDS)
    try:
        lock.acquire()
    except Timeout:
        raise InftyError(f"another process is making {path}; wait for it") from None
    try:
        shutil.rmtree(temporary, ignore_errors=True)  # what a killed process left
        temporary.mkdir()
        yield temporary
    except OSError as fault:
        why = f"{fault.filename}: {fault.strerror}" if fault.filename else str(fault.strerror or fault)
        raise InftyError(f"{path} could not be made ({why}); nothing was left there") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        lock.release()


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
                start, words, ends, inside, title = place, 0, 0, False, ""
            words += len(piece.split()) - (inside and bool(piece.lstrip()) and not piece[:1].isspace())
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
        raise MissingError(f"the {split} split holds no text")
    write_text(folder / f"{split}.documents.json", json.dumps({"documents": [asdict(d) for d in documents]}) + "\n")
    return {
        "documents": len(documents),
        "bytes": place,
        "words": sum(d.words for d in documents),
        "lines": sum(d.lines for d in documents),
        "sha256": digest.hexdigest(),
    }


class _Window:
    """The next `size` bytes of a file."""

    def __init__(self, file: Any, size: int) -> None:
        self.file, self.left = file, size

    def read(self, size: int) -> bytes:
        data = self.file.read(min(size, self.left))
        self.left -= len(data)
        return data

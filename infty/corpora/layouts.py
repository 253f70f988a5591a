"""The layouts in which corpora are passed around, each read as documents in order, a piece at a time."""

import csv
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, pairwise, repeat
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import parquet

from infty.base.errors import LONG, MissingError, describe_fault, one_line
from infty.base.files import blame_file
from infty.corpora.registry import SPLITS
from infty.corpora.text_pieces import Marked, lines, read_pieces

# A title of WikiText: one "=" on each side; two and more are sections.
_TITLE = re.compile(r" = [^=\n].* = \r?\n")
_SHARD = re.compile(r"(?P<split>[a-z]+)-\d+-of-(?P<count>\d+).*\.parquet")
_WIKITEXT_NAMES = {"train": "train", "valid": "validation", "validation": "validation", "test": "test"}


@dataclass(frozen=True)
class Source:
    """One split in the layout it came in."""

    documents: Marked  # can be read only once
    bytes: int
    names: list[str] | None = None  # of its documents, if the layout tells them
    limit: int | None = None  # how many of its documents are taken; None: all


def find_wikitext(folder: Path) -> dict[str, Source]:
    """Find `wiki.<split>.tokens` or `.raw`, or `<split>-….parquet`, in the folder or below. MissingError if none is."""
    found: dict[str, Source] = {}
    for name, split in _WIKITEXT_NAMES.items():
        plain = _find_together(folder, f"wiki.{name}.tokens", f"wiki.{name}.raw")[:1]
        tables = _find_tables(folder, name)
        # A table has a row per line, and its empty lines lack their space.
        text = lines(_read_file(plain[0])) if plain else (row or " \n" for row in _read_texts(tables))
        if paths := plain or tables:
            found[split] = Source(mark_articles(text), _count_bytes(paths))
    wanted = "wiki.train.tokens, wiki.valid.tokens, wiki.test.tokens (or .raw, or parquet files)"
    return _order_splits(found, folder, wanted)


def find_pg19(folder: Path) -> dict[str, Source]:
    """Find `<split>/<id>.txt` with `metadata.csv`, or `<split>-….parquet`. MissingError if there is neither."""
    folder = _enter_only_folder(folder)
    titles, found = _read_titles(folder / "metadata.csv"), {}
    for split in SPLITS:
        books = [path for path in (folder / split).glob("*.txt") if not path.is_dir()]
        books.sort(key=lambda path: (len(path.stem), path.stem))
        tables = _find_tables(folder, split)
        if books:
            names = [titles.get(path.stem) or _decode_name(path.stem) for path in books]
            found[split] = Source(_read_files(books), _count_bytes(books), names)
        elif tables:
            found[split] = Source(zip(repeat(True), _read_texts(tables)), _count_bytes(tables))
    return _order_splits(found, folder, "train/, validation/, test/ with <id>.txt in them (or parquet files)")


def find_text(folder: Path) -> dict[str, Source]:
    """Find all text files of a folder, each a document, sorted and split 90 : 5 : 5. MissingError if all are empty."""
    paths = text_files(folder)
    if len(paths) < 3:  # they are one text, cut at line ends
        total, edges = _count_bytes(paths), {"train": (0.0, 0.9), "validation": (0.9, 0.95), "test": (0.95, 1.0)}
        return {
            split: Source(_read_share(paths, total * low, total * high), int(total * (high - low)))
            for split, (low, high) in edges.items()
        }
    held = max(1, round(0.05 * len(paths)))
    parts = {"train": paths[: -2 * held], "validation": paths[-2 * held : -held], "test": paths[-held:]}
    return {
        split: Source(_read_files(files), _count_bytes(files), [_decode_name(path.name) for path in files])
        for split, files in parts.items()
    }


def text_files(folder: Path) -> list[Path]:
    """List every non-empty `*.txt` and `*.md` below a folder, or the one file. MissingError if there is none."""
    if not os.path.exists(folder):  # Path's own raises for names that no file can have
        raise MissingError(one_line(f"{folder} is not there: wanted a folder of text files, or one text file", LONG))
    paths = [folder] if folder.is_file() else [p for p in folder.rglob("*") if p.name.endswith((".txt", ".md"))]
    paths = sorted(path for path in paths if path.is_file() and path.stat().st_size)
    if not paths:
        wanted = "wanted files named *.txt or *.md that are not empty"
        raise MissingError(one_line(f"{folder} holds no text: {wanted}", LONG))
    return paths


def mark_articles(text: Iterable[str]) -> Marked:
    """Mark where articles begin: at a title with a blank line before and after it, the first one with the text."""
    first, only_blank, before = True, True, ""
    for line, after in pairwise(chain(text, [""])):
        title = not before.strip() and _TITLE.fullmatch(line) and not after.strip()
        yield first or bool(title and not only_blank), line
        first, only_blank, before = False, only_blank and not line.strip(), line


def _find_together(folder: Path, *patterns: str) -> list[Path]:
    """Find the files that match, in a folder or below. MissingError if not all are in one: which are meant?"""
    paths = [path for pattern in patterns for path in sorted(folder.rglob(pattern)) if not path.is_dir()]
    if len(folders := sorted({str(path.parent) for path in paths})) > 1:
        raise MissingError(f"several corpora lie here ({', '.join(folders)}); name the folder of one")
    return paths


def _find_tables(folder: Path, split: str) -> list[Path]:
    return _find_together(folder, f"{split}-*.parquet") or _find_together(folder, f"{split}.parquet")


def _decode_name(name: str) -> str:
    """Decode a file's name; bytes that are no character become U+FFFD."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _read_file(path: Path) -> Iterator[str]:
    with blame_file(path):
        file = path.open("rb")
    with file:
        yield from read_pieces(file, str(path))


def _read_files(paths: list[Path]) -> Marked:
    """Read files, each of which is a document."""
    for path in paths:
        begins = True
        for piece in _read_file(path):
            yield begins, piece
            begins = False
        if begins:
            raise MissingError(f"{path} is empty; take it away or mend it")


def _read_share(paths: list[Path], low: float, high: float) -> Marked:
    """Read the lines that begin between two places of a text, as one document."""
    place, begun = 0, False
    for path in paths:
        for line in lines(_read_file(path)):
            if low <= place < high:
                yield not begun, line
                begun = True
            place += len(line.encode())


def refuse_missing_shards(folder: Path) -> None:
    """Raise MissingError if some of the files named `…-00000-of-00002.parquet` are missing."""
    found = Counter(
        (path.parent, match["split"], int(match["count"]))
        for path in folder.rglob("*-of-*.parquet")
        if (match := _SHARD.fullmatch(path.name))
    )
    for (parent, split, count), here in found.items():
        if here != count:
            raise MissingError(f"{parent} has {here} of the {count} files of {split}; bring the others")


def _enter_only_folder(folder: Path) -> Path:
    """Descend while a folder holds nothing but one folder: an archive often has its files in one."""
    while folder.is_dir() and len(inner := list(folder.iterdir())) == 1 and inner[0].is_dir():
        if inner[0].name in SPLITS:
            break
        folder = inner[0]
    return folder


def _read_texts(tables: list[Path]) -> Iterator[str]:
    """Read column `text` of parquet files, a few rows at a time. MissingError if a file is damaged or has none."""
    for path in tables:
        try:
            with parquet.ParquetFile(path, page_checksum_verification=True) as table:
                _refuse_larger_than_file(table.metadata, path.stat().st_size)
                left = table.metadata.num_rows
                for batch in table.iter_batches(batch_size=16, columns=["text"]):
                    left -= len(batch)
                    yield from _read_column(batch.column("text"))
                if left:
                    raise ValueError(f"it has {left} rows less than it says")
        except (pyarrow.ArrowException, OSError, ValueError, KeyError) as fault:
            raise MissingError(f"{path} is no parquet table with a column of text: {describe_fault(fault)}") from None


def _refuse_larger_than_file(metadata: Any, size: int) -> None:
    """Raise ValueError if a table says that its columns are larger than its file: memory would be reserved for them."""
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    columns = [group.column(i) for group in groups for i in range(group.num_columns)]
    if any(not 0 <= column.total_compressed_size <= size for column in columns):
        raise ValueError("it says that it is larger than its file")


def _read_column(column: Any) -> list[str]:
    """Read the texts of a column that says it holds text. ValueError if it does not."""
    kind = column.type.value_type if pyarrow.types.is_dictionary(column.type) else column.type
    if kind not in (pyarrow.string(), pyarrow.large_string(), pyarrow.string_view()):
        raise ValueError(f"it holds {column.type}")
    column.validate(full=True)
    if None in (values := column.to_pylist()):
        raise ValueError("a row is empty")
    return values


def _read_titles(path: Path) -> dict[str, str]:
    """Read PG-19's metadata.csv: id, title, year, link; no header. MissingError if it is something else."""
    if not path.exists():
        return {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return {row[0]: row[1] for row in csv.reader(file) if row}
    except (UnicodeDecodeError, csv.Error, IndexError, OSError) as fault:
        raise MissingError(f"{path} is not PG-19's metadata (id, title, year, link): {describe_fault(fault)}") from None


def _order_splits(found: dict[str, Source], folder: Path, wanted: str) -> dict[str, Source]:
    if not found:
        raise MissingError(f"{folder} is not this corpus: wanted {wanted}")
    return {split: found[split] for split in SPLITS if split in found}


def _count_bytes(paths: list[Path]) -> int:
    """Count the bytes of all the files. MissingError if one is a link that leads nowhere."""
    for path in paths:
        if not path.exists():
            raise MissingError(f"{path} can't be read: it is a link that leads nowhere; bring what it is to lead to")
    return sum(path.stat().st_size for path in paths)

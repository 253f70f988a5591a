"""The layouts in which corpora are passed around, each read as documents in order, a piece at a time."""

import csv
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import parquet

from infty.base.errors import LONG, MissingError, count, describe_fault, one_line
from infty.base.files import blame_file
from infty.corpora.contents import Contents, is_blank
from infty.corpora.registry import KNOWN, SPLITS
from infty.corpora.text_pieces import MARK, PIECE, Marked, TextCounter, cut_lines, lines, read_text

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


def find_wikitext(contents: Contents) -> dict[str, Source]:
    """Find `wiki.<split>.tokens` or `.raw`, or `<split>-….parquet`. MissingError if there is none."""
    found, taken = dict[str, Source](), list[Path]()
    for name, split in _WIKITEXT_NAMES.items():
        plain = _find_together(contents, f"wiki.{name}.tokens", f"wiki.{name}.raw")[:1]
        tables = [] if plain else _find_tables(contents, name)
        if split not in found and (paths := plain or tables):
            text = mark_articles(lines(_read_file(plain[0]))) if plain else _mark_rows(_read_texts(tables))
            found[split] = Source(text, _count_bytes(paths))
            taken += paths
    contents.take(taken)
    wanted = "wiki.train.tokens, wiki.valid.tokens, wiki.test.tokens (or .raw, or parquet files)"
    return _order_splits(found, contents, wanted)


def find_pg19(contents: Contents) -> dict[str, Source]:
    """Find `<split>/<id>.txt` with `metadata.csv`, or `<split>-….parquet`. MissingError if there is neither."""
    # What is tested on comes first: of two equal books, that one is taken.
    books, found, taken = _find_books(contents), dict[str, Source](), list[Path]()
    titles, folder = dict[str, str](), contents.folder
    if books:
        folder = books[0].parents[1]
        titles = _read_titles(folder / "metadata.csv")
    for split in SPLITS:
        of_split = [path for path in books if path.parent.name == split]
        tables = [] if of_split else _find_tables(contents, split)
        if of_split:
            names = [titles.get(path.stem) or _decode_name(path.stem) for path in of_split]
            found[split] = Source(_read_files(of_split), _count_bytes(of_split), names)
        elif tables:
            found[split] = Source(_read_rows(tables, contents), _count_bytes(tables))
        taken += of_split or tables
    contents.take([*taken, *(path for path in contents.paths if titles and path == folder / "metadata.csv")])
    return _order_splits(found, contents, "train/, validation/, test/ with <id>.txt in them (or parquet files)")


def find_text(contents: Contents) -> dict[str, Source]:
    """Find all text files of a folder, each a document, sorted and split 90 : 5 : 5. MissingError if that can't be."""
    paths = find_texts(contents)
    if len(paths) < 3:  # they are one text, cut at line ends
        return _split_text(paths, contents.folder)
    held = max(1, round(0.05 * len(paths)))
    parts = {"train": paths[: -2 * held], "validation": paths[-2 * held : -held], "test": paths[-held:]}
    return {
        split: Source(_read_files(files), _count_bytes(files), [_decode_name(path.name) for path in files])
        for split, files in parts.items()
    }


def find_texts(contents: Contents) -> list[Path]:
    """Find every `*.txt` and `*.md` with a text of its own, or the one file. MissingError if there is none."""
    given = contents.folder
    if not os.path.exists(given):  # Path's own raises for names that no file can have
        raise MissingError(one_line(f"{given} is not there: wanted a folder of text files, or one text file", LONG))
    paths = [path for path in contents.paths if path == given or path.suffix.lower() in (".txt", ".md")]
    for path in [path for path in paths if path.is_file() and is_blank(path)]:
        contents.leave_out(path, "empty")
        paths.remove(path)
    contents.take(contents.choose_different([path for path in paths if path.is_file()]))
    if not contents.taken:
        wanted = "wanted files named *.txt or *.md that are not empty"
        raise MissingError(one_line(f"{given} holds no text: {wanted}{contents.describe_left_out()}", LONG))
    return contents.taken


def mark_articles(text: Iterable[str]) -> Marked:
    """Mark where articles begin: at a title with a blank line before and after it, the first one with the text."""
    first, only_blank, before = True, True, ""
    for line, after in pairwise(chain(text, [""])):
        title = not before.strip() and _TITLE.fullmatch(line) and not after.strip()
        yield first or bool(title and not only_blank), line
        first, only_blank, before = False, only_blank and not line.strip(), line


def _mark_rows(rows: Iterable[str]) -> Marked:
    """Mark where articles begin in a table of WikiText, a row a line, or a row an article.

    Some libraries take line ends, or all white space, from the ends of a row. What they took is put back.
    """
    rows = iter(rows)
    first = list(islice(rows, 100))
    rows = chain(first, rows)
    if any("\n" in row.strip() for row in first):
        for row in rows:
            yield from mark_articles(lines([row if row.endswith("\n") else f"{row}\n"])) if row.strip() else ()
    else:
        yield from mark_articles(map(_restore_line, rows))


def _restore_line(row: str) -> str:
    """Restore a line of WikiText, which has a space at both ends."""
    if row.endswith("\n"):
        return row
    return f"{row}\n" if row.startswith(" ") else f" {row} \n" if row else " \n"


def _find_together(contents: Contents, *patterns: str) -> list[Path]:
    """Find the files that match, whatever the case. MissingError if not all are in one folder: which are meant?"""
    paths = [path for pattern in patterns for path in contents.paths if fnmatchcase(path.name.lower(), pattern)]
    if len(folders := sorted({str(path.parent) for path in paths})) > 1:
        raise MissingError(f"several corpora lie here ({', '.join(folders)}); name the folder of one")
    return paths


def _find_tables(contents: Contents, split: str) -> list[Path]:
    tables = _find_together(contents, f"{split}-*.parquet") or _find_together(contents, f"{split}.parquet")
    return contents.choose_different(tables) if len(tables) > 1 else tables


def _find_books(contents: Contents) -> list[Path]:
    """Find PG-19's books, in the order of splits and their numbers.

    Of equal books the one that is tested on is taken; a split with as many books as are known stays as it is.

    Raises:
        MissingError: Several corpora lie here.
    """
    given = len(contents.folder.parts)
    books = {split: list[Path]() for split in SPLITS}
    for path in contents.paths:
        split = path.parent.name if len(path.parts) > given + 1 else ""
        if split in books and path.suffix.lower() == ".txt":
            books[split].append(path)
    if len(folders := {path.parents[1] for paths in books.values() for path in paths}) > 1:
        raise MissingError(f"several corpora lie here ({', '.join(sorted(map(str, folders)))}); name the folder of one")
    for paths in books.values():
        paths.sort(key=lambda path: (len(path.stem), path.stem))
    whole = {split for split, paths in books.items() if len(paths) == KNOWN["pg19"].documents[split]}
    kept = {path for split in whole for path in books[split]}
    kept.update(contents.choose_different([path for split in reversed(SPLITS) for path in books[split]], kept))
    return [path for split in SPLITS for path in books[split] if path in kept]


def _decode_name(name: str) -> str:
    """Decode a file's name; bytes that are no character become U+FFFD."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _read_file(path: Path) -> Iterator[str]:
    with blame_file(path):
        file = path.open("rb")
    with file:
        yield from read_text(file, str(path))


def _read_files(paths: list[Path]) -> Marked:
    """Read files, each of which is a document."""
    for path in paths:
        begins = True
        for piece in _read_file(path):
            yield begins, piece
            begins = False
        if begins:
            raise MissingError(f"{path} is empty; take it away or mend it")


def _split_text(paths: list[Path], given: Path) -> dict[str, Source]:
    """Cut a text at line ends into 90 : 5 : 5; at white space if its lines are too long for that.

    Raises:
        MissingError: It is too short.
    """
    total = _count_bytes(paths)
    places = {"train": (0.0, 0.9), "validation": (0.9, 0.95), "test": (0.95, 2.0)}  # 2: line ends may be added
    for size in (PIECE, total // 1000 + 1):
        parts = {
            split: (partial(_read_share, paths, size, total * low, total * high), int(total * (min(high, 1) - low)))
            for split, (low, high) in places.items()
        }
        if all(any(not line.isspace() for _, line in read()) for read, _ in parts.values()):
            return {split: Source(read(), size) for split, (read, size) in parts.items()}
    counter = TextCounter()
    for piece in _read_joined(paths):
        counter.add(piece)
    counts = f"it has {count(counter.lines, 'line end')} and {count(counter.words, 'word')}"
    suffices = "100 words or lines of about one length suffice, or three files"
    raise MissingError(one_line(f"{given} is too short to be split 90 : 5 : 5: {counts}; {suffices}", LONG))


def _read_joined(paths: list[Path]) -> Iterator[str]:
    """Read files as one text: one that lacks its last line end gets it before the next one begins."""
    end = "\n"
    for path in paths:
        if not end.endswith("\n"):
            yield "\n"
        for piece in _read_file(path):
            yield piece
            end = piece


def _read_share(paths: list[Path], size: int, low: float, high: float) -> Marked:
    """Read the lines that begin between two places of a text, as one document. size: see `cut_lines`."""
    place, begun = 0, False
    for line in cut_lines(_read_joined(paths), size):
        if low <= place < high:
            yield not begun, line
            begun = True
        place += len(line.encode())


def _read_rows(tables: list[Path], contents: Contents) -> Marked:
    """Read tables, each row of which is a document; those without a word are left out."""
    for table in tables:
        blank = 0
        for row in _read_texts([table]):
            blank += row.isspace() or not row
            if not row.isspace():
                yield True, row
        if blank:
            contents.leave_out(table, "with rows that are empty", f": {blank}")


def refuse_missing_shards(tables: Iterable[Path]) -> None:
    """Raise MissingError if some of the files named `…-00000-of-00002.parquet` are missing, or there are too many."""
    found = Counter(
        (path.parent, match["split"], int(match["count"])) for path in tables if (match := _SHARD.fullmatch(path.name))
    )
    for (parent, split, wanted), here in found.items():
        if here != wanted:
            mend = "bring the others" if here < wanted else "take away what is none of them"
            raise MissingError(f"{parent} has {here} of the {wanted} files of {split}; {mend}")


def _read_texts(tables: list[Path]) -> Iterator[str]:
    """Read column `text` of parquet files, a few rows at a time. MissingError if a file is damaged or has none."""
    for path in tables:
        try:
            with parquet.ParquetFile(path, page_checksum_verification=True) as table:
                _refuse_larger_than_file(table.metadata, path.stat().st_size)
                left = table.metadata.num_rows
                for batch in table.iter_batches(batch_size=16, columns=["text"]):
                    left -= len(batch)
                    yield from (row.removeprefix(MARK) for row in _read_column(batch.column("text")))
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
    """Read the texts of a column that says it holds text; a row of nothing is an empty one. ValueError if not."""
    kind = column.type.value_type if pyarrow.types.is_dictionary(column.type) else column.type
    if kind not in (pyarrow.string(), pyarrow.large_string(), pyarrow.string_view()):
        raise ValueError(f"it holds {column.type}")
    column.validate(full=True)
    return [row or "" for row in column.to_pylist()]


def _read_titles(path: Path) -> dict[str, str]:
    """Read PG-19's metadata.csv: id, title, year, link; no header. MissingError if it is something else."""
    if not path.exists():
        return {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return {row[0]: row[1] for row in csv.reader(file) if row}
    except (UnicodeDecodeError, csv.Error, IndexError, OSError) as fault:
        raise MissingError(f"{path} is not PG-19's metadata (id, title, year, link): {describe_fault(fault)}") from None


def _order_splits(found: dict[str, Source], contents: Contents, wanted: str) -> dict[str, Source]:
    if not found:
        why = f"{contents.folder} is not this corpus: wanted {wanted}{contents.describe_left_out()}"
        raise MissingError(one_line(why, LONG))
    return {split: found[split] for split in SPLITS if split in found}


def _count_bytes(paths: list[Path]) -> int:
    """Count the bytes of all the files. MissingError if one is a link that leads nowhere."""
    for path in paths:
        if not path.exists():
            raise MissingError(f"{path} can't be read: it is a link that leads nowhere; bring what it is to lead to")
    return sum(path.stat().st_size for path in paths)

"""Nothing is glued together, cut in words, or taken for a known corpus that it is not, on its way in."""

import logging
import random
import shutil
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from infty.base.errors import MissingError
from infty.corpora import overlap
from infty.corpora.contents import Contents
from infty.corpora.imports import import_corpus
from infty.corpora.layouts import find_text
from infty.corpora.registry import KNOWN
from infty.corpora.store import Corpus
from tests.conftest import Infty
from tests.corpora.conftest import ARTICLES, BOOKS, pg19_folder, wikitext_folder

ROWS = ["", "= A =", "", "The cat sat .", "= = B = =", "It ran .", "", "= C =", "", "The end ."]
WHOLE = " \n = A = \n \n The cat sat . \n = = B = = \n It ran . \n \n = C = \n \n The end . \n"


def write_table(folder: Path, rows: Sequence[str | None], name: str = "test-00000-of-00001.parquet") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.table({"text": rows}), folder / name)
    return folder


def texts_of(corpus: Corpus, split: str) -> list[str]:
    return ["".join(corpus.text(document, split)) for document in corpus.documents(split)]


def test_rows_without_line_ends_are_lines_all_the_same(infty: Infty, tmp_path: Path) -> None:
    """`datasets` takes line ends from a text's rows, and `strip` their spaces too (huggingface/datasets issue 870)."""
    for rows in (ROWS, [f" {row} " if row else " " for row in ROWS]):
        write_table(tmp_path / "rows", rows)
        done = infty("data", "import", "wikitext", "rows", "--replace")
        assert done.returncode == 0, done.stderr
        assert done.stderr.endswith("wikitext: took 1 file, 2 documents (test 2), 75 bytes\n")
        assert (tmp_path / "corpora/wikitext/test.txt").read_text() == WHOLE


@pytest.mark.parametrize("ended", [True, False])
def test_a_row_that_holds_an_article_is_a_document(tmp_path: Path, data: Path, ended: bool) -> None:
    articles = [" = A = \n \n The cat sat . \n = = B = = \n It ran . \n", " = C = \n \n The end . \n", " = Stub = \n"]
    rows = articles if ended else [article.strip() for article in articles]
    corpus = import_corpus(data, "wikitext", write_table(tmp_path / "rows", [*rows[:2], "", rows[2]]), replace=False)
    assert texts_of(corpus, "test") == [row if ended else f"{row}\n" for row in rows]


def know(monkeypatch: pytest.MonkeyPatch, name: str, documents: int, words: int) -> None:
    """As if that were all of a corpus's test split."""
    known = replace(KNOWN[name], documents={**KNOWN[name].documents, "test": documents}, words={"test": words})
    monkeypatch.setitem(KNOWN, name, known)


LINE = "the cat sat on the mat . " * 20
GOOD = [text for i in range(10) for text in ("", f"= {i} =", "", LINE)]


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        ([" ".join(GOOD)], "1 document and 1,431 words"),  # a line
        ([row for row in GOOD if row], "1 document and 1,450 words"),  # blank ones taken out
        ([row.replace("=", "#") for row in GOOD], "1 document and 1,470 words"),
        ([*GOOD, LINE], "10 documents and 1,611 words"),
        ([*GOOD[:-1], LINE[: len(LINE) // 2]], "10 documents and 1,400 words"),  # cut off
    ],
)
def test_what_counts_nearly_as_a_known_split_is_refused(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, rows: list[str], found: str
) -> None:
    know(monkeypatch, "wikitext", 10, 1470)
    folder = write_table(tmp_path / "rows", rows)
    wanted = rf"wikitext test has {found}, with line ends, here, and the whole has 10 and 1,470: something was lost or"
    with pytest.raises(MissingError, match=wanted):
        import_corpus(data, "wikitext", folder, replace=False)
    assert not (data / "wikitext").exists()


def test_the_whole_and_a_part_of_a_known_split_are_taken(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    know(monkeypatch, "wikitext", 10, 1471)
    caplog.set_level(logging.INFO)
    for rows, documents in ((GOOD, 10), (GOOD[:20], 5)):
        corpus = import_corpus(data, "wikitext", write_table(tmp_path / "rows", rows), replace=True)
        assert corpus.splits["test"]["documents"] == documents
    said = [message for message in caplog.messages if "whole" in message]
    assert said == [
        "wikitext test has 10 documents and 1,470 words, with line ends, here, and the whole has 10 and 1,471",
        "wikitext test has 5 documents and 735 words, with line ends, here, and the whole has 10 and 1,471: its "
        "figures can't be held against published ones",
    ]


def write_story(seed: int, count: int = 400) -> str:
    """Words in lines of some 60 letters, as in a book."""
    draw = random.Random(seed)
    words = ["".join(draw.choices("abcdefghilmnoprstu", k=draw.randint(1, 8))) for _ in range(count)]
    return textwrap.fill(" ".join(words), 60) + "\n"


STORIES = {f"{i}.txt": write_story(i) for i in range(4)}
LAST = STORIES["3.txt"]
OTHER = write_story(5).splitlines()


def test_articles_that_are_trained_and_tested_on_are_told(tmp_path: Path, data: Path) -> None:
    folder = wikitext_folder(tmp_path / "in")
    for name, more in (("test", ""), ("train", ARTICLES["valid"])):
        (folder / f"wiki.{name}.tokens").write_text(f"{ARTICLES['test']}{LAST}{more}")
    told = r"wikitext: much of 1 document of validation and test \(Robert <unk>\) stands in train as well, so that"
    with pytest.warns(UserWarning, match=told):
        import_corpus(data, "wikitext", folder, replace=False)


def edit(edited: int) -> str:
    """The last one, in which so many lines of three are others."""
    pairs = enumerate(zip(LAST.splitlines(), OTHER, strict=False))
    return "\n".join(other if i % 3 < edited else line for i, (line, other) in pairs)


COPIES = {
    "joined": "".join(STORIES.values()),
    "with some lines changed": edit(1),
    "in other lines": textwrap.fill(LAST, 33),
    "as one paragraph with more": LAST.replace("\n", " ") + "and so on and on\n",
    "quoted": "".join(f"> {line}\r\n" for line in LAST.splitlines()),
    "in capitals": LAST.upper().replace(" ", ", ").replace("\n", "!\n\n"),
}


@pytest.mark.parametrize("kind", COPIES)
def test_what_is_trained_and_tested_on_is_told(tmp_path: Path, data: Path, kind: str) -> None:
    """Copies begin with a digit before the others, so that they fall to the training part."""
    folder = tmp_path / "own"
    folder.mkdir()
    for name, text in {**STORIES, "0-copy.txt": COPIES[kind]}.items():
        (folder / name).write_text(text, encoding="utf-8", newline="")
    which = "2 documents of validation and test (2.txt, 3.txt)" if kind == "joined" else "1 document of .* (3.txt)"
    which = which.replace("(", r"\(").replace(")", r"\)")
    with pytest.warns(UserWarning, match=f"mine: much of {which} stands? in train as well, so that figures"):
        import_corpus(data, "mine", folder, replace=False)


@pytest.mark.parametrize(
    "others",
    [
        {"0-old.txt": edit(3)},
        {"0-old.txt": "\n".join([*LAST.splitlines()[:8], *OTHER])},
        {"0-mine.txt": "the end.\n" * 9, "z-other.txt": write_story(7, 60) + "the end.\n" * 50},
    ],
    ids=["another story", "a common beginning", "short lines"],
)
def test_of_texts_that_share_little_nothing_is_told(tmp_path: Path, data: Path, others: dict[str, str]) -> None:
    """Warnings are errors here."""
    (tmp_path / "own").mkdir()
    for name, text in (STORIES | others).items():
        (tmp_path / "own" / name).write_text(text)
    import_corpus(data, "mine", tmp_path / "own", replace=False)


def test_of_long_texts_some_phrases_are_compared(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlap, "COMPARED", 8)
    folder = wikitext_folder(tmp_path / "in")
    (folder / "wiki.train.tokens").write_text("".join(STORIES.values()))
    (folder / "wiki.test.tokens").write_text(LAST)
    with pytest.warns(UserWarning, match="much of 1 document of validation and test"):
        import_corpus(data, "wikitext", folder, replace=False)


def test_a_split_of_blank_rows_holds_no_text(tmp_path: Path, data: Path) -> None:
    with pytest.raises(MissingError, match="the test split holds no text"):
        import_corpus(data, "wikitext", write_table(tmp_path / "rows", [None, "", " \n"]), replace=False)
    assert not (data / "wikitext").exists()


def test_splits_of_an_earlier_import_stay_and_are_told(infty: Infty, tmp_path: Path) -> None:
    rows = [*ROWS, LAST.replace("\n", " ")]
    write_table(tmp_path / "first", rows)
    write_table(tmp_path / "second", rows, "train-00000-of-00001.parquet")
    assert infty("data", "import", "wikitext", "first").returncode == 0
    done = infty("data", "import", "wikitext", "second", "--replace")
    assert done.returncode == 0, done.stderr
    assert "wikitext: kept from an earlier import: test\n" in done.stderr
    assert "infty: warning: wikitext: much of 1 document of validation and test (C) stands in train" in done.stderr


def test_a_row_of_nothing_is_a_blank_line(tmp_path: Path, data: Path) -> None:
    """As tables that went through CSV have it."""
    folder = write_table(tmp_path / "rows", [row or None for row in ROWS])
    assert "".join(texts_of(import_corpus(data, "wikitext", folder, replace=False), "test")) == WHOLE


def test_books_that_came_twice_are_taken_once_and_not_trained_on(
    tmp_path: Path, data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A browser's second download, a Mac's copy of an archive, and a book of the test among those to train on."""
    caplog.set_level(logging.INFO)
    folder = pg19_folder(tmp_path / "books" / "pg19")
    shutil.copy(folder / "train/10.txt", folder / "train/10 (1).txt")
    shutil.copy(folder / "test/8.txt", folder / "train/88.TXT")
    (folder / "train/._9.txt").write_text("Mac OS X")
    (folder / "train/more").mkdir()
    (folder / "train/more/5.txt").write_text("elsewhere\n")
    shutil.copytree(folder / "test", tmp_path / "books/__MACOSX/pg19/test")
    (tmp_path / "books/.DS_Store").touch()
    shutil.make_archive(str(tmp_path / "pg"), "zip", tmp_path / "books")
    corpus = import_corpus(data, "pg19", tmp_path / "pg.zip", replace=False)
    assert {split: texts_of(corpus, split) for split in corpus.splits} == {
        split: list(books.values()) for split, books in BOOKS.items()
    }
    assert caplog.messages[-1].startswith("pg19: took 6 files, 5 documents (train 3, validation 1, test 1)")
    for left in (
        "2 hidden (.DS_Store, pg19/train/._9.txt)",
        "1 made by a system (__MACOSX/)",
        "pg19/train/88.TXT = pg19/test/8.txt",
        "pg19/train/10 (1).txt = pg19/train/10.txt",
        "1 of another kind or place (pg19/train/more/5.txt)",
    ):
        assert left in caplog.messages[-1]


def test_a_split_with_as_many_books_as_are_known_stays_as_it_is(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PG-19's counts are of what was published, whatever is in it twice."""
    know(monkeypatch, "pg19", 2, 14)
    folder = pg19_folder(tmp_path / "books")
    shutil.copy(folder / "test/8.txt", folder / "test/88.txt")
    assert import_corpus(data, "pg19", folder, replace=False).splits["test"]["documents"] == 2


def test_a_table_that_was_downloaded_twice_is_read_once(tmp_path: Path, data: Path) -> None:
    folder = write_table(tmp_path / "rows", ["one book\n", "", "two\n"])
    shutil.copy(folder / "test-00000-of-00001.parquet", folder / "test-00000-of-00001 (1).parquet")
    corpus = import_corpus(data, "pg19", folder, replace=False)
    assert texts_of(corpus, "test") == ["one book\n", "two\n"]
    write_table(folder, ["three"], "test-00000-of-00001 (2).parquet")
    with pytest.raises(MissingError, match=r"has 2 of the 1 files of test; take away what is none of them"):
        import_corpus(data, "pg19", folder, replace=True)


@pytest.mark.parametrize("lines", [1, 3, 12, 19])
def test_a_text_of_few_lines_is_cut_at_white_space(infty: Infty, tmp_path: Path, lines: int) -> None:
    """One line is text8's kind (rasbt/LLMs-from-scratch issue 80). No word is cut, and none is lost."""
    words = [str(number) for number in range(2000)]
    share = -(-len(words) // lines)
    text = "\n".join(" ".join(words[i : i + share]) for i in range(0, len(words), share))
    (tmp_path / "one.txt").write_text(text)
    done = infty("train", "text", "--data", "one.txt", "--scale", "smoke")
    assert done.returncode == 0, done.stderr
    [corpus] = (tmp_path / "corpora").glob("text-one-txt-*")
    parts = [(corpus / f"{split}.txt").read_text() for split in ("train", "validation", "test")]
    assert "".join(parts) == text
    assert [len(part.split()) for part in parts] == pytest.approx([1824, 88, 88], abs=3)
    assert [word for part in parts for word in part.split()] == words


@pytest.mark.parametrize("name", ["one.txt", "own"])
def test_a_text_that_is_too_short_is_told_with_what_suffices(infty: Infty, tmp_path: Path, name: str) -> None:
    (tmp_path / "own").mkdir()
    for file in ("one.txt", "own/a.txt"):
        (tmp_path / file).write_text("hello world\n")
    done = infty("train", "text", "--data", name, "--scale", "smoke")
    wanted = f"infty: {name} is too short to be split 90 : 5 : 5: it has 1 line end and 2 words; 100 words or lines"
    assert (done.returncode, done.stderr.startswith(wanted), done.stderr.count("\n")) == (3, True, 1), done.stderr
    assert not list((tmp_path / "corpora").glob("[!.]*"))


def test_a_long_line_among_others_is_not_cut_within_a_word(tmp_path: Path, data: Path) -> None:
    words = [f"word{number}" for number in range(120_000)]
    (tmp_path / "one.txt").write_text("short\n" * 50 + " ".join(words) + "\n")
    corpus = import_corpus(data, "mine", tmp_path / "one.txt", replace=False)
    assert sum(counts["words"] for counts in corpus.splits.values()) == 50 + len(words)


def test_a_text_in_many_lines_is_cut_where_it_always_was(tmp_path: Path) -> None:
    """At the first line that begins in the next part: other texts would make runs incomparable."""
    (tmp_path / "one.txt").write_text("".join(f"{'word ' * (i % 7)}\n" for i in range(400)))
    parts = {
        split: "".join(piece for _, piece in source.documents)
        for split, source in find_text(Contents(tmp_path)).items()
    }
    total = (tmp_path / "one.txt").stat().st_size
    assert [len(part) for part in parts.values()] == [5767, 299, 319]  # as 0.1.0
    assert sum(map(len, parts.values())) == total


def test_two_files_are_not_glued_together(tmp_path: Path, data: Path) -> None:
    (tmp_path / "own").mkdir()
    for name in "ab":
        (tmp_path / f"own/{name}.txt").write_text("\n".join(f"{name}{number}" for number in range(100)))
    corpus = import_corpus(data, "mine", tmp_path / "own", replace=False)
    words = [word for split in corpus.splits for text in texts_of(corpus, split) for word in text.split()]
    assert words == [f"{name}{number}" for name in "ab" for number in range(100)]


def test_a_byte_order_mark_is_no_part_of_a_text(tmp_path: Path, data: Path) -> None:
    """Neither of one's own, nor of a book, nor of the list of titles, nor of a table's row."""
    (tmp_path / "own").mkdir()
    for name in "abc":
        (tmp_path / f"own/{name}.txt").write_text(f"text {name}\n", encoding="utf-8-sig")
    corpus = import_corpus(data, "mine", tmp_path / "own", replace=False)
    assert [texts_of(corpus, split) for split in corpus.splits] == [["text a\n"], ["text b\n"], ["text c\n"]]
    books = pg19_folder(tmp_path / "books")
    for path in (books / "train/9.txt", books / "metadata.csv"):
        path.write_text(path.read_text(encoding="utf-8"), encoding="utf-8-sig")
    corpus = import_corpus(data, "pg19", books, replace=False)
    assert texts_of(corpus, "train")[0] == BOOKS["train"]["9"]
    assert corpus.documents("train")[0].name == "Darkness, by A. Writer"
    corpus = import_corpus(data, "wikitext", write_table(tmp_path / "rows", [f"\ufeff{WHOLE}"]), replace=False)
    assert "".join(texts_of(corpus, "test")) == WHOLE


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
def test_a_text_in_another_encoding_is_refused_with_how_to_convert_it(
    tmp_path: Path, data: Path, encoding: str
) -> None:
    """Windows' Notepad saves UTF-16 as "Unicode"; without a mark it would pass for UTF-8 with many zeros."""
    (tmp_path / "own").mkdir()
    for name in "abc":
        (tmp_path / f"own/{name}.txt").write_bytes(f"naïve text {name}\n".encode(encoding))
    name = {"utf-16-le": "UTF-16LE", "utf-16-be": "UTF-16BE", "cp1252": "WINDOWS-1252"}.get(encoding, encoding.upper())
    wanted = rf"a\.txt is no UTF-8 text: .*convert it first, as with: iconv -f {name} -t UTF-8"
    with pytest.raises(MissingError, match=wanted):
        import_corpus(data, "mine", tmp_path / "own", replace=False)


def test_experiments_without_texts_say_which_has_them(infty: Infty, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("words\n" * 99)
    for words in (("train", "sort"), ("eval", "sort-basis"), ("train", "sort-ablation", "--dry-run")):
        done = infty(*words, "--data", "a.txt")
        wanted = f"infty: --data: {words[1]} makes its own sequences and has no texts; yours are for: infty train text"
        assert (done.returncode, done.stderr) == (2, f"{wanted} --data FOLDER\n")

"""Corpora as they are passed around: which documents they hold, and what is refused."""

from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from infty.base.errors import MissingError
from infty.corpora.contents import Contents
from infty.corpora.layouts import find_pg19, find_text, find_wikitext, mark_articles, refuse_missing_shards
from infty.corpora.text_pieces import Marked
from tests.corpora.conftest import ARTICLES, BOOKS, pg19_folder, wikitext_folder


def documents(marked: Marked) -> list[str]:
    found: list[str] = []
    for begins, piece in marked:
        if begins:
            found.append("")
        found[-1] += piece
    return found


def test_an_article_begins_at_a_title_between_blank_lines() -> None:
    """Sections, formulas in the form of a title, and blank lines before the first title begin nothing."""
    text = ARTICLES["valid"]
    found = documents(mark_articles(text.splitlines(keepends=True)))
    assert "".join(found) == text
    assert [t.splitlines()[i] for t, i in zip(found, (1, 0), strict=True)] == [
        " = First article = ",
        " = Second = article = ",
    ]


def test_a_title_without_a_blank_line_on_either_side_is_text() -> None:
    inside = " = A = \n \n x \n = B = \n \n y \n \n = C = \n z \n \n = D = \n \n"
    assert documents(mark_articles(inside.splitlines(keepends=True))) == [
        " = A = \n \n x \n = B = \n \n y \n \n = C = \n z \n \n",
        " = D = \n \n",
    ]


def test_text_before_a_first_title_is_a_document() -> None:
    assert documents(mark_articles(["words \n", " \n", " = A = \n", " \n"])) == ["words \n \n", " = A = \n \n"]


@pytest.mark.parametrize("end", ["tokens", "raw"])
def test_wikitext_is_found_by_its_file_names_also_in_a_folder_below(tmp_path: Path, end: str) -> None:
    folder = wikitext_folder(tmp_path / "wikitext-103")
    for split in ARTICLES:
        (folder / f"wiki.{split}.tokens").rename(folder / f"wiki.{split}.{end}")
    found = find_wikitext(Contents(tmp_path))
    assert list(found) == ["validation", "test"]
    assert "".join(documents(found["test"].documents)) == ARTICLES["test"]


def test_parquet_gives_the_bytes_of_the_classic_files(tmp_path: Path) -> None:
    """The hub's tables have a line a row, and of an empty line nothing at all."""
    rows = [line if line.strip() else "" for line in ARTICLES["valid"].splitlines(keepends=True)]
    for i, part in enumerate((rows[:4], rows[4:])):
        parquet.write_table(pa.table({"text": part}), tmp_path / f"validation-0000{i}-of-00002.parquet")
    found = find_wikitext(Contents(tmp_path))
    assert list(found) == ["validation"]
    assert "".join(documents(found["validation"].documents)) == ARTICLES["valid"]


def test_pg19_is_a_book_a_file_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    found = find_pg19(Contents(pg19_folder(tmp_path)))
    assert {split: documents(source.documents) for split, source in found.items()} == {
        split: list(books.values()) for split, books in BOOKS.items()
    }
    assert found["train"].names == ["Darkness, by A. Writer", "10", "100"]


def test_pg19_in_parquet(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"text": ["one book", "two"], "url": ["a", "b"]}), tmp_path / "test-0-of-1.parquet")
    assert documents(find_pg19(Contents(tmp_path))["test"].documents) == ["one book", "two"]


def test_own_texts_are_a_document_a_file_nine_tenths_to_train_on(tmp_path: Path) -> None:
    for i in range(40):
        (tmp_path / f"{i:02}.{'md' if i % 2 else 'txt'}").write_text(f"text {i}\n")
    (tmp_path / "empty.txt").touch()
    (tmp_path / "picture.png").write_bytes(b"\x89")
    found = find_text(Contents(tmp_path))
    read = {split: documents(source.documents) for split, source in found.items()}
    assert [len(read[split]) for split in ("train", "validation", "test")] == [36, 2, 2]
    assert read["test"] == ["text 38\n", "text 39\n"]


def test_three_files_are_one_each_and_one_file_is_cut_at_line_ends(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.txt").write_text(name)
    assert [documents(s.documents) for s in find_text(Contents(tmp_path)).values()] == [["a"], ["b"], ["c"]]
    single = tmp_path / "one.txt"
    single.write_text("".join(f"line {i:03}\n" for i in range(200)))
    parts = [documents(source.documents) for source in find_text(Contents(single)).values()]
    assert [len(part) for part in parts] == [1, 1, 1]
    assert "".join(part[0] for part in parts) == single.read_text()
    assert [part[0].count("\n") for part in parts] == [180, 10, 10]


@pytest.mark.parametrize(
    ("find", "wanted"),
    [(find_wikitext, "wiki.train.tokens"), (find_pg19, "<id>.txt"), (find_text, "holds no text")],
)
def test_a_wrong_folder_is_refused_with_what_was_wanted(tmp_path: Path, find: object, wanted: str) -> None:
    (tmp_path / "other.csv").write_text("1,2")
    with pytest.raises(MissingError, match=wanted):
        find(Contents(tmp_path))  # pyright: ignore[reportCallIssue]


def test_an_empty_book_is_named(tmp_path: Path) -> None:
    (pg19_folder(tmp_path) / "train" / "11.txt").touch()
    with pytest.raises(MissingError, match=r"11\.txt is empty"):
        documents(find_pg19(Contents(tmp_path))["train"].documents)


@pytest.mark.parametrize("damage", ["garbage", "columns", "numbers"])
def test_a_table_that_is_none_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "test-0-of-1.parquet"
    if damage == "garbage":
        path.write_bytes(b"PAR1 nonsense")
    else:
        parquet.write_table(pa.table({"words": ["x"]} if damage == "columns" else {"text": [1]}), path)
    with pytest.raises(MissingError, match="no parquet table with a column of text"):
        documents(find_wikitext(Contents(tmp_path))["test"].documents)


def test_a_column_may_hold_each_text_once(tmp_path: Path) -> None:
    column = pa.array(["one", "two", "one"]).dictionary_encode()
    parquet.write_table(pa.table({"text": column}), tmp_path / "test-0-of-1.parquet")
    assert documents(find_pg19(Contents(tmp_path))["test"].documents) == ["one", "two", "one"]


def test_folders_are_no_files_and_links_that_lead_nowhere_are_named(tmp_path: Path) -> None:
    for name in ("wiki.test.tokens", "validation-0-of-1.parquet"):
        (tmp_path / name).mkdir()
    with pytest.raises(MissingError, match="is not this corpus"):
        find_wikitext(Contents(tmp_path))
    books = pg19_folder(tmp_path / "books")
    for name, find in (("train-0-of-1.parquet", find_wikitext), ("test/9.txt", find_pg19)):
        (books / name).symlink_to(tmp_path / "nowhere")
        with pytest.raises(MissingError, match=rf"{name} can't be read: it is a link that leads nowhere"):
            find(Contents(books))
        (books / name).unlink()
    (books / "metadata.csv").unlink()
    (books / "metadata.csv").mkdir()
    with pytest.raises(MissingError, match=r"metadata\.csv is not PG-19's metadata .*Is a directory"):
        find_pg19(Contents(books))


def test_metadata_of_another_kind_is_refused(tmp_path: Path) -> None:
    pg19_folder(tmp_path)
    (tmp_path / "metadata.csv").write_bytes(b"1,\xff\xfe")
    with pytest.raises(MissingError, match=r"metadata\.csv is not PG-19's metadata"):
        find_pg19(Contents(tmp_path))


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    for i in (0, 2):
        parquet.write_table(pa.table({"text": ["x"]}), tmp_path / f"train-0000{i}-of-00003-abc.parquet")
    with pytest.raises(MissingError, match="has 2 of the 3 files of train"):
        refuse_missing_shards(tmp_path.iterdir())
    parquet.write_table(pa.table({"text": ["x"]}), tmp_path / "train-00001-of-00003-abc.parquet")
    refuse_missing_shards(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["test-0-of-1.parquet", "wiki.test.tokens"])
def test_several_corpora_in_one_folder_are_not_mixed(tmp_path: Path, name: str) -> None:
    for folder in ("wikitext-103-v1", "wikitext-2-v1"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text("x")
    with pytest.raises(MissingError, match=r"several corpora lie here .*wikitext-103-v1, .*wikitext-2-v1"):
        find_wikitext(Contents(tmp_path))


def test_books_may_lie_in_one_folder_more(tmp_path: Path) -> None:
    pg19_folder(tmp_path / "deep" / "pg19")
    assert list(find_pg19(Contents(tmp_path))) == ["train", "validation", "test"]


def test_articles_of_a_file_with_carriage_returns_are_found() -> None:
    text = ARTICLES["valid"].replace("\n", "\r\n")
    assert len(documents(mark_articles(line + "\n" for line in text.split("\n")[:-1]))) == 2

"""Token files: made once, read from disk, remade when asked, refused when damaged."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from infty.base.errors import InftyError, MissingError
from infty.base.files import sha256
from infty.corpora import tokens as tokens_module
from infty.corpora.contents import Contents
from infty.corpora.imports import import_corpus
from infty.corpora.layouts import find_pg19, find_wikitext
from infty.corpora.registry import KNOWN
from infty.corpora.tokenizers import BpeConfig, Gpt2Config, TokenizerConfig, WordConfig
from infty.corpora.tokens import Portion, TokenSet, open_tokens
from tests.corpora.conftest import BOOKS, Import, pg19_folder, wikitext_folder
from tests.corpora.test_tokenizers import gpt2_files

PORTIONS = {split: Portion(split=split) for split in ("train", "validation", "test")}


@pytest.fixture
def books(tmp_path: Path, make_corpus: Import) -> Path:
    return make_corpus("pg19", find_pg19(Contents(pg19_folder(tmp_path / "in")))).path.parent


def open_(data: Path, config: TokenizerConfig, portions: dict[str, Portion] = PORTIONS) -> TokenSet:
    return open_tokens(data, "pg19", config, portions)


@pytest.mark.parametrize("config", [WordConfig(vocab_size=1000), BpeConfig(vocab_size=300)])
def test_documents_begin_where_their_tokens_begin(books: Path, config: TokenizerConfig) -> None:
    found = open_(books, config)
    part = found.part(PORTIONS["train"])
    assert len(part.starts) == 4
    for i, book in enumerate(BOOKS["train"].values()):
        text = found.tokenizer.decode(part.tokens[part.starts[i] : part.starts[i + 1]].tolist())
        assert text.split() == book.split()
    assert part.starts[-1] == len(part.tokens)
    assert isinstance(part.tokens, np.memmap)
    assert part.tokens.dtype == np.dtype("<u2")
    assert part.bytes == sum(len(book.encode()) for book in BOOKS["train"].values())
    assert part.words == sum(len(book.split()) for book in BOOKS["train"].values())


def test_a_portion_is_some_documents_of_a_split(books: Path) -> None:
    found = open_(books, BpeConfig(vocab_size=300))
    whole, middle = found.part(PORTIONS["train"]), found.part(Portion(split="train", first=1, last=2))
    assert [document.name for document in middle.documents] == ["10"]
    assert middle.tokens.tolist() == whole.tokens[whole.starts[1] : whole.starts[2]].tolist()
    assert middle.starts.tolist() == [0, len(middle.tokens)]
    with pytest.raises(
        MissingError,
        match=r"train has 3 documents here; 4 are wanted: ask for fewer \(--set task.train.last=…, and .first\)$",
    ):
        found.part(Portion(split="train", last=4))
    with pytest.raises(MissingError, match="validation has 1 document here; 2 are wanted"):
        found.part(Portion(split="validation", first=1))


def test_they_are_made_once_and_again_for_another_tokeniser_or_text(
    tmp_path: Path, books: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    make = tokens_module._make
    monkeypatch.setattr(tokens_module, "_make", lambda *given: made.append(given[1]) or make(*given))
    config, few = BpeConfig(vocab_size=300), {**PORTIONS, "train": Portion(split="train", last=2)}
    first = open_(books, config)
    assert open_(books, config).path == first.path
    assert len(made) == 1
    assert open_(books, BpeConfig(vocab_size=299)).path != first.path
    assert open_(books, config, few).path != first.path  # learnt from less
    (tmp_path / "in" / "train" / "9.txt").write_text("changed\n")
    import_corpus(books, "pg19", tmp_path / "in", replace=True)
    assert open_(books, config).digest != first.digest
    assert len(made) == 4


@pytest.mark.parametrize("name", ["test.bin", "test.starts.npy", "tokenizer.json"])
@pytest.mark.parametrize("damage", ["altered", "truncated", "missing"])
def test_a_damaged_file_is_refused_until_its_folder_is_removed(books: Path, name: str, damage: str) -> None:
    config = BpeConfig(vocab_size=300)
    path = open_(books, config).path / name
    data = bytearray(path.read_bytes())
    path.unlink()
    if damage != "missing":
        data[-1] ^= 1
        path.write_bytes(data[:-1] if damage == "truncated" else data)
    with pytest.raises(MissingError, match=rf"{name} is damaged; remove .*, it is made again"):
        open_(books, config).part(PORTIONS["test"])
    for file in path.parent.iterdir():
        os.remove(file)
    path.parent.rmdir()
    open_(books, config).part(PORTIONS["test"])


def test_a_manifest_of_other_texts_is_refused(books: Path) -> None:
    path = open_(books, BpeConfig(vocab_size=300)).path / "MANIFEST.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "recipe": "other"}))
    with pytest.raises(MissingError, match="belongs to other texts; remove it"):
        open_(books, BpeConfig(vocab_size=300))


def test_a_text_that_changed_under_way_is_not_tokenised(books: Path) -> None:
    path = books / "pg19" / "train.txt"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(MissingError, match="is not what was imported"):
        open_(books, BpeConfig(vocab_size=300))
    assert not list((books / "pg19").glob("tokens/*/MANIFEST.json"))


def test_a_fault_while_tokenising_leaves_nothing(books: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tokens_module, "_encode", full)
    with pytest.raises(InftyError, match=r"No space left on device.*nothing was left there"):
        open_(books, BpeConfig(vocab_size=300))
    assert [p.name for p in (books / "pg19" / "tokens").iterdir() if p.suffix != ".lock"] == []


@pytest.mark.parametrize("config", [WordConfig(vocab_size=1000), BpeConfig(vocab_size=300)])
def test_a_part_without_a_word_is_refused(tmp_path: Path, data: Path, config: TokenizerConfig) -> None:
    folder = pg19_folder(tmp_path / "in")
    (folder / "test" / "8.txt").write_text(" \n ")
    (folder / "test" / "9.txt").write_text("A word.\n")
    import_corpus(data, "pg19", folder, replace=False)
    with pytest.raises(MissingError, match="pg19 test holds no word in the part"):
        open_(data, config).part(Portion(split="test", last=1))


def test_missing_splits_are_remembered(tmp_path: Path, data: Path) -> None:
    import_corpus(data, "pg19", pg19_folder(tmp_path / "some", ("train", "test")), replace=False)
    with pytest.raises(MissingError, match=r"pg19 is here without validation \(only train, test\); get it with"):
        open_(data, BpeConfig(vocab_size=300))


def test_gpt2s_tokeniser_is_a_corpus_of_its_own(tmp_path: Path, books: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingError, match="infty data fetch gpt2"):
        open_(books, Gpt2Config())
    files = gpt2_files(tmp_path / "gpt2")
    with pytest.raises(MissingError, match=r"vocab\.json is in GPT-2's form, and is not GPT-2's"):
        import_corpus(books, "gpt2", files, replace=False)
    hub = KNOWN["gpt2"].hub
    assert hub is not None
    sums = {name: sha256(files / name) for name in hub.sums}
    monkeypatch.setitem(KNOWN, "gpt2", replace(KNOWN["gpt2"], hub=replace(hub, sums=sums)))
    import_corpus(books, "gpt2", files, replace=False)
    found = open_(books, Gpt2Config())
    part = found.part(PORTIONS["test"])
    assert found.tokenizer.vocab_size == 50_257
    assert found.tokenizer.decode(part.tokens.tolist()) == "".join(BOOKS["test"].values())
    assert found.tokenizer.separator == 50_256


@pytest.mark.parametrize("config", [WordConfig(vocab_size=20), BpeConfig(vocab_size=270)])
def test_a_tokeniser_may_be_learnt_from_another_text(
    books: Path, make_corpus: Import, tmp_path: Path, config: TokenizerConfig
) -> None:
    """It is the very one that this text's own tokens have, whose files do not change by that."""
    first = Portion(split="validation", last=1)
    with pytest.raises(MissingError, match=r"no corpus 'wikitext' in .*infty data fetch wikitext"):
        open_tokens(books, "pg19", config, PORTIONS, learnt_from=("wikitext", first))
    make_corpus("wikitext", find_wikitext(Contents(wikitext_folder(tmp_path / "articles"))))
    with pytest.raises(MissingError, match="wikitext is here without train"):
        open_tokens(books, "pg19", config, PORTIONS, learnt_from=("wikitext", PORTIONS["train"]))
    found = open_tokens(books, "pg19", config, PORTIONS, learnt_from=("wikitext", first))
    own = open_tokens(books, "wikitext", config, {"train": first, "test": PORTIONS["test"]})
    name = "tokenizer.json" if isinstance(config, BpeConfig) else "vocabulary.txt"
    assert (found.path / name).read_bytes() == (own.path / name).read_bytes()
    before = open_(books, config)
    assert (found.path / name).read_bytes() != (before.path / name).read_bytes()
    assert before.path != found.path
    assert found.digest != before.digest


def test_nothing_is_made_where_only_looking_was_asked(books: Path) -> None:
    with pytest.raises(MissingError, match="not tokenised yet"):
        open_tokens(books, "pg19", BpeConfig(vocab_size=300), PORTIONS, make=False)
    assert not (books / "pg19" / "tokens").exists()


def test_the_digest_is_of_the_tokens_themselves(books: Path) -> None:
    """The same tokens made again have the same; another library's tokens would not."""
    first = open_(books, BpeConfig(vocab_size=300))
    shutil.rmtree(first.path)
    assert open_(books, BpeConfig(vocab_size=300)).digest == first.digest
    manifest = json.loads((first.path / "MANIFEST.json").read_text())
    manifest["files"]["train.bin"]["sha256"] = "0" * 64
    (first.path / "MANIFEST.json").write_text(json.dumps(manifest))
    assert open_(books, BpeConfig(vocab_size=300)).digest != first.digest


def test_a_portion_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="last 3 must be above first 5"):
        Portion(split="train", first=5, last=3)


def test_large_vocabularies_take_four_bytes(books: Path) -> None:
    assert tokens_module._dtype(65_536).itemsize == 2
    assert tokens_module._dtype(65_537).itemsize == 4

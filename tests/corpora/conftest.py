"""Small corpora in the layouts of the real ones, and a console that says nothing."""

from collections.abc import Callable
from pathlib import Path

import pytest

from infty.corpora.layouts import Source
from infty.corpora.store import Corpus, write_corpus

ARTICLES = {
    "valid": " \n = First article = \n \n the cat sat . \n = = A section = = \n \n the <unk> cat . \n \n"
    " = Second = article = \n \n = not a title = \n a cat a . \n \n",
    "test": " \n = Robert <unk> = \n \n the dog . \n \n the cat . \n",
}

Import = Callable[[str, dict[str, Source]], Corpus]


def wikitext_folder(folder: Path, train: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for split, text in ARTICLES.items():
        (folder / f"wiki.{split}.tokens").write_text(text, encoding="utf-8")
    if train:
        (folder / "wiki.train.tokens").write_text(ARTICLES["valid"] * 3, encoding="utf-8")
    return folder


BOOKS = {
    "train": {
        "9": "It was dark.\n\nVery dark: “naïve” — 3 times.\n",
        "10": "A second book.\n",
        "100": "The third one\n",
    },
    "validation": {"7": "Some words here.\n"},
    "test": {"8": "Other words there,\nand more of them.\n"},
}


def pg19_folder(folder: Path, splits: tuple[str, ...] = ("train", "validation", "test")) -> Path:
    for split in splits:
        (folder / split).mkdir(parents=True)
        for name, text in BOOKS[split].items():
            (folder / split / f"{name}.txt").write_text(text, encoding="utf-8")
    (folder / "metadata.csv").write_text('9,"Darkness, by A. Writer",1900,http://x/9\n8,Others,1901,http://x/8\n')
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "corpora"


@pytest.fixture
def make_corpus(data: Path) -> Import:
    def make(name: str, sources: dict[str, Source]) -> Corpus:
        return write_corpus(data, name, sources, "a test", replace=True)

    return make

"""Find text that is trained on and tested on: whole copies, files that hold others, edited copies."""

from collections.abc import Iterator
from itertools import islice

from infty.base.progress import show_bar
from infty.corpora.store import Corpus, Document
from infty.corpora.text_pieces import lines

COMPARED = 2**20  # about as many lines of validation and test are looked for; of more, every second, third …
SHORT = 20  # characters: lines of fewer stand in many texts


def find_trained_on(corpus: Corpus) -> list[str]:
    """Name the documents of validation and test of which more than half, line by line, stands in train as well.

    Raises:
        MissingError: The corpus is damaged.
    """
    tested = [
        (split, document)
        for split in ("validation", "test")
        for document in (corpus.documents(split) if split in corpus.splits else [])
    ]
    if not tested or "train" not in corpus.splits:
        return []
    every = 1 + sum(document.lines for _, document in tested) // COMPARED
    wanted = {line for split, document in tested for line in _read_telling_lines(corpus, split, document, every)}
    found = set[str]()
    with show_bar(f"comparing {corpus.name}", corpus.splits["train"]["bytes"]) as advance:
        for document in corpus.documents("train"):
            found.update(wanted.intersection(_read_lines(corpus, "train", document)))
            advance(document.bytes)
    shared = list[str]()
    for split, document in tested:
        telling = _read_telling_lines(corpus, split, document, every)
        if 2 * sum(len(line) for line in telling if line in found) > sum(map(len, telling)):
            shared.append(document.name)
    return shared


def _read_lines(corpus: Corpus, split: str, document: Document) -> Iterator[str]:
    yield from filter(None, map(str.strip, lines(corpus.text(document, split))))


def _read_telling_lines(corpus: Corpus, split: str, document: Document, every: int) -> list[str]:
    """Read one line of so many of a document: those that are not short, or all if it has no others."""
    chosen = list(islice(_read_lines(corpus, split, document), None, None, every))
    return [line for line in chosen if len(line) >= SHORT] or chosen

"""Find text that is trained on and tested on: whole copies, files that hold others, editions, edited copies."""

import re
from collections.abc import Iterator
from itertools import islice

from infty.base.progress import show_bar
from infty.corpora.store import Corpus, Document

COMPARED = 2**20  # about as many phrases of validation and test are looked for; of more, every second, third …
SHORT = 24  # bytes: phrases of fewer stand in many texts
_CLEAN = bytes(byte if byte >= 0x80 or chr(byte).isalnum() else 0x20 for byte in range(256))
# A phrase ends with a word that ends with one of these, a quarter of all bytes. So it is the same phrase in whatever
# lines it stands, and however the text before and after it was edited.
_LAST = bytes(byte for byte in range(256) if byte % 8 in (3, 4) and _CLEAN[byte] == byte)
_AFTER_PHRASE = re.compile(b"(?<=[" + _LAST + b"]) ")


def find_trained_on(corpus: Corpus) -> list[str]:
    """Name the documents of validation and test of which more than a quarter, by phrases, stands in train as well.

    Neither lines nor spaces, punctuation nor capitals matter. Of a corpus as it was published none is named.

    Raises:
        MissingError: The corpus is damaged.
    """
    tested = [
        (split, document)
        for split in ("validation", "test")
        for document in (corpus.documents(split) if split in corpus.splits else [])
    ]
    train, known = corpus.splits.get("train"), corpus.known
    if not tested or not train:
        return []
    if known.is_whole("train", train["documents"], known.count_words(train["words"], train["lines"])):
        return []
    size = sum(document.bytes for _, document in tested)
    every = 1 + size // (SHORT * COMPARED)
    wanted = {phrase for split, document in tested for phrase in _read_telling(corpus, split, document, every)}
    found = set[bytes]()
    with show_bar(f"comparing {corpus.name}", train["bytes"]) as advance:
        for document in corpus.documents("train"):
            found.update(wanted.intersection(_read_phrases(corpus, "train", document)))
            advance(document.bytes)
    shared = list[str]()
    for split, document in tested:
        telling = _read_telling(corpus, split, document, every)
        if 4 * sum(len(phrase) for phrase in telling if phrase in found) > sum(map(len, telling)):
            shared.append(document.name)
    return shared


def _read_phrases(corpus: Corpus, split: str, document: Document) -> Iterator[bytes]:
    """Read a document's phrases. One that goes on in the next piece of the text is cut in two."""
    for piece in corpus.text(document, split):
        words = piece.casefold().encode().translate(_CLEAN).split()
        yield from filter(None, _AFTER_PHRASE.split(b" ".join(words)))


def _read_telling(corpus: Corpus, split: str, document: Document, every: int) -> list[bytes]:
    """Read one phrase of so many of a document, without short ones."""
    return [phrase for phrase in islice(_read_phrases(corpus, split, document), 0, None, every) if len(phrase) >= SHORT]

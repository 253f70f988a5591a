"""Measure distances to a word's previous occurrence: a test of long memory beside the perplexities of section 4.2.

Only a model with a long memory can expect a word whose previous occurrence is further back than attention reaches
(distances in tokens, · if there is none):

    text      the cat sat . the dog saw the cat
    distance   ·   ·   ·  ·  4   ·   ·   3   7
"""

import re
from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

NEW, NO_WORD = 0, -1
_WORD = re.compile(rb"[^\s]+")


def measure_distances(
    tokens: Int64[ndarray, " n"], text: bytes, lengths: Int64[ndarray, " vocab"] | None, no_words: Iterable[int] = ()
) -> Int64[ndarray, " n"]:
    """Measure the distance in tokens from each token to its word's previous beginning in the document.

    A word's first occurrence is NEW, a token outside words NO_WORD. lengths: bytes of each token if tokens are pieces
    of words; None if tokens are words, except those in `no_words`.
    """
    words = _own_words(tokens, set(no_words)) if lengths is None else _words_of_pieces(tokens, text, lengths)
    found = np.full(len(tokens), NO_WORD, dtype=np.int64)
    last: dict[int | bytes, int] = {}
    for word, first, stop in words:
        found[first:stop] = first - last[word] if word in last else NEW
        last[word] = first
    return found


def _own_words(tokens: Int64[ndarray, " n"], no_words: set[int]) -> Iterator[tuple[int, int, int]]:
    return ((token, i, i + 1) for i, token in enumerate(tokens.tolist()) if token not in no_words)


def _words_of_pieces(
    tokens: Int64[ndarray, " n"], text: bytes, lengths: Int64[ndarray, " vocab"]
) -> Iterator[tuple[bytes, int, int]]:
    """Yield the words of a text with their tokens [first, stop). A token belongs to the word that has its last byte."""
    ends = lengths[tokens].cumsum()
    spans = np.array([match.span() for match in _WORD.finditer(text)], dtype=np.int64).reshape(-1, 2)
    first, stop = np.searchsorted(ends, spans[:, 0], side="right"), np.searchsorted(ends, spans[:, 1], side="left") + 1
    for (low, high), a, b in zip(spans.tolist(), first.tolist(), stop.tolist(), strict=True):
        yield text[low:high], a, b

"""Texts in pieces: nothing is lost, added or cut that should not be."""

import io
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infty.base.errors import MissingError
from infty.corpora import text_pieces as pieces
from infty.corpora.text_pieces import cut_at_spaces, lines, read_pieces

texts = st.text(st.sampled_from("ab \n\t\u2028\u0085é漢😀\r"), max_size=60)


@given(texts, st.integers(1, 9))
def test_reading_in_pieces_gives_the_text(text: str, size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "PIECE", size)
        assert "".join(read_pieces(io.BytesIO(text.encode()), "x")) == text


@given(texts, st.integers(1, 9))
def test_lines_end_at_line_feeds_only(text: str, size: int) -> None:
    parts = [text[i : i + size] for i in range(0, len(text), size)]
    wanted = [line + "\n" for line in text.split("\n")[:-1]] + ([text.split("\n")[-1]] if text.split("\n")[-1] else [])
    assert list(lines(parts)) == wanted


@given(texts, st.integers(1, 9), st.integers(2, 9))
def test_pieces_at_spaces_are_the_text_and_begin_with_the_one_space_before_a_word(
    text: str, size: int, long: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "LONG", long)
        parts = list(cut_at_spaces(text[i : i + size] for i in range(0, len(text), size)))
    assert "".join(parts) == text
    assert all(parts)
    for before, part in pairwise(parts):
        clean = part[0] == " " and not before[-1].isspace() and not part[1:2].isspace()
        assert clean or len(before) == long  # or there was no such space


def test_bytes_that_are_no_utf8_are_refused_with_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    for size in (1, 2, 3, 100):
        monkeypatch.setattr(pieces, "PIECE", size)
        with pytest.raises(MissingError, match=r"book\.txt is no UTF-8 text: byte 7"):
            list(read_pieces(io.BytesIO("ab é x".encode() + b"\xff more"), "book.txt"))
        with pytest.raises(MissingError, match="byte 2"):
            list(read_pieces(io.BytesIO(b"ab\xc3"), "cut in a character"))

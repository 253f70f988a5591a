"""Text a piece at a time: however long a file or a line is, only a piece of it is held."""

import codecs
from collections.abc import Iterable, Iterator
from typing import Protocol, runtime_checkable

from infty.base.errors import MissingError

PIECE = 2**18  # bytes read at once
LONG = 2**16  # characters that are cut where no white space is


class Readable(Protocol):
    """What is read in bytes."""

    def read(self, size: int, /) -> bytes:
        """The next `size` bytes; fewer at the end, then none."""
        ...


Marked = Iterator[tuple[bool, str]]  # whether a document begins here, and the next piece of text


@runtime_checkable
class Text(Protocol):
    """An open text file, or what reads like one."""

    def read(self, size: int, /) -> str:
        """The next `size` characters; fewer at the end, then none."""
        ...


class CountedText:
    """A text that counts itself as it is read: words between white space, line ends, and bytes of UTF-8."""

    def __init__(self, text: Text) -> None:
        self.text, self.words, self.lines, self.bytes = text, 0, 0, 0
        self._inside = False

    def read(self, size: int, /) -> str:
        """The next `size` characters."""
        piece = self.text.read(size)
        self.words += count_words(piece, self._inside)
        self._inside = not piece[-1:].isspace() if piece else self._inside
        self.lines, self.bytes = self.lines + piece.count("\n"), self.bytes + len(piece.encode())
        return piece


def count_words(piece: str, inside: bool) -> int:
    """Words that begin in a piece of text; `inside`: the piece before it ended within a word."""
    return len(piece.split()) - (inside and bool(piece) and not piece[0].isspace())


def read_pieces(file: Readable, name: str) -> Iterator[str]:
    """The text of a file. MissingError, with the place, where it is no UTF-8."""
    decoder, read = codecs.getincrementaldecoder("utf-8")(), 0
    while True:
        chunk, held = file.read(PIECE), len(decoder.getstate()[0])
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as fault:
            place = read - held + fault.start
            raise MissingError(f"{name} is no UTF-8 text: byte {place} ({fault.reason}); convert it first") from None
        read += len(chunk)
        if text:
            yield text
        if not chunk:
            return


def lines(pieces: Iterable[str]) -> Iterator[str]:
    """Lines with their ends, of a text in pieces. What is longer than a piece comes in parts."""
    rest = ""
    for piece in pieces:
        *whole, rest = (rest + piece).split("\n")
        yield from (line + "\n" for line in whole)
        if len(rest) >= PIECE:
            yield rest
            rest = ""
    if rest:
        yield rest


def at_spaces(pieces: Iterable[str]) -> Iterator[str]:
    """A text cut anew: each piece begins with the one space before a word, so that no word is cut.

    Byte-level BPE splits a text there before anything else, so pieces give the tokens of the whole. Where there is
    no such space in `LONG` characters, the cut falls after them.
    """
    rest = ""
    for piece in pieces:
        rest += piece
        while len(rest) > LONG:
            place = _space_before_a_word(rest, LONG)
            yield rest[:place]
            rest = rest[place:]
    if rest:
        yield rest


def _space_before_a_word(text: str, limit: int) -> int:
    place = text.rfind(" ", 1, limit)
    while place > 0:
        if not text[place - 1].isspace() and not text[place + 1].isspace():
            return place
        place = text.rfind(" ", 1, place)
    return limit

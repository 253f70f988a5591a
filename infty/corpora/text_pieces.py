"""Text a piece at a time: however long a file or a line is, only a piece of it is held."""

import codecs
import io
import re
from collections.abc import Iterable, Iterator
from typing import BinaryIO, TextIO

from infty.base.errors import MissingError, explain_encoding

PIECE = 2**18  # bytes read at once
LONG = 2**16  # characters that are cut if no white space is among them
MARK = "\ufeff"  # a byte order mark, which Windows' editors put before a text
_SPACE = re.compile(r"\s+")
_WORD_AFTER_SPACE = re.compile(r".*\S( )\S", re.DOTALL)  # the last single space between words
Marked = Iterator[tuple[bool, str]]  # whether a document begins here, and the next piece of text
Text = io.TextIOBase  # an open text file, or what reads like one


class TextCounter:
    """Counts of a text that comes in pieces: words between white space, line ends, and bytes of UTF-8."""

    def __init__(self) -> None:
        self.words = self.lines = self.bytes = 0
        self._inside = False  # the last piece ended within a word

    def add(self, piece: str) -> bytes:
        """Count the next piece, and return its UTF-8."""
        data = piece.encode()
        self.words += len(piece.split()) - (self._inside and bool(piece) and not piece[0].isspace())
        self._inside = not piece[-1:].isspace() if piece else self._inside
        self.lines, self.bytes = self.lines + piece.count("\n"), self.bytes + len(data)
        return data


class CountedText(TextCounter, Text):
    """A text that counts itself as it is read."""

    def __init__(self, text: TextIO) -> None:
        super().__init__()
        self.text = text

    def read(self, size: int | None = -1, /) -> str:
        """Return the next `size` characters; fewer at the end, then none."""
        piece = self.text.read(-1 if size is None else size)
        self.add(piece)
        return piece


def read_pieces(file: BinaryIO, name: str, size: int | None = None) -> Iterator[str]:
    """Read the text of a file, or its next `size` bytes, in pieces. MissingError if it is no UTF-8 or too short."""
    decoder, read = codecs.getincrementaldecoder("utf-8")(), 0
    while True:
        chunk, held = file.read(PIECE if size is None else min(PIECE, size - read)), len(decoder.getstate()[0])
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as fault:
            why = f"byte {read - held + fault.start} ({fault.reason}); {explain_encoding(chunk)}"
            raise MissingError(f"{name} is no UTF-8 text: {why}") from None
        read += len(chunk)
        if text:
            yield text
        if not chunk:
            break
    if size is not None and read < size:
        raise MissingError(f"{name} is cut off")


def read_text(file: BinaryIO, name: str) -> Iterator[str]:
    """Read a text without its byte order mark, in pieces. MissingError if it is no UTF-8."""
    pieces = read_pieces(file, name)
    first = next(pieces, "").removeprefix(MARK)
    if first.count("\0") * 4 > len(first):  # UTF-16 without a mark passes for UTF-8
        raise MissingError(f"{name} is no UTF-8 text: {explain_encoding(first.encode())}")
    if first:
        yield first
    yield from pieces


def lines(pieces: Iterable[str]) -> Iterator[str]:
    """Split a text in pieces into lines with their ends. A line that is longer than a piece comes in parts."""
    rest = ""
    for piece in pieces:
        *whole, rest = (rest + piece).split("\n")
        yield from (line + "\n" for line in whole)
        if len(rest) >= PIECE:
            yield rest
            rest = ""
    if rest:
        yield rest


def cut_lines(pieces: Iterable[str], size: int) -> Iterator[str]:
    """Cut a text into its lines, and a line of more than `size` characters also after white space, if it has any."""
    rest = ""
    for line in lines(pieces):
        rest, start = rest + line, 0
        while len(rest) - start > size and (space := _SPACE.search(rest, start + size)) and space.end() < len(rest):
            yield rest[start : space.end()]
            start = space.end()
        rest = rest[start:]
        if rest.endswith("\n") or len(rest) > 2 * PIECE:
            yield rest
            rest = ""
    if rest:
        yield rest


def cut_at_spaces(pieces: Iterable[str]) -> Iterator[str]:
    """Cut a text anew: a piece begins with the single space before a word, or after `LONG` characters without one."""
    # Byte-level BPE splits a text there before anything else, so pieces give the tokens of the whole.
    rest = ""
    for piece in pieces:
        rest += piece
        while len(rest) > LONG:
            found = _WORD_AFTER_SPACE.match(rest, 0, LONG + 1)
            place = found.start(1) if found else LONG
            yield rest[:place]
            rest = rest[place:]
    if rest:
        yield rest

"""Errors that a user can act on, each kind with its exit code, and functions that word their messages."""

import codecs
import difflib
from collections.abc import Iterable

LONG = 1000  # characters of a message with a path in it, at most


class InftyError(Exception):
    """A failure with a message for the user. Exit code 1."""

    exit_code = 1


class UsageError(InftyError):
    """Wrong usage or configuration; nothing was written. Exit code 2."""

    exit_code = 2


class BusyError(UsageError):
    """Another process is at work where this one would write. Exit code 2."""


class MissingError(InftyError):
    """Data or a run is missing or damaged. Exit code 3."""

    exit_code = 3


class DifferenceError(InftyError):
    """A check found a result that differs from the one it was compared with. Exit code 4."""

    exit_code = 4


class Stopped(BaseException):
    """A signal asked the program to stop, and its work so far is saved. Exit code 128 + signal."""

    # It is no Exception: libraries catch those and go on, but must not go on after this, which may be raised anywhere.
    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal


class ProcessWarning(UserWarning):
    """A warning of one of the processes that work together: each shows its own, and not only the one that leads."""


def describe_fault(fault: BaseException) -> str:
    """Return the message of a library's error in one line, or the error's type if it has no message."""
    from pydantic import ValidationError  # imported here: it takes longer than a `--help`

    if isinstance(fault, ValidationError):
        first = fault.errors(include_url=False, include_input=False)[0]
        return flatten(f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": "))
    return flatten(str(fault)) or type(fault).__name__


def flatten(text: str) -> str:
    """Put a text of any kind on one line, and cut it if it is long."""
    return one_line(" ".join(text.split()))


def one_line(text: str, length: int = 200) -> str:
    """Escape unprintable characters in a part of a message, and cut it if it is too long."""
    text = "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text[: length + 1])
    return text if len(text) <= length else f"{text[:length]}…"


def count(number: int, noun: str) -> str:
    """Write how many there are of something: `1 file`, `1,000 files`."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def explain_encoding(data: bytes) -> str:
    """Say how to turn a text into UTF-8, from its first bytes."""
    wide = {codecs.BOM_UTF32_LE: 32, codecs.BOM_UTF32_BE: 32, codecs.BOM_UTF16_LE: 16, codecs.BOM_UTF16_BE: 16}
    bits = next((bits for mark, bits in wide.items() if data.startswith(mark)), None)
    if bits is None and data.count(0) * 4 > len(data):  # every second byte of plain English in UTF-16
        bits = "16LE" if data[1::2].count(0) > data[::2].count(0) else "16BE"
    name = f"UTF-{bits}" if bits else "WINDOWS-1252"
    return f"{'it looks like ' + name + '; ' if bits else ''}convert it first, as with: iconv -f {name} -t UTF-8"


def suggest(name: str, allowed: Iterable[str]) -> str:
    """Ask 'did you mean …?', or list what is allowed if no name is close."""
    allowed = list(map(str, allowed))
    close = difflib.get_close_matches(str(name), allowed, n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else f"there is {', '.join(allowed) or 'nothing'}"

"""What goes wrong in a way that a user can act on: an exit code for each kind, and the words of messages."""

import difflib
from collections.abc import Iterable

LONG = 1000  # signs of a message with a path in it


class InftyError(Exception):
    """A failure with a message for the user. Exit code 1."""

    exit_code = 1


class UsageError(InftyError):
    """Wrong usage or configuration; nothing was written. Exit code 2."""

    exit_code = 2


class BusyError(UsageError):
    """Another process is at work where this one would be. Exit code 2."""


class MissingError(InftyError):
    """Data or a run is missing or damaged. Exit code 3."""

    exit_code = 3


class DifferenceError(InftyError):
    """A check found another result than the one it was held against. Exit code 4."""

    exit_code = 4


class Stopped(BaseException):
    """A signal asked for an end, and what was done so far is saved. Exit code 128 + signal."""

    # No Exception: it may be raised anywhere, and libraries that go on after any of these must not go on after this.
    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal


def describe_fault(fault: BaseException) -> str:
    """Return what a library says, in one line; the kind of its error if it says nothing."""
    from pydantic import ValidationError  # whose import takes longer than a `--help`

    if isinstance(fault, ValidationError):
        first = fault.errors(include_url=False, include_input=False)[0]
        return flatten(f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": "))
    return flatten(str(fault)) or type(fault).__name__


def flatten(text: str) -> str:
    """Put a text of any kind on one line, and cut it if it is long."""
    return one_line(" ".join(text.split()))


def one_line(text: str, length: int = 200) -> str:
    """Escape what is no letter or sign in a part of a message, and cut it if it is too long."""
    text = "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text[: length + 1])
    return text if len(text) <= length else f"{text[:length]}…"


def suggest(name: str, allowed: Iterable[str]) -> str:
    """Ask 'did you mean …?', or name what is allowed if nothing is near."""
    allowed = list(map(str, allowed))
    close = difflib.get_close_matches(str(name), allowed, n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else f"there is {', '.join(allowed) or 'nothing'}"

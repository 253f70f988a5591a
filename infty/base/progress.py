"""Progress bars, on a terminal alone."""

import contextlib
import io
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TextIO, TypeVar

from rich import progress
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from infty.base.errors import MissingError
from infty.base.screen import screen

Item = TypeVar("Item")


def track(items: Iterable[Item], count: int, title: str) -> Iterator[Item]:
    """Yield the items, with a progress bar on a terminal."""
    hidden = not screen().is_terminal
    yield from progress.track(items, title, total=count, console=screen(), disable=hidden, transient=True)


@contextlib.contextmanager
def show_bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar of bytes on a terminal; yields the function that advances it."""
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=None), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=screen(), disable=not screen().is_terminal, transient=True) as progress:
        task = progress.add_task(title, total=total)
        yield lambda count: progress.advance(task, count)


@contextlib.contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """Open a text file for reading, with a progress bar; the path `-` is stdin.

    MissingError if it can't be opened or decoded.
    """
    name = "stdin" if path == Path("-") else path
    try:
        with _open_stdin() if name == "stdin" else _open_with_bar(path) as file:
            yield file
    except UnicodeDecodeError as fault:
        raise MissingError(f"{name} is no UTF-8 text: {fault}") from None
    except OSError as fault:
        raise MissingError(f"{name} can't be read: {fault.strerror or fault}") from None


def _open_with_bar(path: Path) -> contextlib.AbstractContextManager[TextIO]:
    hidden = not screen().is_terminal
    return progress.open(path, "r", encoding="utf-8", newline="", console=screen(), disable=hidden, transient=True)


@contextlib.contextmanager
def _open_stdin() -> Iterator[TextIO]:
    """Read stdin as UTF-8 with its own line ends, whatever the locale says; leave it open afterwards."""
    if sys.stdin is None:
        raise MissingError("stdin can't be read: it is closed")
    text = io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8", newline="")
    try:
        yield text
    finally:
        text.detach()

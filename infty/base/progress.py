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
    """Hand items on, with a bar on a terminal."""
    hidden = not screen().is_terminal
    yield from progress.track(items, title, total=count, console=screen(), disable=hidden, transient=True)


@contextlib.contextmanager
def show_bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar of bytes on a terminal, and what moves it on."""
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=None), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=screen(), disable=not screen().is_terminal, transient=True) as progress:
        task = progress.add_task(title, total=total)
        yield lambda count: progress.advance(task, count)


@contextlib.contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """A text to read, of a file with a bar of how much of it has been read; the path `-` is stdin.

    MissingError where it can't be opened or decoded.
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
    """What stdin gives as UTF-8 with its line ends as they are, whatever a terminal has; it stays open."""
    if sys.stdin is None:
        raise MissingError("stdin can't be read: it is closed")
    text = io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8", newline="")
    try:
        yield text
    finally:
        text.detach()

"""Show progress bars on the console that the command line opens for them, if it is a terminal; otherwise none."""

import contextlib
import io
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO, TypeVar

from rich import progress
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from infty.base.errors import MissingError, explain_encoding

Item = TypeVar("Item")
Advance = Callable[[int], None]  # advances a bar by a number of bytes
NOWHERE = Console(quiet=True)
_OPEN = [NOWHERE]  # a stack; the last one is written to


def screen() -> Console:
    """Return the console for bars, and for what is logged while one is drawn."""
    return _OPEN[-1]


@contextlib.contextmanager
def show_on(console: Console) -> Iterator[None]:
    """Show progress on a console within the block."""
    _OPEN.append(console)
    try:
        yield
    finally:
        _OPEN.pop()


def track(items: Iterable[Item], count: int, title: str) -> Iterator[Item]:
    """Yield the items, with a progress bar on a terminal."""
    yield from progress.track(items, title, total=count, **_place_bar())


@contextlib.contextmanager
def show_bar(title: str, total: int) -> Iterator[Advance]:
    """Show a progress bar of bytes on a terminal; yields the function that advances it."""
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=None), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, **_place_bar()) as bar:
        task = bar.add_task(title, total=total)
        yield lambda count: bar.advance(task, count)


@contextlib.contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """Open a text file for reading, with a progress bar; `-` is stdin. A byte order mark is no part of it.

    Raises:
        MissingError: It can't be read as text.
    """
    name = "stdin" if path == Path("-") else path
    text: dict[str, Any] = {"encoding": "utf-8-sig", "newline": "", **_place_bar()}
    try:
        with progress.open(path, "r", **text) if name == path else _open_stdin() as file:
            yield file
    except UnicodeDecodeError as fault:
        raise MissingError(f"{name} is no UTF-8 text: {fault}; {explain_encoding(fault.object)}") from None
    except OSError as fault:
        raise MissingError(f"{name} can't be read: {fault.strerror or fault}") from None


@contextlib.contextmanager
def _open_stdin() -> Iterator[TextIO]:
    """Open stdin as UTF-8, with line ends unchanged, whatever the locale says; leave it open afterwards."""
    if sys.stdin is None:
        raise MissingError("stdin can't be read: it is closed")
    text = io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8-sig", newline="")
    try:
        yield text
    finally:
        text.detach()


def _place_bar() -> dict[str, Any]:
    """Return rich's options for a bar: drawn on the open console if it is a terminal, and erased at the end."""
    return {"console": screen(), "disable": not screen().is_terminal, "transient": True}

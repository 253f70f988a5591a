"""The console that progress is shown on: none, unless a command line opens one."""

import contextlib
from collections.abc import Iterator

from rich.console import Console

NOWHERE = Console(quiet=True)
_OPEN = [NOWHERE]  # the last one is written to


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

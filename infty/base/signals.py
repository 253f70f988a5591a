"""Signals that ask the program to stop, and the terminal that may be gone when one of them comes."""

import os
import signal
from collections.abc import Callable
from types import FrameType

Handler = Callable[[int, FrameType | None], None]

NOTICE = signal.SIGUSR1  # of many clusters, before a job's time is up; a script may send it again and again
LOST = signal.SIGHUP  # the terminal was closed, or its connection ended
STOPPING = (signal.SIGINT, signal.SIGTERM, LOST, NOTICE)
_CAME: list[int] = []  # signals that asked to stop so far


def handle_stops(handler: Handler) -> dict[int, "signal._HANDLER"]:
    """Let `handler` handle what asks to stop, and return the handlers before it; none if not in the main thread.

    A lost terminal or a notice that whoever started this program had it ignore, as nohup does, stays ignored.
    """
    previous: dict[int, signal._HANDLER] = {}
    for number in STOPPING:
        if number in (LOST, NOTICE) and signal.getsignal(number) == signal.SIG_IGN:
            continue
        try:
            previous[number] = signal.signal(number, handler)
        except ValueError:  # not the main thread
            break
    return previous


def begin_to_stop(number: int) -> bool:
    """Prepare for the end that a signal asks for: no notice disturbs it, and nothing is written to a lost terminal.

    At a logout SIGTERM and SIGHUP come together: after the first one, the second is no request of its own. Tells
    whether this is the first request.
    """
    signal.signal(NOTICE, signal.SIG_IGN)
    if number == signal.SIGTERM:
        signal.signal(LOST, lambda *_: _leave_terminal())
    if number == LOST:
        _leave_terminal()
    _CAME.append(number)
    return len(_CAME) == 1


def _leave_terminal() -> None:
    for descriptor in (1, 2):
        try:
            os.write(descriptor, b"")
        except OSError:  # it would fail at each line that is told, before the checkpoint is saved
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)

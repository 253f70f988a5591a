"""Handle SIGINT, SIGTERM, SIGHUP and SIGUSR1 as requests to stop when a checkpoint can be saved."""

import signal
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import TypeVar

from infty.base.signals import LOST, NOTICE, begin_to_stop, handle_stops

Item = TypeVar("Item")


class StopSignals:
    """A `with` block in which the first signal is only recorded in `received`; a second one takes effect at once.

    A second SIGUSR1 is ignored, since clusters send it more than once, and so is a SIGHUP after a SIGTERM, as at a
    logout.

    insist: whether a second one does; not if a launcher forwards signals that a terminal sends its processes as well.
    Signals can be handled in the main thread only; in another thread nothing is recorded.
    """

    def __init__(self, *, insist: bool = True) -> None:
        self.insist = insist
        self.received: int | None = None
        self._previous: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> "StopSignals":
        self._previous = handle_stops(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def yield_until_signal(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield items until a signal comes; the caller checks `received` afterwards."""
        for item in items:
            yield item
            if self.received is not None:
                return

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._begin_to_stop(number)
        if self.insist:
            self._restore()

    def _begin_to_stop(self, number: int) -> None:
        self.received = number
        for ignored in (NOTICE, LOST) if number == signal.SIGTERM else (NOTICE,):
            self._previous.pop(ignored, None)  # it stays ignored
        begin_to_stop(number)

    def _restore(self) -> None:
        while self._previous:
            signal.signal(*self._previous.popitem())

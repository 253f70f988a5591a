"""Where metrics go: metrics.jsonl always, the screen, and Weights & Biases. Sinks with one interface."""

import contextlib
import json
import logging
import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from infty.base.errors import InftyError
from infty.base.files import write_text
from infty.base.screen import screen

logger = logging.getLogger(__name__)


class Sink(Protocol):
    """Takes metrics after a step, and is closed once."""

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Take metrics after `step` optimiser steps, named `<split>/<name>`."""

    def close(self) -> None:
        """Close the sink: nothing more comes."""


class Sinks:
    """Several sinks as one; a `with` block closes them."""

    def __init__(self, sinks: Iterable[Sink]) -> None:
        self.sinks = list(sinks)

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Hand metrics to each of the sinks."""
        for sink in self.sinks:
            sink.log(step, metrics)

    def __enter__(self) -> "Sinks":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with warnings.catch_warnings(), contextlib.ExitStack() as closing:  # each of them, whatever befalls another
            if kind is not None and issubclass(kind, Exception):  # a full disk, say, which closing meets again
                warnings.simplefilter("ignore")
            for sink in self.sinks:
                closing.callback(sink.close)


class MetricsFile:
    """metrics.jsonl: one object a line, each on disk before the next step, cut back when a run continues.

    step: where it goes on. validated: its validation is done; else it comes again, as the test does: earlier lines go.
    """

    def __init__(self, path: Path, step: int, *, validated: bool = True) -> None:
        again = ("test/",) if validated else ("test/", "validation/")
        before = [line for line in read_lines(path) if line["step"] <= step]
        kept = [line for line in before if line["step"] < step or not any(key.startswith(again) for key in line)]
        write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
        self.path, self.file = path, path.open("a", encoding="utf-8", newline="\n")

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Append a line. InftyError where it can't be written."""
        try:
            self.file.write(json.dumps({"step": step, **metrics}) + "\n")
            self.file.flush()
            os.fsync(self.file.fileno())
        except OSError as fault:
            why = f"{self.path} can't be written to ({fault.strerror})"
            raise InftyError(f"{why}; the same command continues from the last checkpoint, once it can") from None

    def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(OSError):  # what could not be written was told
            self.file.close()


class ScreenProgress:
    """A bar with loss, speed and time left on a terminal; elsewhere a plain line for each validation."""

    def __init__(self, title: str, steps: int, step: int) -> None:
        self.steps, self.loss = steps, ""
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.completed}/{task.total}  {task.fields[figures]}"),
            TimeRemainingColumn(),
            console=screen(),
            disable=not screen().is_terminal,
        )
        self.task = self.bar.add_task(title, total=steps, completed=step, figures="")

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Move the bar; print validations."""
        if "train/loss" in metrics:
            self.loss = f"loss {metrics['train/loss']:.3f}  {metrics['train/tokens_per_second']:,.0f} tokens/s"
        if "validation/loss" in metrics:
            figures = "  ".join(f"{name.split('/')[1]} {value:.4g}" for name, value in metrics.items())
            logger.info(f"step {step}/{self.steps}  {self.loss}  validation {figures}")
        self.bar.start()  # here and not earlier: a fault before the first step must not leave a half-drawn screen
        self.bar.update(self.task, completed=step, figures=self.loss)

    def close(self) -> None:
        """Leave the screen as it is."""
        self.bar.stop()


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read the whole lines of a metrics file: a killed process may leave half a last one."""
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []:
        with contextlib.suppress(ValueError, RecursionError):  # no JSON, or nested or a number without end
            line = json.loads(text)
            if isinstance(line, dict) and isinstance(line.get("step"), int):
                lines.append(line)
    return lines

"""Where metrics go: metrics.jsonl always, the screen, and Weights & Biases. Sinks with one interface."""

import contextlib
import json
import logging
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Literal

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from infty.base.errors import InftyError, count, describe_fault, one_line
from infty.base.files import write_text
from infty.base.progress import screen

logger = logging.getLogger(__name__)


class MetricsFile:
    """metrics.jsonl: one object per line, each on disk before the next step, cut back when a run continues.

    step: the one to continue from. validated: its validation is done; else it is repeated and replaced, like the test.
    """

    def __init__(self, path: Path, step: int, *, validated: bool = True) -> None:
        again = ("test/",) if validated else ("test/", "validation/")
        before = [line for line in read_lines(path) if line["step"] <= step]
        kept = [line for line in before if line["step"] < step or not any(key.startswith(again) for key in line)]
        write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
        self.path, self.file = path, path.open("a", encoding="utf-8", newline="\n")

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Append a line. InftyError if it can't be written."""
        try:
            self.file.write(json.dumps({"step": step, **metrics}) + "\n")
            self.file.flush()
            os.fsync(self.file.fileno())
        except OSError as fault:
            why = f"{self.path} can't be written to ({fault.strerror})"
            raise InftyError(f"{why}; the same command continues from the last checkpoint, once it can") from None

    def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(OSError):  # what could not be written was reported
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


class WandbRun:
    """A W&B run with the arguments of `wandb.init`. Any fault of W&B becomes a warning; training goes on without it.

    W&B's own process can die or hang: each call is made in a thread that is left behind if it takes too long. It starts
    while the first steps are taken; who logs first waits for it.
    """

    START, FINISH = 5.0, 10.0  # seconds that W&B's server may take to begin a run, and to receive the rest of it
    BOUND, END = 30.0, 5.0  # seconds that any call may take, and the end of W&B's process

    def __init__(self, **what: Any) -> None:
        self.run: Any = None
        self.dropped = False
        self.wandb: Any = None  # the module
        self.process: Any = None
        self.cache: Any = None  # a temporary folder, if there is no other
        self._starting: Future[None] | None = _begin(lambda: self._start(**what))

    def _start(self, **what: Any) -> None:
        with _nobody_to_ask():
            self._open(**what)

    def _open(self, mode: Literal["offline", "online"], **what: Any) -> None:
        # When it is imported, W&B reads from the environment what it reports, and where it logs.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # else its maker is sent its faults and its speed
        if not os.environ.get("WANDB_MODE"):
            os.environ.pop("WANDB_MODE", None)  # an empty one is a fault to W&B
        logging.raiseExceptions = False  # no traceback if W&B's own log can't be written, as on a full disk
        if not _can_hold_logs(os.environ.get("WANDB_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME") or "~/.cache"):
            self.cache = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)  # else it logs to the screen
            os.environ["WANDB_CACHE_DIR"] = self.cache.name
        import wandb

        # W&B's process starts with these settings, which make it send nothing about this machine.
        self.wandb = wandb
        settings = wandb.Settings(
            mode=mode,
            silent=True,
            console="off",
            disable_git=True,
            save_code=False,
            x_disable_machine_info=True,
            host="",  # without these two, they are the machine's name, and the path of the program
            program="infty",
            init_timeout=self.START,
            finish_timeout=self.FINISH,
            finish_timeout_raises=True,
        )
        service: Any = wandb.setup(settings=settings)  # for all of W&B; those given to `init` are for the run alone
        with contextlib.suppress(AttributeError):  # private names of W&B; there is none if another process's is used
            self.process = service._connection._proc._process
        run = wandb.init(**what, mode=mode, resume="allow", settings=settings)
        self.run = None if self.dropped else run  # it may have been given up meanwhile

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Send metrics; if that fails, give up W&B with a warning."""
        self._await_start()
        if self.run is not None:
            self._try("failed", _begin(lambda: self.run.log(metrics, step=step)))

    def close(self) -> None:
        """Finish the run."""
        self._await_start()
        if self.run is not None:
            self._try("could not finish", _begin(lambda: self.run.finish()), "metrics.jsonl has them all")
            self._drop()

    def _await_start(self) -> None:
        if self._starting is not None:
            starting, self._starting = self._starting, None
            self._try("could not start", starting)

    def _try(self, what: str, action: Future[None], then: str = "metrics go to metrics.jsonl only") -> None:
        try:
            fault = _find_fault(action, self.BOUND)
        except BaseException:  # a signal
            self._drop()
            raise
        if fault is not None:  # whatever it is, it is not worth a training run
            self._drop()
            missing = isinstance(fault, ImportError)
            said = "wandb is not installed" if missing else f"W&B {what} ({describe_fault(fault)})"
            warnings.warn(f"{said}: {then}", stacklevel=3)

    def _drop(self) -> None:
        """End W&B's process, for which W&B itself would wait without a limit when the command ends."""
        self.run, self.dropped = None, True
        if self.wandb is not None:
            _find_fault(_begin(self.wandb.teardown), self.END)
        if self.process is not None:
            self.process.kill()  # does nothing if it has ended
        if self.cache is not None:
            self.cache.cleanup()
            os.environ.pop("WANDB_CACHE_DIR", None)


def _begin(action: Callable[[], Any]) -> Future[None]:
    """Begin an action in a thread of its own."""
    outcome: Future[None] = Future()

    def act() -> None:
        try:
            action()
        except BaseException as fault:  # W&B exits the interpreter if its process fails
            outcome.set_exception(fault)
        else:
            outcome.set_result(None)

    threading.Thread(target=act, daemon=True).start()
    return outcome


def _find_fault(action: Future[None], seconds: float) -> BaseException | None:
    """Return what an action raised; a TimeoutError if it goes on for longer than that."""
    try:
        return action.exception(seconds)
    except TimeoutError:
        return TimeoutError(f"no answer in {seconds:g} s")


def _can_hold_logs(folder: str) -> bool:
    """Tell if W&B's process can log below a folder."""
    logs = Path(os.path.expanduser(folder), "wandb", "logs")
    with contextlib.suppress(OSError):
        logs.mkdir(parents=True, exist_ok=True)
    return os.access(logs, os.W_OK)


@contextlib.contextmanager
def _nobody_to_ask() -> Iterator[None]:
    """Replace stdin within the block: if it is a terminal, W&B asks for a key."""
    with open(os.devnull) as nothing:
        stdin, sys.stdin = sys.stdin, nothing
        try:
            yield
        finally:
            sys.stdin = stdin


Sink = MetricsFile | ScreenProgress | WandbRun  # each takes metrics after a step, and is closed once


class Sinks:
    """Several sinks as one; a `with` block closes them."""

    def __init__(self, sinks: Iterable[Sink]) -> None:
        self.sinks = list(sinks)

    def log(self, step: int, metrics: Mapping[str, float | None]) -> None:
        """Hand the metrics that are figures to each of the sinks."""
        figures = {name: value for name, value in metrics.items() if value is not None}
        for sink in self.sinks:
            sink.log(step, figures)

    def __enter__(self) -> "Sinks":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with warnings.catch_warnings(), contextlib.ExitStack() as closing:  # each is closed, even if another fails
            if kind is not None and issubclass(kind, Exception):  # a full disk, say, on which closing fails again
                warnings.simplefilter("ignore")
            for sink in self.sinks:
                closing.callback(sink.close)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read the complete lines of a metrics file, with a warning of damaged ones; none if there is no file."""
    lines, damaged = parse_lines(path)
    if damaged:
        warnings.warn(f"{path}: {describe_damage(damaged)} left out", stacklevel=2)
    return lines


def parse_lines(path: Path) -> tuple[list[dict[str, Any]], list[int]]:
    """Parse a metrics file: its lines, and the numbers of damaged ones. A killed process may leave half of its last."""
    lines, damaged = list[dict[str, Any]](), list[int]()
    texts = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True) if path.exists() else []
    for number, text in enumerate(texts, 1):
        line = None
        with contextlib.suppress(ValueError, RecursionError):  # no JSON, nested too deeply, or too long a number
            line = json.loads(text)
        if isinstance(line, dict) and isinstance(line.get("step"), int):
            lines.append(line)
        elif text.endswith("\n"):
            damaged.append(number)
    return lines, damaged


def describe_damage(numbers: Sequence[int]) -> str:
    """Describe damaged lines: `2 damaged lines (5, 7)`."""
    return f"{count(len(numbers), 'damaged line')} ({one_line(', '.join(map(str, numbers)), 50)})"

"""Train cells in processes of their own, so that a crash or the out-of-memory killer ends only one of them."""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from types import FrameType

from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from infty.base.errors import MissingError, Stopped, UsageError, one_line
from infty.base.progress import screen
from infty.base.signals import STOPPING
from infty.commands.reproduce.missing import Job, Tables, format_cells, format_time
from infty.machine.launch import SLOT
from infty.runs.folder import RunFolder
from infty.training.signals import StopSignals

logger = logging.getLogger(__name__)

PAUSE = 0.1  # seconds between looks at the processes
LAST_LINES = 50  # of a process's output that are kept
BY_SIGNAL = {128 + number: number for number in STOPPING}  # exit codes of infty
SHOWN = ("test/accuracy", "test/word_perplexity", "test/loss")  # one of them is a figure in every result


def train_missing(tables: Tables, jobs: int) -> None:
    """Train and test what is missing, `jobs` at once, whatever fails. Raises Stopped after a signal, once all ended."""
    began, missing, done = time.monotonic(), len(tables.missing), format_cells(len(tables.done))
    left = f"{missing} to train, about {format_time(tables.predict_all(jobs))}" if missing else "nothing is missing"
    logger.info(f"{done} finished before; {left}")
    _Work(tables, jobs).run()
    tables.spent = time.monotonic() - began


class _Child:
    """A process that trains a cell. lines: the last of its output, none empty. slot: its number among those running."""

    def __init__(self, job: Job, slot: int) -> None:
        self.job, self.slot, self.began, self.lines = job, slot, time.monotonic(), deque[str](maxlen=LAST_LINES)
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "infty", *job.words],  # -P: a random.py here does not replace Python's
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env={**os.environ, SLOT: str(slot)},
            start_new_session=True,  # Ctrl-C is for us alone: a second one would end it without a checkpoint
        )
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    @property
    def elapsed(self) -> float:
        """Seconds since the process began."""
        return time.monotonic() - self.began

    def explain(self) -> str:
        """Say why the process failed, in its own words if it had any."""
        self.reader.join(1)  # and no longer: W&B's process may hold the pipe open
        code, said = self.process.returncode, list(self.lines)
        starts = [i for i, line in enumerate(said) if line.startswith("infty: ") and "infty: warning: " not in line]
        own = "\n".join(said[starts[-1] :]).removeprefix("infty: ") if starts else ""
        if number := BY_SIGNAL.get(code, max(0, -code)):
            memory = ", as the system does where memory runs out" if number == signal.SIGKILL else ""
            return f"stopped by a signal ({signal.strsignal(number)}{memory}){own and f': {own}'}"
        return own or (said[-1] if said else f"ended with {code} and said nothing")

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stderr:
            for line in stderr:
                if words := line.rstrip():
                    self.lines.append(one_line(words, 1000))


class _Forwarding(StopSignals):
    """Handlers that pass every signal on to the processes that run; `received` is the first."""

    def __init__(self, children: list[_Child]) -> None:
        super().__init__()
        self.children = children

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._begin_to_stop(self.received or number)
        for child in self.children:
            child.process.send_signal(number)


class _Work:
    """The processes, `jobs` at once, and the screen."""

    def __init__(self, tables: Tables, jobs: int) -> None:
        self.tables, self.jobs = tables, jobs
        self.children: list[_Child] = []
        self.total = len(tables.missing)
        columns = (TextColumn("{task.completed}/{task.total} cells"), BarColumn(bar_width=None))
        self.bar = Progress(*columns, TextColumn("about {task.fields[left]} left"), console=screen())
        self.task = self.bar.add_task("", total=self.total, left="?")

    def run(self) -> None:
        """Run cells until nothing is missing or running. After a signal nothing begins; raises Stopped at the end."""
        live = Live(get_renderable=self._draw, console=screen(), transient=True)
        with live if screen().is_terminal else contextlib.nullcontext(), _Forwarding(self.children) as stop:
            try:
                while self.children or (self.tables.missing and stop.received is None):
                    self._begin(stop)
                    time.sleep(PAUSE)
                    self._collect(stopping=stop.received is not None)
            finally:  # no process is left behind by a fault of our own
                for child in self.children:
                    child.process.terminate()
                for child in self.children:
                    child.process.wait()
        if stop.received is not None:
            trained = len(self.tables.trained)
            counts = f"{format_cells(trained)} trained, {self.total - trained} not; the same command continues"
            raise Stopped(f"stopped by {signal.Signals(stop.received).name}: {counts}", stop.received)

    def _begin(self, stop: StopSignals) -> None:
        while self.tables.missing and len(self.children) < self.jobs and stop.received is None:
            job = self.tables.missing.pop(0)
            if not self.tables.is_open(job):  # another process was here meanwhile
                continue
            if not screen().is_terminal:
                logger.info(f"{job}: training")
            taken = {child.slot for child in self.children}
            self.children.append(child := _Child(job, min(set(range(self.jobs)) - taken)))
            if stop.received is not None:  # it came before the process was in the list
                child.process.send_signal(stop.received)

    def _collect(self, *, stopping: bool) -> None:
        """Note the processes that have ended, and log a line on each."""
        for child in [child for child in self.children if child.process.poll() is not None]:
            self.children.remove(child)
            said, ended = self._note_outcome(child, stopping), f"[{self._count_ended()} of {self.total}] {child.job}"
            if child.process.returncode == MissingError.exit_code:
                said += self._leave_out_like(child.job)
            logger.info(f"{ended}: {said}; about {self._format_left()} left")

    def _note_outcome(self, child: _Child, stopping: bool) -> str:
        """Note how a process ended, and describe it."""
        tables, job, code = self.tables, child.job, child.process.returncode
        try:
            if code == 0:
                return self._note_result(child)
            if stopping and code in (*BY_SIGNAL, *(-number for number in BY_SIGNAL.values())):
                tables.missing.insert(0, job)
                return "stopped"
            if code == UsageError.exit_code and not tables.is_open(job):  # both began it at the same moment
                return "another process was quicker"
            why, code = child.explain(), code if code > 0 else 128 - code
        except MissingError as fault:  # it ended well, but its result can't be read
            why, code = str(fault), fault.exit_code
        tables.fail(job, why, code)
        return f"failed: {one_line(why.splitlines()[0])}"

    def _note_result(self, child: _Child) -> str:
        """Note the result of a process, and describe it. Raises MissingError if it is not there or damaged."""
        tables, job, elapsed = self.tables, child.job, child.elapsed
        result = RunFolder(tables.runs / job.cell.folder).result()
        tables.trained.append(job)
        tables.seconds[job.cell] = result.wall_seconds
        tables.took.append(elapsed)
        tables.beside.append(max(0.0, elapsed - result.wall_seconds))
        name = next(name for name in SHOWN if result.find_metric(name) is not None)
        return f"done in {format_time(elapsed)}, {name} {result.metric(name):.4f}"

    def _leave_out_like(self, job: Job) -> str:
        """Leave out the cells that lack the same data, and say how many."""
        if any(RunFolder(self.tables.runs / job.cell.folder).checkpoints.glob("step-*")):  # it had begun: its own fault
            return ""
        column = (job.cell.experiment, job.cell.case)
        alike = [other for other in self.tables.missing if (other.cell.experiment, other.cell.case) == column]
        self.tables.missing = [other for other in self.tables.missing if other not in alike]
        self.tables.leave_out(alike, f"would fail like {job}")
        return f"; {format_cells(len(alike))} left out that would fail alike" if alike else ""

    def _count_ended(self) -> int:
        return self.total - len(self.tables.missing) - len(self.children)

    def _format_left(self) -> str:
        running = [(child.job.cell, child.elapsed) for child in self.children]
        return format_time(self.tables.predict_all(self.jobs, running))

    def _draw(self) -> Group:
        self.bar.update(self.task, completed=self._count_ended(), left=self._format_left())
        lines = [f"  {child.job}: {child.lines[-1] if child.lines else 'begins'}" for child in list(self.children)]
        return Group(self.bar, *(Text(line, no_wrap=True, overflow="ellipsis") for line in lines))

"""Agreement of several processes before they train one run: who writes, in which folder, and from which step on."""

import contextlib
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import Timeout

from infty.base.errors import BusyError, MissingError
from infty.base.files import write_text
from infty.runs.folder import RunFolder
from infty.tasks.task import Task
from infty.training.checkpoint import Checkpoint
from infty.training.distributed import Group

LATE = 15  # seconds that a network's file system may take to show one machine what another has written


@contextlib.contextmanager
def hold_lock(run: RunFolder, group: Group) -> Iterator[None]:
    """Hold the lock on a run folder within the block. Raises BusyError in all processes if another one holds it.

    If nothing was written, as after a refusal, no folder stays that was made for it.
    """
    with contextlib.ExitStack() as stack:
        busy = False
        if group.leads:
            made = [folder for folder in (run.path, *run.path.parents) if not folder.exists()]
            run.path.mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(run.lock())
                stack.callback(_remove_unused, run.path, made)
            except Timeout:
                busy = True
        if group.is_true_anywhere(busy):
            raise BusyError(f"another process is training in {run.path}; wait, or use --name for a second run")
        yield


def _remove_unused(path: Path, made: list[Path]) -> None:
    """Remove folders that were made for a run, innermost first, as far as they hold nothing but its lock."""
    with contextlib.suppress(OSError):  # no more than tidiness
        if made and [file.name for file in path.iterdir()] == [".lock"]:
            (path / ".lock").unlink()
        for folder in made:
            folder.rmdir()


def refuse_other_folders(group: Group, run: RunFolder) -> None:
    """Raise MissingError if a process does not see what the one that leads writes to the run folder."""
    if group.size == 1:
        return
    file, mark = run.path / ".together", group.find_largest(secrets.randbelow(2**62) if group.leads else 0)
    if group.leads:
        write_text(file, str(mark))
    group.wait()
    seen = any(_has_mark(file, mark) or time.sleep(1) for _ in range(LATE))  # a network's file system may take a moment
    missing = group.is_true_anywhere(not seen)
    if group.leads:
        file.unlink()
    if missing:
        raise MissingError(f"not all processes see the same {run.path}: --runs must be on a disk that they all share")


def _has_mark(file: Path, mark: int) -> bool:
    try:
        return file.read_text(encoding="utf-8") == str(mark)
    except OSError:
        return False


def refuse_split_data(group: Group, resume: Checkpoint | None, task: Task) -> None:
    """Raise MissingError if processes would not go on from the same step, or with the same text."""
    if group.size == 1:
        return
    text = int(task.digest[:15], 16) if task.digest else 0
    same = [group.is_same_everywhere(resume.state.step if resume else 0), group.is_same_everywhere(text)]
    if not all(same):
        raise MissingError(
            "the processes do not see the same checkpoints and texts: all machines must share --runs and data"
        )


def is_held(run: RunFolder) -> bool:
    """Tell if another process still holds the lock, after a minute's wait at most."""
    try:
        with run.lock().acquire(timeout=60):
            return False
    except Timeout:
        return True

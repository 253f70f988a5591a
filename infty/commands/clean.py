"""`infty clean`: remove the files of finished runs that no report needs. Imports no torch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infty.base.errors import LONG, UsageError, one_line
from infty.base.files import remove_folder
from infty.base.table import Table
from infty.report.load.collect import find_tunings
from infty.runs.folder import BASE, RunFolder, find_run, find_runs, trials_folder

PARTS = {"checkpoints": "checkpoints", "wandb": "W&B", "not-finite": "not finite"}  # folders of a run: their names
WHOLE = "."  # a trial is removed with its whole folder


@dataclass(frozen=True)
class Dispensable:
    """Files that can be removed. parts: bytes by the run's or trial's folder, and by the folder in it."""

    parts: dict[Path, dict[str, int]]

    @property
    def bytes(self) -> int:
        """Bytes of all that can be removed."""
        return sum(sum(sizes.values()) for sizes in self.parts.values())

    def document(self) -> dict[str, Any]:
        """Describe for JSON what can be removed, with its bytes."""
        runs = [{"run": str(path), "bytes": sizes} for path, sizes in self.parts.items() if WHOLE not in sizes]
        trials = [{"trial": str(path), "bytes": sizes[WHOLE]} for path, sizes in self.parts.items() if WHOLE in sizes]
        return {"runs": runs, "trials": trials, "bytes": self.bytes}

    def table(self, *, removed: bool) -> Table:
        """Make a table of megabytes with a row per run, and notes on what removing them means."""
        rows = []
        for path, sizes in self.parts.items():
            megabytes = [f"{sizes[part] / 1e6:,.1f}" if part in sizes else "–" for part in (*PARTS, WHOLE)]
            rows.append(["/".join(path.parts[-4:]), *megabytes])
        total = f"{self.bytes / 1e6:,.1f} MB"
        notes = [f"{total} removed." if removed else f"{total} in all. To remove them: infty clean --yes"]
        if not rows:
            notes = ["Nothing here that a report does not need."]
        elif not removed:
            notes.append(
                "Reports stay as they are. Without its checkpoints a run can't be evaluated, exported or write a text "
                "again; without W&B's files it can't be uploaded. Runs that are not finished, and weights that others "
                "start from, are left alone."
            )
        return Table("not needed for a report, megabytes", ["run", *PARTS.values(), "trial"], rows, notes)


def find_dispensable(runs: Path, names: Sequence[str]) -> Dispensable:
    """Find what can be removed of the named runs, else of finished runs and trials. UsageError if one isn't done."""
    named = [find_run(name, runs) for name in names]
    for run in named:
        if not _is_done(run):
            raise UsageError(f"{run.path} is not finished: its checkpoints are needed to go on")
    others = (run for run in find_runs([runs]) if not run.path.parent.name.startswith(f"{BASE}@"))
    found = named or [run for run in others if _is_done(run)]
    sizes = {run.path: {part: size for part in PARTS if (size := _sum(run.path / part))} for run in found}
    trials = {} if named else {path: {WHOLE: _sum(path)} for path in _find_trials(runs)}
    return Dispensable({path: parts for path, parts in sizes.items() if parts} | trials)


def remove(found: Dispensable) -> tuple[Dispensable, list[str]]:
    """Remove what was found; return what is removed, and a line on each part that can't be. The next call finds it."""
    removed: dict[Path, dict[str, int]] = {}
    faults = list[str]()
    for path, sizes in found.parts.items():
        for part, size in sizes.items():
            try:
                remove_folder(path / part)
                removed.setdefault(path, {})[part] = size
            except OSError as fault:
                faults.append(one_line(f"{fault.filename or path / part}: {fault.strerror or fault}", LONG))
    return Dispensable(removed), faults


def _is_done(run: RunFolder) -> bool:
    return run.state() == "done" and not run.is_locked()


def _find_trials(runs: Path) -> Iterator[Path]:
    """Find the trials of columns whose record is written, which a report reads instead of them."""
    for (experiment, scale), columns in find_tunings([runs]).items():
        for trial in find_runs([trials_folder(runs) / experiment / scale]):
            column = trial.path.parent.name.partition("+")[0].rpartition("@")[2]
            if column in columns and not trial.is_locked():
                yield trial.path


def _sum(folder: Path) -> int:
    """Sum the bytes of all files in a folder; 0 if there is none."""
    return sum(file.lstat().st_size for file in folder.rglob("*") if not file.is_dir())

"""`infty clean`: removing what finished runs keep on disk and no report needs. Imports no torch."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infty.base.errors import UsageError
from infty.base.table import Table
from infty.report.load.collect import find_tunings
from infty.runs.folder import BASE, RunFolder, find_run, find_runs, trials_folder

PARTS = {"checkpoints": "checkpoints", "wandb": "W&B", "not-finite": "not finite"}  # folders of a run: their names


@dataclass(frozen=True)
class Dispensable:
    """Files that can go. parts: of each run the bytes of its folders that hold some; trials: of each trial's folder."""

    parts: dict[Path, dict[str, int]]
    trials: dict[Path, int]

    @property
    def bytes(self) -> int:
        """Bytes of all that can go."""
        return sum(sum(sizes.values()) for sizes in self.parts.values()) + sum(self.trials.values())

    def document(self) -> dict[str, Any]:
        """Return what can go as JSON holds it, with its bytes."""
        runs = [{"run": str(path), "bytes": sizes} for path, sizes in self.parts.items()]
        trials = [{"trial": str(path), "bytes": size} for path, size in self.trials.items()]
        return {"runs": runs, "trials": trials, "bytes": self.bytes}

    def table(self, *, removed: bool) -> Table:
        """Make a table with a row per run, in megabytes, and what follows from removing it."""
        rows = [
            [_name(path), *(_megabytes(sizes.get(part)) for part in PARTS), "–"] for path, sizes in self.parts.items()
        ]
        rows += [[_name(path), *["–"] * len(PARTS), _megabytes(size)] for path, size in self.trials.items()]
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
    """Find what can go of the runs named; if none is, of all finished runs, and trials whose outcome is recorded.

    UsageError for a run that is at work or is not finished, MissingError for one that is not there.
    """
    named = [find_run(name, runs) for name in names]
    for run in named:
        if not _is_done(run):
            raise UsageError(f"{run.path} is not finished: its checkpoints are needed to go on")
    found = named or [run for run in find_runs([runs]) if not _starts_others(run) and _is_done(run)]
    parts = {run.path: sizes for run in found if (sizes := _sizes(run.path))}
    return Dispensable(parts, {} if named else dict(_trials(runs)))


def remove(found: Dispensable) -> None:
    """Remove all of it. OSError if that fails: what was not removed is found again."""
    for path, sizes in found.parts.items():
        for part in sizes:
            shutil.rmtree(path / part)
    for path in found.trials:
        shutil.rmtree(path)


def _is_done(run: RunFolder) -> bool:
    return run.state() == "done" and not run.is_locked()


def _starts_others(run: RunFolder) -> bool:
    return run.path.parent.name.startswith(f"{BASE}@")


def _sizes(path: Path) -> dict[str, int]:
    return {part: size for part in PARTS if (path / part).is_dir() and (size := _bytes(path / part))}


def _trials(runs: Path) -> Iterator[tuple[Path, int]]:
    """Find trials, and their bytes, of columns whose record is written: a report reads that instead of them."""
    for (experiment, scale), columns in find_tunings([runs]).items():
        for trial in find_runs([trials_folder(runs) / experiment / scale]):
            column = trial.path.parent.name.partition("+")[0].rpartition("@")[2]
            if column in columns and not trial.is_locked():
                yield trial.path, _bytes(trial.path)


def _bytes(path: Path) -> int:
    return sum(file.lstat().st_size for file in path.rglob("*") if not file.is_dir())


def _name(path: Path) -> str:
    return "/".join(path.parts[-4:])


def _megabytes(size: int | None) -> str:
    return "–" if size is None else f"{size / 1e6:,.1f}"

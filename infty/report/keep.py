"""Copies of what a report needs of runs, where it can be committed: small files, without weights."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from infty.base.errors import MissingError, UsageError, one_line
from infty.base.files import replace_folder, write_text
from infty.report.load.collect import find_tunings
from infty.runs.folder import RECORDS, RunFolder, find_finished_runs
from infty.runs.metrics import read_lines

LINES = 100  # of training that are kept, evenly spaced; those of validations and the test are all kept


def keep_runs(folders: Sequence[Path], target: Path) -> list[Path]:
    """Copy every finished run in `folders` to `target/<scale>/<experiment>/<row>@<column>/seed-N`; return these.

    An earlier copy of the same cell and seed is replaced.

    Raises:
        MissingError: There is no run, or one is damaged; nothing is copied.
        UsageError: The target lies in one of the folders, where a report would find runs and copies.
    """
    if inside := [folder for folder in folders if folder.resolve() in (target.resolve(), *target.resolve().parents)]:
        raise UsageError(f"--keep {target} lies in {inside[0]}, which is reported on: choose a folder outside of it")
    runs = [run.read() for run in find_finished_runs(folders)]
    places = [target / run.key.scale / run.key.experiment / Path(*run.key.folder.parts[-2:]) for run in runs]
    if double := next((place for place in places if places.count(place) > 1), None):
        raise MissingError(f"{one_line(str(double))} would be kept twice: name the folder of one of them")
    for run, place in zip(runs, places, strict=True):
        _keep(run.folder, place)
    for (experiment, scale), columns in find_tunings(folders).items():
        if (target / scale / experiment).is_dir():
            for path, _ in columns.values():
                shutil.copyfile(path, target / scale / experiment / path.name)
    return places


def _keep(run: RunFolder, place: Path) -> None:
    """Copy one run's files; what was kept before stays until all of the new is there."""
    with replace_folder(place) as aside:
        (aside / "eval").mkdir()
        for file in (*RECORDS, *(f"eval/{path.name}" for path in sorted((run.path / "eval").glob("*.json")))):
            if (run.path / file).is_file():
                shutil.copyfile(run.path / file, aside / file)
        if run.metrics.is_file():
            write_text(aside / "metrics.jsonl", _thin(read_lines(run.metrics)))


def _thin(lines: list[dict[str, Any]]) -> str:
    """Keep fewer lines of training, the first and the last among them."""
    training = [number for number, line in enumerate(lines) if "train/loss" in line]
    step = (len(training) - 1) / (LINES - 1)
    kept = {training[round(i * step)] for i in range(LINES)} if len(training) > LINES else set(training)
    dropped = set(training) - kept
    return "".join(json.dumps(line) + "\n" for number, line in enumerate(lines) if number not in dropped)

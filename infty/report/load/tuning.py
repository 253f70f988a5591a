"""Tunings that `infty tune` recorded, read back."""

import warnings
from collections.abc import Iterable
from pathlib import Path

from infty.base.errors import MissingError
from infty.runs.schemas import Tuning


def find_tunings(folders: Iterable[Path]) -> dict[tuple[str, str], dict[str, tuple[Path, Tuning]]]:
    """Find files and their tunings by experiment and scale, then column; damaged ones are left out with a warning."""
    found: dict[tuple[str, str], dict[str, tuple[Path, Tuning]]] = {}
    for path in sorted(file for folder in folders for file in folder.rglob("tuning-*.json")):
        try:
            tuning = Tuning.read(path, "tune again with infty tune")
        except MissingError as fault:
            warnings.warn(f"{path} is left out: {fault}", stacklevel=2)
            continue
        found.setdefault((tuning.experiment, tuning.scale), {}).setdefault(tuning.case, (path, tuning))
    return found

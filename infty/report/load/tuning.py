"""Tunings that `infty tune` recorded, read back."""

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from infty.base.errors import MissingError
from infty.runs.schemas import Tuning

AGAIN = "tune again with infty tune"


def find_tunings(folders: Iterable[Path]) -> dict[tuple[str, str], dict[str, tuple[Path, dict[str, Any]]]]:
    """Files and what they say, by experiment and scale, then column; damaged ones are left out with a warning."""
    found: dict[tuple[str, str], dict[str, tuple[Path, dict[str, Any]]]] = {}
    for path in sorted(file for folder in folders for file in folder.rglob("tuning-*.json")):
        try:
            tuning = Tuning.read(path, AGAIN)
        except MissingError as fault:
            warnings.warn(f"{path} is left out: {fault}", stacklevel=2)
            continue
        columns = found.setdefault((tuning.experiment, tuning.scale), {})
        columns.setdefault(tuning.case, (path, tuning.dump()))
    return found

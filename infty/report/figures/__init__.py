"""Draw the pictures that changed: the sum of what each was drawn from is kept beside them."""

import hashlib
import json
import logging
import os
from contextlib import chdir, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infty.base.errors import MissingError
from infty.base.files import read_json, sha256, write_json
from infty.report.figures.data import Chart, make_charts
from infty.report.load.results import ResultSet
from infty.runs.schemas import MemoryTrace

SUMS = ".pictures.json"
# Ignore warnings: matplotlib's are about its folders, and it uses another if it can't write to its own.
logging.getLogger("matplotlib").addFilter(lambda record: record.levelno > logging.WARNING)


@dataclass(frozen=True)
class Picture:
    """A picture that belongs to a table: a chart, or the trace of a run's memories."""

    stem: str
    title: str
    shows: Chart | MemoryTrace

    def draw(self, stem: Path) -> list[Path]:
        """Draw the picture; importing matplotlib, here, takes a second."""
        _import_matplotlib()
        from infty.report.figures.drawing import draw_chart, draw_memory

        if isinstance(self.shows, Chart):
            return draw_chart(self.shows, stem)
        return draw_memory(self.shows, self.title, stem)

    def sum(self) -> str:
        """Hash all that it is drawn from, the drawing code included, by SHA-256."""
        shows = vars(self.shows) if isinstance(self.shows, Chart) else self.shows.model_dump()
        code = sha256(Path(__file__).with_name("drawing.py"))
        return hashlib.sha256(json.dumps([self.title, shows, code]).encode()).hexdigest()


def _import_matplotlib() -> None:
    """Import matplotlib without its user's settings and without the backend that a notebook hands on."""
    # It reads a `matplotlibrc` of the working folder first, then the one that MATPLOTLIBRC names, and fails at some.
    os.environ.update(MPLBACKEND="agg", MATPLOTLIBRC=os.devnull)
    with chdir(Path(__file__).parent):
        import matplotlib  # noqa: F401


def make_pictures(results: ResultSet) -> list[Picture]:
    """Make the charts and, for each cell whose memories were traced, a picture of its first seed."""
    charts = make_charts(results)
    found = [Picture(f"{results.name}-{c.name}", f"{c.title}: {c.y} by {c.x}", c) for c in charts]
    for model, case, runs in results.cells():
        traces = [(run.key.seed, run.trace) for run in runs if run.trace and model in results.rows]
        for seed, trace in traces[:1]:
            place = results.place(model, case)
            stem = f"{results.name}-{place.replace(', ', '-')}-memory"
            found.append(Picture(stem, f"{results.title}, {place}, seed {seed}: memory", trace))
    return found


def draw(sets: dict[str, list[Picture]], folder: Path) -> list[Path]:
    """Draw new and changed pictures, and remove those that a set, by its name, no longer has. Return all files."""
    before: dict[str, Any] = {}
    now, files = {}, []
    with suppress(MissingError):  # if the sums can't be read, all are drawn
        before = read_json(folder / SUMS)
    for picture in [picture for pictures in sets.values() for picture in pictures]:
        paths, now[picture.stem] = _paths(folder, picture.stem), picture.sum()
        if before.get(picture.stem) != now[picture.stem] or not all(path.is_file() for path in paths):
            picture.draw(folder / picture.stem)
        files += paths
    gone = {stem for stem in before if stem not in now and any(stem.startswith(f"{name}-") for name in sets)}
    for path in [path for stem in gone if "/" not in stem for path in _paths(folder, stem)]:
        path.unlink(missing_ok=True)
    after = {stem: found for stem, found in before.items() if stem not in gone} | now
    if not after:
        (folder / SUMS).unlink(missing_ok=True)
    elif after != before:
        write_json(folder / SUMS, after)
    return files


def _paths(folder: Path, stem: str) -> list[Path]:
    return [folder / f"{stem}.{kind}" for kind in ("svg", "png")]

"""Draws pictures where they changed: what each was drawn from is kept beside them, as a sum."""

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infty.base.errors import MissingError
from infty.base.files import read_json, sha256, write_json
from infty.report.figures.data import Chart, all_charts
from infty.report.load.results import ResultSet

SUMS = ".pictures.json"


@dataclass(frozen=True)
class Picture:
    """One that belongs to a table: a chart, or what a look into a memory saw."""

    stem: str
    title: str
    shows: Chart | dict[str, Any]

    def draw(self, stem: Path) -> list[Path]:
        """Imports what draws: that takes a second."""
        logging.getLogger("matplotlib").addFilter(_unsaid)
        if isinstance(self.shows, Chart):
            from infty.report.figures.lines import draw_chart

            return draw_chart(self.shows, stem)
        from infty.report.figures.memory import draw_memory

        return draw_memory(self.shows, self.title, stem)

    def sum(self) -> str:
        """SHA-256 of all that it is drawn from, the code that draws included."""
        shows = vars(self.shows) if isinstance(self.shows, Chart) else self.shows
        code = [sha256(Path(__file__).with_name(f"{name}.py")) for name in ("lines", "memory")]
        return hashlib.sha256(json.dumps([self.title, shows, code]).encode()).hexdigest()


def _unsaid(record: logging.LogRecord) -> bool:
    """What matplotlib itself logs is of its folders: that it uses another one where there is no home to write to."""
    return record.levelno > logging.WARNING


def all_pictures(results: ResultSet) -> list[Picture]:
    """Charts, and for each cell whose memory was looked into its first seed's."""
    found = [Picture(f"{results.name}-{chart.name}", chart.about, chart) for chart in all_charts(results)]
    for case in results.cases:
        for model in results.rows:
            seen = [run for run in results.of(model, case) if run.memory]
            if seen and seen[0].memory:
                name, title = results.place(model, case), f"{results.title}, {results.place(model, case)}"
                stem = f"{results.name}-{name.replace(', ', '-')}-memory"
                found.append(Picture(stem, f"{title}, seed {seen[0].cell.seed}: memory", seen[0].memory))
    return found


def draw(sets: dict[str, list[Picture]], folder: Path) -> list[Path]:
    """Draw what is not there yet, or is of other data; what a set had before and has no more is removed.

    sets: pictures by the name of their set. Returns the files of all.
    """
    before, now, files = _read_sums(folder / SUMS), {}, []
    for picture in [picture for pictures in sets.values() for picture in pictures]:
        paths, now[picture.stem] = _paths(folder, picture.stem), picture.sum()
        if before.get(picture.stem) != now[picture.stem] or not all(path.is_file() for path in paths):
            picture.draw(folder / picture.stem)
        files += paths
    gone = {stem for stem in before if stem not in now and any(stem.startswith(f"{name}-") for name in sets)}
    for path in [path for stem in gone if "/" not in stem for path in _paths(folder, stem)]:
        path.unlink(missing_ok=True)
    after = {stem: found for stem, found in before.items() if stem not in gone} | now
    if after and after != before:
        write_json(folder / SUMS, after)
    elif not after:
        (folder / SUMS).unlink(missing_ok=True)
    return files


def _paths(folder: Path, stem: str) -> list[Path]:
    return [folder / f"{stem}.{kind}" for kind in ("svg", "png")]


def _read_sums(path: Path) -> dict[str, Any]:
    """Empty where there are none, or they can't be read: then all are drawn."""
    try:
        return read_json(path)
    except MissingError:
        return {}

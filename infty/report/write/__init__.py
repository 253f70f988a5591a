"""Reports as Markdown, LaTeX, CSV and HTML."""

from dataclasses import dataclass

from infty.base.table import Table
from infty.report.figures import Picture
from infty.report.load.results import ResultSet


@dataclass(frozen=True)
class Part:
    """A set of runs with what was made of it."""

    results: ResultSet
    tables: list[Table]
    pictures: list[Picture]

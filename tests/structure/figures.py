"""The figures that a rebuilding of infty is measured by, each with the mark that it should reach."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.structure.imports import ImportGraph, read_imports
from tests.structure.indexing import string_indexes
from tests.structure.kinds import branches_on_kind
from tests.structure.sizes import LONG, NAMED_STAGES, count_lines, long_functions
from tests.structure.source import Place, Source, read_sources
from tests.structure.words import docstrings, named_functions, participle_functions, question_docstrings

Number = int | float
TOP = 16  # packages and modules at the top of infty/
PAIRS = 60
KINDS = 3
LINES = 15_300
README_BYTES = 13_000


@dataclass(frozen=True)
class Figure:
    """One figure: `value` is what was counted, `shown` how it is printed, `mark` what it should be.

    reached: None if there is no mark. places: where in the code what was counted stands.
    """

    name: str
    value: Number | None
    shown: str
    mark: str = ""
    reached: bool | None = None
    places: Sequence[Place] = ()


def static_figures(tree: Path) -> list[Figure]:
    """Measure what the files of a tree tell without being run."""
    sources = read_sources(tree)
    return [
        *import_figures(read_imports(sources)),
        at_most("branches on a kind outside tasks, model, memory", KINDS, branches_on_kind(sources)),
        at_most("string-indexed readings in report and check", 0, string_indexes(sources)),
        *line_figures(tree, sources),
        share("docstrings that begin with a question word", question_docstrings(sources), docstrings(sources), 0.02),
        share("functions named by a participle", participle_functions(sources), named_functions(sources), 0.005),
        _stage_figure(sources),
        *_readme_figure(tree / "README.md"),
    ]


def import_figures(graph: ImportGraph) -> list[Figure]:
    """Measure the packages at the top of infty/ and the imports between them."""
    top, pairs, circles = len(graph.imports), len(graph.pairs), graph.circles
    listed = "; ".join(" ↔ ".join(circle) for circle in circles) or "none"
    return [
        Figure("packages and modules at the top", top, f"{top}", f"≤ {TOP}", top <= TOP),
        Figure("ordered pairs of imports between them", pairs, f"{pairs}", f"≤ {PAIRS}", pairs <= PAIRS),
        Figure("circles of imports between them", len(circles), listed, "none", not circles),
    ]


def line_figures(tree: Path, sources: list[Source]) -> list[Figure]:
    """Measure the lines of infty/ and of the tests."""
    code, raw = count_lines(sources)
    tests, raw_tests = count_lines(read_sources(tree, "tests"))
    return [
        Figure("lines of infty/ without comment lines", code, f"{code:,} ({raw:,} raw)", f"≤ {LINES:,}", code <= LINES),
        Figure("lines of tests/ without comment lines", tests, f"{tests:,} ({raw_tests:,} raw)"),
    ]


def at_most(name: str, mark: int, places: Sequence[Place]) -> Figure:
    """Count places that should be few."""
    return Figure(name, len(places), f"{len(places)}", f"≤ {mark}" if mark else "0", len(places) <= mark, places)


def share(name: str, places: Sequence[Place], of: Sequence[object], mark: float) -> Figure:
    """Count places as a share of all that could be counted, from 0 to 1."""
    value = len(places) / max(len(of), 1)
    shown = f"{value:.1%} ({len(places):,} of {len(of):,})"
    return Figure(name, round(value, 4), shown, f"< {mark:.1%}", value < mark, places)


def _stage_figure(sources: list[Source]) -> Figure:
    """Measure the share of long functions whose stages have comments; those without are its places."""
    found = long_functions(sources)
    bare = [place for place, comments in found if comments < NAMED_STAGES]
    value = 1 - len(bare) / len(found) if found else 1.0
    shown = f"{value:.0%} ({len(found) - len(bare)} of {len(found)})"
    return Figure(f"functions over {LONG} lines with comments to their stages", value, shown, "all", not bare, bare)


def _readme_figure(path: Path) -> list[Figure]:
    """Measure README.md in bytes, if there is one."""
    if not path.is_file():
        return []
    size = path.stat().st_size
    return [Figure("bytes of README.md", size, f"{size:,}", f"≤ {README_BYTES:,}", size <= README_BYTES)]

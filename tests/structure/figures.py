"""The figures that a rebuilding of infty is measured by, each with the mark that it should reach."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.structure import words
from tests.structure.first_step import Step, count_ascents, find_climbs, find_visits, follow_calls, record_calls
from tests.structure.imports import ImportGraph, read_imports
from tests.structure.indexing import find_string_indexes
from tests.structure.kinds import find_branches_on_kind
from tests.structure.sizes import LONG, NAMED_STAGES, count_lines, find_long_functions
from tests.structure.source import Place, Source, read_sources


@dataclass(frozen=True)
class Figure:
    """One figure: `value` is the count or the share from 0 to 1, `text` how it is printed, `mark` what it should be.

    reached: None if there is no mark. places: where in the code what was counted stands.
    """

    name: str
    value: float | None
    text: str
    mark: str = ""
    reached: bool | None = None
    places: Sequence[Place] = ()


def measure_files(tree: Path) -> list[Figure]:
    """Measure what the files of a tree tell without being run."""
    sources = read_sources(tree)
    docstrings, functions = words.collect_docstrings(sources), words.collect_functions(sources)
    questions, participles = words.find_questions(sources), words.find_participles(sources)
    return [
        *measure_imports(read_imports(sources)),
        measure_branches(sources),
        _compare("string-indexed readings in report and check", 0, find_string_indexes(sources)),
        *measure_lines(tree, sources),
        measure_share("docstrings that begin with a question word", questions, len(docstrings), 0.02),
        measure_share("functions named by a participle", participles, len(functions), 0.005),
        measure_stages(sources),
        *measure_readme(tree / "README.md"),
    ]


def measure_imports(graph: ImportGraph) -> list[Figure]:
    """Measure the packages at the top of infty/ and the imports between them."""
    circles = graph.circles
    text = "; ".join(" ↔ ".join(circle) for circle in circles) or "none"
    return [
        _compare("packages and modules at the top", 16, len(graph.imports)),
        _compare("ordered pairs of imports between them", 60, len(graph.pairs)),
        Figure("circles of imports between them", len(circles), text, "none", not circles),
    ]


def measure_branches(sources: list[Source]) -> Figure:
    """Measure the branches on a kind, and how many of them are on a task's."""
    branches = find_branches_on_kind(sources)
    on_task = sum(branch.owner == "tasks" for branch in branches)
    places = [branch.place for branch in branches]
    text = f"{len(branches)} ({on_task} on a task's)"
    return Figure(
        "branches on a kind outside tasks, model, memory", len(branches), text, "≤ 3", len(branches) <= 3, places
    )


def measure_lines(tree: Path, sources: list[Source]) -> list[Figure]:
    """Measure the lines of infty/ and of the tests."""
    code, raw = count_lines(sources)
    tests, raw_tests = count_lines(read_sources(tree, "tests"))
    return [
        Figure("lines of infty/ but for comment lines", code, f"{code:,} ({raw:,} raw)", "≤ 15,300", code <= 15_300),
        Figure("lines of tests/ but for comment lines", tests, f"{tests:,} ({raw_tests:,} raw)"),
    ]


def measure_share(name: str, places: Sequence[Place], total: int, mark: float) -> Figure:
    """Measure places as a share of all that could be counted; `mark`, from 0 to 1, should not be reached."""
    value = len(places) / max(total, 1)
    text = f"{value:.1%} ({len(places):,} of {total:,})"
    return Figure(name, round(value, 4), text, f"< {mark:.1%}", value < mark, places)


def measure_stages(sources: list[Source]) -> Figure:
    """Measure the share of long functions that have comments to their stages; its places are those that have none."""
    found = find_long_functions(sources)
    bare = [place for place, comments in found if comments < NAMED_STAGES]
    value = 1 - len(bare) / len(found) if found else 1.0
    text = f"{value:.0%} ({len(found) - len(bare)} of {len(found)})"
    return Figure(f"functions over {LONG} lines with comments to stages", round(value, 4), text, "all", not bare, bare)


def measure_readme(path: Path) -> list[Figure]:
    """Measure README.md in bytes, if there is one."""
    return [_compare("bytes of README.md", 13_000, path.stat().st_size)] if path.is_file() else []


def measure_way(tree: Path) -> list[Figure]:
    """Run a cell to its first step and measure the way that its calls take through infty."""
    sources = read_sources(tree)
    levels = read_imports(sources).levels
    try:
        way = list(follow_calls(record_calls(tree), sources))
    except RuntimeError as fault:
        return [Figure("visits to packages before the first step", None, str(fault).splitlines()[-1], "≤ 25", False)]
    climbs = [step.locate() for step in find_climbs(way, levels)]
    visits, visited = _measure_visits(way, by_module=False)
    visits_to_modules, modules = _measure_visits(way, by_module=True)
    return [
        _compare("visits to packages before the first step", 25, visits),
        _compare("packages visited", 14, visited),
        _compare("calls of a package of a higher level", 4, climbs),
        Figure("visits that lie higher than the one before", ascents := count_ascents(way, levels), f"{ascents}"),
        Figure("visits to modules before the first step", len(visits_to_modules), f"{len(visits_to_modules)}"),
        Figure("modules visited", modules, f"{modules}"),
    ]


def _measure_visits(way: list[Step], *, by_module: bool) -> tuple[list[Place], int]:
    """Locate the visits, and count the packages or modules that are visited."""
    found = find_visits(way, by_module=by_module)
    units = {step.callee.name_unit(by_module=by_module) for step in found}
    return [step.locate() for step in found], len(units)


def _compare(name: str, mark: int, found: int | Sequence[Place]) -> Figure:
    """Compare a count, or the number of places, with the most that there should be."""
    value, places = (found, ()) if isinstance(found, int) else (len(found), found)
    return Figure(name, value, f"{value:,}", f"≤ {mark:,}" if mark else "0", value <= mark, places)

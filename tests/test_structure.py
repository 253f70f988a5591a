"""A made-up package of a few files has the figures of structure that one counts by hand."""

from pathlib import Path

import pytest

from tests.structure.figures import Figure, measure_files, measure_way
from tests.structure.imports import read_imports
from tests.structure.source import read_sources
from tests.structure.words import is_participle

FILES = {
    "__init__.py": "",
    "cli.py": '''
        """The command line."""
        from infty import tasks
        from infty.training.loop import run

        def main():
            train()

        def train():
            task = tasks.find_task()
            tasks.load_more()
            if isinstance(task, tasks.SortTask):
                run(task, kept_answer)
            assert isinstance(task, tasks.SortTask)

        def kept_answer():
            """What is kept."""
            return 1
    ''',
    "tasks.py": """
        class SortTask:
            # No state.
            def __init__(self):
                self.kind = self.name

            @property
            def name(self):
                return "sort"

        def find_task():
            return SortTask()

        def load_more():
            return [find_task() for _ in "ab"]
    """,
    "training/loop.py": """
        from typing import TYPE_CHECKING
        from infty.training.step import optimize

        if TYPE_CHECKING:
            from infty.tasks import SortTask

        def run(task, tell):
            match task.kind:
                case "sort":
                    tell()
            optimize(task)
    """,
    "training/step.py": """
        def optimize(task):
            raise AssertionError("the first step is not taken")
    """,
    "report.py": """
        from typing import Literal
        import infty.base as base

        def show(result, kind: Literal["md"]):
            result["seen"] = 1
            return result["metrics"]["loss"], result.get("seed"), result[kind]
    """,
    "base.py": "def told():\n    from infty import report\n    return report\n",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "infty" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            "\n".join(line.removeprefix(" " * 8) for line in text.strip("\n").split("\n")), encoding="utf-8"
        )
    (tmp_path / "README.md").write_bytes(b"x" * 13_001)
    return tmp_path


def by_name(figures: list[Figure]) -> dict[str, Figure]:
    return {figure.name: figure for figure in figures}


def lines_of(figure: Figure) -> list[str]:
    return [f"{place.path.removeprefix('infty/')}:{place.line}" for place in figure.places]


def test_imports_are_counted_wherever_they_stand(tree: Path) -> None:
    graph = read_imports(read_sources(tree))
    below = [("base", "report"), ("cli", "tasks"), ("cli", "training"), ("report", "base"), ("training", "tasks")]
    assert graph.pairs == below
    assert graph.circles == [["base", "report"]]
    assert graph.levels == {"tasks": 0, "base": 0, "report": 0, "training": 1, "cli": 2}


def test_figures_of_files_are_those_counted_by_hand(tree: Path) -> None:
    figures = by_name(measure_files(tree))
    assert figures["packages and modules at the top"].value == 5
    branches = figures["branches on a kind outside tasks, model, memory"]
    assert branches.text == "2 (2 on a task's)"
    assert lines_of(branches) == ["cli.py:11", "training/loop.py:8"]
    assert lines_of(figures["string-indexed readings in report and check"]) == ["report.py:6"] * 3
    raw = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in tree.rglob("*.py"))
    assert figures["lines of infty/ but for comment lines"].value == raw - 1
    assert figures["docstrings that begin with a question word"].text.endswith("(1 of 2)")
    assert lines_of(figures["functions named by a participle"]) == ["base.py:1", "cli.py:15"]
    assert figures["bytes of README.md"].reached is False


def test_long_functions_are_those_of_more_than_25_lines_of_body(tree: Path) -> None:
    bodies = (
        [*["    x = 1"] * 25],
        ["    # First.", *["    x = 1"] * 23, "    # Then.", "    x = 1"],
        ["    x = 1  # one"] * 26,
    )
    text = "\n".join(line for body in bodies for line in ["def go(", "    x,", "):", '    """Go', '    on."""', *body])
    (tree / "infty" / "base.py").write_text(text, encoding="utf-8")
    figure = by_name(measure_files(tree))["functions over 25 lines with comments to stages"]
    assert figure.text == "50% (1 of 2)"
    assert lines_of(figure) == ["base.py:62"]


def test_the_way_to_the_first_step_is_that_of_the_calls(tree: Path) -> None:
    """`load_more` is the same visit as `find_task`, and `optimize` is called within its own package."""
    figures = by_name(measure_way(tree))
    assert [place.text for place in figures["visits to packages before the first step"].places] == [
        "train → train",
        "train → find_task",
        "train → run",
        "run → kept_answer",
    ]
    assert figures["packages visited"].value == 3
    assert lines_of(figures["calls of a package of a higher level"]) == ["cli.py:15"]
    assert figures["visits that lie higher than the one before"].value == 2
    assert figures["modules visited"].value == 4


def test_a_run_that_ends_before_its_first_step_is_said_to(tree: Path) -> None:
    (tree / "infty" / "training" / "step.py").write_text("optimize = print\n", encoding="utf-8")
    assert "was not met" in measure_way(tree)[0].text


@pytest.mark.parametrize("name", ["told", "_shown", "kept_status", "tokens_seen", "joined"])
def test_participles_are_found(name: str) -> None:
    assert is_participle(name)


@pytest.mark.parametrize("name", ["read", "is_shared", "embed", "refuse_damaged", "find_seed", "read_tokens_of"])
def test_verbs_and_questions_are_no_participles(name: str) -> None:
    assert not is_participle(name)

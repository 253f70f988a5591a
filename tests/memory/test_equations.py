"""The page of equations: what it names is there, and each equation that has a quick form says which test holds it."""

import importlib
import inspect
import re
from pathlib import Path

import infty.memory
from infty.memory import equations

ROOT = Path(__file__).parent.parent.parent
PAGE = infty.memory.__doc__ or ""
HELD = re.compile(r"(tests/[\w/]+\.py)::(\w+)")


def sources() -> str:
    paths = [*(ROOT / "infty/memory").rglob("*.py"), *(ROOT / "infty/model/fast").rglob("*.py")]
    return "\n".join(path.read_text(encoding="utf-8") for path in paths)


def test_the_page_has_all_equations_in_order() -> None:
    assert re.findall(r"^\((M\d+)\)", PAGE, re.MULTILINE) == [f"M{number}" for number in range(1, 18)]


def test_everything_that_the_page_names_is_there() -> None:
    named = re.findall(r"\b((?:fast\.)?[a-z_]+)\.([A-Za-z]\w*(?:\.\w+)?)", PAGE)
    assert len(named) > 30
    for module, path in named:
        found = importlib.import_module(f"infty.memory.{module}")
        for name in path.split("."):
            found = getattr(found, name)


def test_every_equation_is_on_the_page() -> None:
    functions = {name: value for name, value in vars(equations).items() if inspect.isfunction(value)}
    own = [name for name, value in functions.items() if value.__module__ == equations.__name__]
    beside = {"normal_density", "place_basis", "split_heads", "join_heads"}  # what the equations are written with
    assert {name for name in own if f"equations.{name}" not in PAGE} == beside


def test_every_test_that_a_comment_names_is_there() -> None:
    named = HELD.findall(sources())
    assert len(named) >= 13
    for path, name in named:
        assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8"), name

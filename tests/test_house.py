"""The drawing of the house: imports point down only. Change both when a better one is found."""

import ast
from pathlib import Path

import infty

ROOT = Path(infty.__file__).parent
MAY_IMPORT: dict[str, str] = {  # a line a room, from the bottom up
    "base": "",
    "memory": "",
    "corpora": "base",
    "config": "base",
    "model": "base memory",
    "tasks": "base corpora",
    "runs": "base config",
    "machine": "base config memory model",
    "evaluation": "base corpora memory model runs tasks",
    "training": "base evaluation machine memory model tasks",
    "report": "base config runs tasks",
    "experiment": "base config corpora model tasks training",
    "commands": "base config corpora evaluation experiment machine memory model report runs tasks training",
    "cli": "base commands config corpora experiment machine report runs tasks",
    "__init__": "commands memory",
    "__main__": "cli",
}
WITHOUT_TORCH = ("config", "runs", "report", "cli", "corpora")


def room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Rooms of infty and other packages that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [f"infty.{a.name}" for a in node.names] if node.module == "infty" else [str(node.module)]
        found |= {".".join(name.split(".")[:2]) if name.startswith("infty.") else name.split(".")[0] for name in names}
    return found


def test_imports_point_down_only() -> None:
    for path in ROOT.rglob("*.py"):
        used = {name.removeprefix("infty.") for name in imported(path) if name.startswith("infty")} - {room(path)}
        allowed = set(MAY_IMPORT[room(path)].split())
        assert used <= allowed, f"{path.relative_to(ROOT)} imports {used - allowed}"


def test_the_memory_needs_torch_jaxtyping_and_pydantic_only() -> None:
    allowed = {"torch", "jaxtyping", "pydantic", "infty.memory"}
    standard = {"abc", "collections", "contextlib", "dataclasses", "functools", "math", "typing", "warnings"}
    for path in (ROOT / "memory").glob("*.py"):
        assert imported(path) <= allowed | standard, path.name


def test_what_lists_and_reports_needs_no_torch() -> None:
    for path in ROOT.rglob("*.py"):
        if room(path) in WITHOUT_TORCH:
            assert "torch" not in imported(path), path.name


def test_files_stay_small() -> None:
    lengths = {
        path.relative_to(ROOT): len(path.read_text(encoding="utf-8").splitlines()) for path in ROOT.rglob("*.py")
    }
    assert {path: length for path, length in lengths.items() if length > 350} == {}


def test_tests_stand_in_folders_named_as_the_packages() -> None:
    tests = Path(__file__).parent
    folders = {path.parent.relative_to(tests) for path in tests.rglob("test_*.py")}
    packages = {path.parent.relative_to(ROOT) for path in ROOT.rglob("__init__.py")}
    assert folders - packages == {Path("reliability")}, "what dies, and on which disk, is of no package alone"

"""The drawing of the house: imports point down only. Change both when a better one is found."""

import ast
from pathlib import Path

import infty

ROOT = Path(infty.__file__).parent
LEAVES = {"errors", "files", "launch", "reasons"}  # know nothing of infty and may be used by every room but the memory
MAY_IMPORT: dict[str, set[str]] = {
    "memory": set(),
    "interfaces": set(),
    "errors": set(),
    "files": {"errors"},
    "reasons": {"errors"},
    "launch": {"errors"},
    "devices": {*LEAVES, "memory"},
    "plain_yaml": set(),
    "definition": {*LEAVES, "plain_yaml"},
    "catalog": {*LEAVES, "definition"},
    "settings": {*LEAVES, "definition"},
    "records": LEAVES,
    "runs": {*LEAVES, "definition", "plain_yaml", "records"},
    "tracking": LEAVES,
    "model": {*LEAVES, "memory", "interfaces"},
    "protocols": set(),
    "corpora": {*LEAVES, "table", "tracking"},
    "tasks": {*LEAVES, "corpora", "interfaces", "protocols"},
    "evaluation": {"model", "interfaces"},
    "knockout": {*LEAVES, "memory", "model", "protocols"},
    "reach": {"evaluation", "interfaces", "memory", "model"},
    "inspection": {*LEAVES, "corpora", "evaluation", "interfaces", "memory", "model", "reach", "tasks"},
    "training": {*LEAVES, "devices", "evaluation", "interfaces", "memory", "model"},
    "machine": {*LEAVES, "devices", "memory", "model", "settings"},
    "flops": {"interfaces", "model", "training"},
    "assessment": {*LEAVES, "corpora", "evaluation", "experiment", "inspection", "interfaces", "knockout", "machine",
                   "protocols", "resources", "runs", "settings", "streaming", "tasks", "tracking", "trained",
                   "training"},
    "streaming": {"evaluation", "model", "interfaces"},
    "environment": {*LEAVES, "catalog", "devices", "machine"},
    "resources": {"devices"},
    "precheck": {*LEAVES, "devices", "evaluation", "interfaces", "machine", "model", "resources", "training"},
    "experiment": {*LEAVES, "corpora", "definition", "model", "protocols", "tasks", "training"},
    "provision": {*LEAVES, "corpora", "definition", "experiment", "settings", "tasks"},
    "report": {*LEAVES, "table", "definition", "catalog", "plain_yaml", "protocols", "records", "runs"},
    "table": set(),
    "comparison": {*LEAVES, "report", "runs", "table"},
    "exporting": {*LEAVES, "runs", "training"},
    "cleaning": {*LEAVES, "report", "runs", "table"},
    "tuning": {*LEAVES, "definition", "environment", "experiment", "machine", "runs", "settings", "workflow"},
    "verification": {*LEAVES, "assessment", "interfaces", "machine", "runs", "settings", "table", "tasks", "trained",
                     "training"},
    "overview": {*LEAVES, "table", "definition", "catalog", "runs", "settings", "experiment"},
    "trained": {*LEAVES, "corpora", "experiment", "memory", "model", "runs", "tasks", "training"},
    "together": {*LEAVES, "experiment", "runs", "tasks", "training"},
    "starting": {*LEAVES, "corpora", "experiment", "model", "runs", "settings", "trained", "training"},
    "prepared": {*LEAVES, "corpora", "environment", "experiment", "machine", "model", "runs", "settings", "tasks",
                 "tracking", "trained", "training"},
    "workflow": {*LEAVES, "assessment", "experiment", "flops", "machine", "model", "precheck", "prepared", "provision",
                 "resources", "runs", "settings", "starting", "tasks", "together", "tracking", "trained", "training"},
    "generation": {*LEAVES, "assessment", "corpora", "evaluation", "experiment", "machine", "model", "runs",
                   "settings", "tasks", "tracking", "trained"},
    "probe": {"interfaces", "model", "resources", "training"},
    "budget": {"model", "probe"},
    "forecast": {*LEAVES, "budget", "corpora", "experiment", "interfaces", "machine", "model", "precheck",
                 "probe", "resources", "runs", "settings", "starting", "tasks", "training"},
    "bench": {*LEAVES, "catalog", "definition", "environment", "experiment", "interfaces", "machine",
              "memory", "model", "resources", "tasks", "training"},
    "reproduce": {*LEAVES, "catalog", "corpora", "definition", "runs", "settings", "training"},
    "headline": set(),
    "cli": {"assessment", "bench", "catalog", "cleaning", "comparison", "corpora", "definition", "environment",
            "errors", "experiment", "exporting", "forecast", "generation", "headline", "launch", "machine", "overview",
            "protocols", "provision", "report", "reproduce", "runs", "settings", "trained", "tuning", "verification",
            "workflow"},
    "__init__": {"memory", "trained"},
    "__main__": {"cli"},
}  # fmt: skip
WITHOUT_TORCH = (
    "plain_yaml",
    "definition",
    "catalog",
    "settings",
    "records",
    "runs",
    "report",
    "comparison",
    "cleaning",
    "reproduce",
    "overview",
    "cli",
    "tracking",
    "table",
    "headline",
    "launch",
    "corpora",
    "protocols",
)


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
        allowed = MAY_IMPORT[room(path)]
        assert used <= allowed, f"{path.relative_to(ROOT)} imports {used - allowed}"


def test_the_memory_needs_torch_jaxtyping_and_pydantic_only() -> None:
    allowed = {"torch", "jaxtyping", "pydantic", "infty.memory"}
    standard = {"collections", "contextlib", "dataclasses", "functools", "math", "typing", "warnings"}
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

"""Where experiment files are found: one's own first, then those that came with infty. Imports no torch."""

from pathlib import Path

from infty.definition import Definition, load_definition, nearest
from infty.errors import UsageError

PACKAGE = Path(__file__).parent
SHIPPED = next((f for f in (PACKAGE / "experiments", PACKAGE.parent / "experiments") if f.is_dir()), PACKAGE)


def experiment_files(own: Path) -> dict[str, Path]:
    """Every experiment by name; one's own file hides the shipped one of the same name."""
    return {
        path.stem: path
        for folder in (SHIPPED, own)
        for path in sorted(folder.glob("*.yaml"), key=lambda path: path.stem)
    }


def open_experiment(name: str, own: Path) -> Definition:
    """An experiment by name, or by the path of its file. UsageError where there is none."""
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        return load_definition(path, path.name if path.is_absolute() else name)  # results hold no absolute path
    files = experiment_files(own)
    if name not in files:
        raise UsageError(f"no experiment {name!r}; {nearest(name, files)}")
    return load_definition(files[name], name)

"""The catalogue of experiment files: one's own first, then those that came with infty. Imports no torch."""

from collections.abc import Callable
from itertools import chain
from pathlib import Path

from infty.base.errors import UsageError
from infty.base.messages import suggest
from infty.config.definition import Definition, load_definition
from infty.config.faults import raise_faults

PACKAGE = Path(__file__).parents[1]
SHIPPED = next((f for f in (PACKAGE / "experiments", PACKAGE.parent / "experiments") if f.is_dir()), PACKAGE)


def experiment_files(own: Path) -> dict[str, Path]:
    """Find every experiment by name; one's own file hides the shipped one of the same name."""
    files = [sorted(folder.glob("*.yaml"), key=lambda path: path.stem) for folder in (SHIPPED, own)]
    return {path.stem: path for path in chain(*files)}


def open_experiment(name: str, own: Path) -> Definition:
    """Open an experiment by its name, or by the path of its file. UsageError if there is none."""
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        return load_definition(path, path.name if path.is_absolute() else name)  # results hold no absolute path
    files = experiment_files(own)
    if name not in files:
        raise UsageError(f"no experiment {name!r}; {suggest(name, files)}")
    return load_definition(files[name], name)


def experiments_with(scale: str, own: Path, say: Callable[[str], None]) -> dict[str, Definition]:
    """Find every experiment that has a scale, by name; `say` which files are left out. UsageError if none has it."""
    found: dict[str, Definition] = {}
    for name in experiment_files(own):
        try:
            definition = open_experiment(name, own)
            raise_faults(definition.faults)
            found[name] = definition
        except UsageError as fault:  # one broken file does not hide the others
            say(f"{name} is left out: {fault}")
    scales = {name for definition in found.values() for name in definition.names("scales")}
    if scale not in scales:
        raise UsageError(f"no experiment has a scale {scale!r}; {suggest(scale, sorted(scales))}")
    return {name: definition for name, definition in found.items() if scale in definition.names("scales")}

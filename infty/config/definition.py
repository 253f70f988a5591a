"""experiments/*.yaml as written, the user's own first: the cells of a table, and how overlays make a cell's values."""

import hashlib
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import yaml

from infty.base.errors import UsageError, one_line, suggest
from infty.config.faults import Fault, Origins, quote, raise_faults
from infty.config.strict_yaml import DEEPEST, parse_strictly

PACKAGE = Path(__file__).parents[1]
SHIPPED = next((f for f in (PACKAGE / "experiments", PACKAGE.parent / "experiments") if f.is_dir()), PACKAGE)
Values = dict[str, Any]
PARTS = ("task", "model", "training", "pretraining")  # what an overlay may set
SCALE_KEYS = (*PARTS, "cases", "models", "seeds", "tune")  # tune: what `infty tune` tries, by column
TOP_KEYS = (*PARTS, "models", "cases", "scales", "seeds", "rows")
MAX_SEED = 2**31 - 1
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")  # of a row, column or scale; a part of a folder's name
NAMES = (
    "names are lower-case letters, digits, '-' and '_', at most 64, in quotes where they would be a number or a date, "
    "and none that is a device of Windows, as con"
)
# On Windows these are devices, whatever follows a dot; other names may not have these characters or endings.
DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
UNFIT = re.compile(r'[<>:"/\\|?*]|[. ]$')


@dataclass(frozen=True)
class CellKey:
    """One place in a table, trained with one seed. `variant` marks runs with other settings."""

    experiment: str
    scale: str
    model: str
    case: str
    seed: int = 0
    variant: str = ""

    @property
    def folder(self) -> Path:
        """The folder of its run below the runs folder."""
        return Path(self.experiment, self.scale, f"{self.model}@{self.case}{self.variant}", f"seed-{self.seed}")

    def command(self, source: str = "", overrides: Sequence[str] = ()) -> str:
        """Return the command that trains it. `source`: the experiment as it was given, if not by its name."""
        place = ["--model", self.model, "--case", self.case, "--scale", self.scale, "--seed", str(self.seed)]
        options = [word for text in overrides for word in ("--set", text)]
        named = self.variant and self.variant != variant_of(overrides, None)
        name = ["--name", self.variant[1:]] if named else []
        return shlex.join(["infty", "train", source or self.experiment, *place, *options, *name])


@dataclass(frozen=True)
class Definition:
    """An experiment file: `values` as read, and the faults that reading it found."""

    name: str
    path: Path
    source: str  # what a user types for it: its name, or the path of its file
    values: Values
    faults: list[Fault] = field(default_factory=list)

    def names(self, key: str) -> list[str]:
        """List the names of rows ("models"), columns ("cases") or "scales". Without cases there is one, `main`."""
        found = [name for name in _section(self.values, key) if isinstance(name, str)]
        return found or (["main"] if key == "cases" else [])

    def seeds(self, scale: str) -> list[int]:
        """List the seeds of a table at a scale."""
        return _section(self.values, "scales", scale).get("seeds", self.values.get("seeds", [0]))

    def tune(self, scale: str) -> Any:
        """Return what `infty tune` tries at a scale, as written; None if nothing is given."""
        return _section(self.values, "scales", scale).get("tune")

    def cells(self, scale: str) -> Iterator[CellKey]:
        """Go through every cell and seed of the table at a scale. UsageError if the file has faults."""
        # `rows` are those of the table if there are more models; the others join it once they are run.
        raise_faults(self.faults)
        for case in self.names("cases"):
            for model in self.values.get("rows", self.names("models")):
                for seed in self.seeds(scale):
                    yield CellKey(self.name, scale, model, case, seed)

    def check_names(self, **asked: str) -> None:
        """Raise UsageError if the file has no row (`models`), column (`cases`) or scale (`scales`) of that name."""
        absent = [(key, name) for key, name in asked.items() if name not in self.names(key)]
        why = {key: f"no {name!r} here; {suggest(name, self.names(key))}" for key, name in absent}
        raise_faults([Fault(self.path.name, key, message) for key, message in why.items()])

    def layers(self, cell: CellKey) -> list[tuple[str, Values]]:
        """List the overlays of a cell, lowest first: base < scale < case < model < the scale's own case and model."""
        scale, case, model = ("scales", cell.scale), ("cases", cell.case), ("models", cell.model)
        layers = []
        for keys in ((), scale, case, model, (*scale, *case), (*scale, *model)):
            origin = ": ".join(filter(None, (self.path.name, ".".join(keys))))
            layers.append((origin, {k: v for k, v in _section(self.values, *keys).items() if k in PARTS}))
        return layers


def experiment_files(own: Path) -> dict[str, Path]:
    """Find every experiment by name; the user's own file hides the shipped one of the same name."""
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
    """Find every experiment that has a scale, by name; `say` gets those left out. UsageError if none has it."""
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


def load_definition(path: Path, source: str) -> Definition:
    """Read an experiment file; its faults are kept, to be reported with those of values. UsageError if it is none."""
    values, faults = read_yaml(path)
    if not is_portable(path.stem):
        faults.append(Fault(path.name, "", "no folder on Windows can be named so, as those of its runs are: rename it"))
    faults += _shape_faults(path.name, "", values, TOP_KEYS)
    for key, inner_keys in (("cases", PARTS), ("models", PARTS), ("scales", SCALE_KEYS)):
        faults += _section_faults(path.name, key, values.get(key), inner_keys)
    faults += _row_faults(path.name, values)
    for name in _section(values, "scales"):
        for key in ("cases", "models"):
            inner = _section(values, "scales", name)
            faults += _section_faults(path.name, f"scales.{name}.{key}", inner.get(key), PARTS)
            for extra in sorted(_section(inner, key).keys() - _section(values, key).keys(), key=str):
                faults.append(Fault(path.name, f"scales.{name}.{key}.{extra}", f"no such name under {key}"))
    return Definition(path.stem, path, source, values, faults)


def variant_of(overrides: Sequence[str], name: str | None) -> str:
    """Return what a run's folder adds: `+name`, or `+` and a hash of the changes. UsageError if it can't be a name."""
    if name is not None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]{0,63}", name) or not is_portable(name):
            wanted = "wanted up to 64 lower-case letters, digits, '-', '_' and '.', but no '.' at the end"
            raise UsageError(f"--name {one_line(name)}: {wanted}, and no name that Windows refuses, as con")
        return f"+{name}"
    changes, _ = overlay([("--set", parse_override(text)[0]) for text in overrides])
    return "+" + hashlib.sha256(yaml.safe_dump(changes).encode()).hexdigest()[:8] if changes else ""


def overlay(layers: list[tuple[str, Values]]) -> tuple[Values, Origins]:
    """Merge layers deeply, and say which layer each key came from. Lists are replaced."""
    merged, origins = Values(), Origins()

    def merge(beneath: Values, values: Values, origin: str, path: tuple[str, ...] = ()) -> None:
        for key, value in values.items():
            here, below = (*path, key), beneath.get(key)
            # A mapping that names another `kind` than the one below replaces it: its keys belong to another thing.
            kind = below.get("kind") if isinstance(below, dict) else None
            if not (isinstance(value, dict) and isinstance(below, dict) and value.get("kind", kind) == kind):
                for known in [known for known in origins if known[: len(here)] == here]:
                    del origins[known]
                beneath[key] = {} if isinstance(value, dict) else value
                origins[here] = origin
            if isinstance(value, dict):
                merge(beneath[key], value, origin, here)

    for origin, values in layers:
        merge(merged, values, origin)
    return merged, origins


def parse_override(text: str) -> tuple[Values, Fault | None]:
    """Parse `key.path=value` of `--set` into a nested mapping, or say what is wrong; the value is YAML."""
    key, equals, value = text.partition("=")
    if not equals or not all(key.split(".")):
        return {}, Fault("--set", text, "wanted key.path=value")
    if key.count(".") > DEEPEST:
        return {}, Fault("--set", key, "is nested too deeply")
    try:
        nested, doubles = parse_strictly(value)
    except ValueError:
        return {}, Fault("--set", key, f"{quote(value)} is not a YAML value")
    if doubles:
        return {}, Fault("--set", f"{key}.{doubles[0][0]}", "stands twice")
    for part in reversed(key.split(".")):
        nested = {part: nested}
    return nested, None


def is_portable(name: str) -> bool:
    """Tell whether folders can have that name on every system."""
    return not UNFIT.search(name) and not DEVICE.fullmatch(name)


def read_yaml(path: Path) -> tuple[Values, list[Fault]]:
    """Read a mapping from a YAML file, and each key that stands twice in it. UsageError if it can't be parsed."""
    try:
        values, doubles = parse_strictly(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as fault:
        raise UsageError(f"{one_line(path.name)}: can't be read: {one_line(str(fault))}") from None
    except ValueError as fault:
        raise UsageError(f"{one_line(path.name)}: {one_line(str(fault))}") from None
    if not isinstance(values, dict):
        raise UsageError(f"{one_line(path.name)}: wanted a mapping of {', '.join(TOP_KEYS)}")
    return values, [Fault(path.name, key, f"stands twice (line {line})") for key, line in doubles]


def _section(values: Values, *keys: str) -> Values:
    """Return the mapping at nested keys; an empty one if there is none (a fault that `load_definition` has noted)."""
    for key in keys:
        found = values.get(key)
        values = found if isinstance(found, dict) else {}
    return values


def _shape_faults(origin: str, key: str, values: Any, allowed: tuple[str, ...]) -> list[Fault]:
    """Find the faults of one mapping whose keys are known."""
    if values is None:
        return []
    if not isinstance(values, dict):
        return [Fault(origin, key, f"wanted a mapping, got {quote(values)}")]
    prefix = f"{key}." if key else ""
    unknown = [name for name in values if name not in allowed]
    faults = [Fault(origin, f"{prefix}{name}", f"unknown key; {suggest(name, allowed)}") for name in unknown]
    seeds = values.get("seeds", [0])
    if not isinstance(seeds, list) or not all(type(seed) is int and 0 <= seed <= MAX_SEED for seed in seeds):
        wanted = f"wanted a list of integers from 0 to {MAX_SEED}"
        faults.append(Fault(origin, f"{prefix}seeds", f"{wanted}, got {quote(seeds)}"))
    return faults


def _row_faults(origin: str, values: Values) -> list[Fault]:
    """Find names in `rows`, if it is there, that are not among the models."""
    rows, models = values.get("rows", []), _section(values, "models")
    if not isinstance(rows, list):
        return [Fault(origin, "rows", f"wanted a list of models, got {quote(rows)}")]
    unknown = [row for row in rows if not isinstance(row, str) or row not in models]
    return [Fault(origin, "rows", f"no {quote(row)} among the models; {suggest(row, models)}") for row in unknown]


def _section_faults(origin: str, key: str, section: Any, allowed: tuple[str, ...]) -> list[Fault]:
    """Find the faults of a mapping of named overlays."""
    if not isinstance(section, dict):
        return _shape_faults(origin, key, section, allowed)
    unfit = [name for name in section if not (isinstance(name, str) and NAME.fullmatch(name) and is_portable(name))]
    faults = [Fault(origin, f"{key}.{name}", NAMES) for name in unfit]
    for name, values in section.items():
        faults += _shape_faults(origin, f"{key}.{name}", values, allowed)
    return faults

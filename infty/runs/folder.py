"""The run folder: what it holds, when it is finished, how it is found. Imports no torch."""

import os
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from infty.base.errors import MissingError, UsageError
from infty.base.files import read_json, write_json, write_text
from infty.base.messages import one_line
from infty.config.definition import CellKey
from infty.config.strict_yaml import parse_yaml
from infty.runs.schemas import Place, Result, Task

SCHEMA = 1  # of the JSON files in a run folder
RECORDS = ("config.yaml", "environment.json", "status.json", "result.json")  # of a run, beside metrics and evaluations
BASE = "base"  # row that a GPT-2 trained first has in the runs; it stands in no table
STATES = ("running", "done", "failed", "stopped")  # what status.json may say
Values = dict[str, Any]


@dataclass(frozen=True)
class Finished:
    """What a finished run is of, its settings, and what came out. length: of its sequences; texts have none."""

    cell: CellKey
    config: Values
    result: Result
    length: int | None


@dataclass(frozen=True)
class RunFolder:
    """One cell × seed on disk. `result.json` is written last: its presence means finished."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        """One JSON object a line."""
        return self.path / "metrics.jsonl"

    @property
    def begun(self) -> bool:
        """Whether there are checkpoints to go on from, whole or not."""
        return any(self.checkpoints.glob("step-*")) or any(self.checkpoints.glob(".step-*.old.tmp"))

    @property
    def finished(self) -> bool:
        """Whether the run has its result."""
        return (self.path / "result.json").is_file()

    def result(self) -> Values:
        """`result.json`; MissingError where the run isn't finished, or the file lacks what anything reads of it."""
        result = read_json(self.path / "result.json")
        Result.check(result, self.path / "result.json")
        return result

    def read(self) -> Finished:
        """A finished run, checked; MissingError where it isn't, or something is damaged."""
        file = self.path / "result.json"
        record, config = Result.read(file), self.config()
        task = Task.check(config.get("task"), self.path / "config.yaml")
        if record.is_text != (task.kind == "corpus") or record.is_text == bool(task.length):
            raise MissingError(f"{file} and config.yaml are of different tasks; train again with --fresh")
        return Finished(self.cell(config), config, record, task.length)

    def config(self) -> Values:
        """`config.yaml`; MissingError where it is missing or damaged."""
        file = self.path / "config.yaml"
        try:
            values = parse_yaml(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as fault:
            raise MissingError(f"{file} can't be read: {one_line(str(fault))}; train again with --fresh") from None
        if not isinstance(values, dict) or not isinstance(values.get("cell"), dict):
            raise MissingError(f"{file} describes no run; train again with --fresh")
        return values

    def cell(self, config: Values | None = None) -> CellKey:
        """Which cell this is a run of; the variant is what the folder's name adds. MissingError as `config`.

        config: what that returned, if it was asked for already.
        """
        file = self.path / "config.yaml"
        place = Place.check((config or self.config())["cell"], file)
        name, folder = f"{place.model}@{place.case}", Path(os.path.realpath(self.path))
        agrees = folder.parent.name.startswith(name) and folder.name == f"seed-{place.seed}"
        if not agrees and re.fullmatch(r".+@.+/seed-\d+", "/".join(folder.parts[-2:])):  # else somebody renamed it
            raise MissingError(f"{file} describes another run, {name} seed {place.seed}; train again with --fresh")
        return CellKey(**place.model_dump(), variant=folder.parent.name.removeprefix(name))

    def command(self) -> str | None:
        """What trains this run, as `environment.json` tells it; None where it tells nothing that could be pasted."""
        try:
            command = str(read_json(self.path / "environment.json").get("command"))
            words = shlex.split(command)
        except (MissingError, ValueError):  # ValueError: a quotation mark without its other half
            return None
        plain = words[:2] == ["infty", "train"] and shlex.join(words) == command and command.isprintable()
        return command if plain else None

    def state(self) -> str:
        """One of missing, running, stopped, failed, interrupted (begun, but nobody is at it), done and damaged."""
        return self.condition()[0]

    def condition(self) -> tuple[str, str]:
        """The state, and why, where `status.json` says so or something is damaged."""
        try:
            if self.finished:
                self.read()
                return "done", ""
            begun = (self.path / "config.yaml").exists()
            if begun:
                self.cell()
            said, why = self._status()
        except (MissingError, OSError) as fault:
            return "damaged", str(fault)
        held = self._held()
        if held or said is None:
            return ("running" if held else "interrupted" if begun else "missing"), ""
        if said == "done" or (said == "running" and held is False):
            said = "interrupted"
        return said, why

    def _status(self) -> tuple[str | None, str]:
        """What `status.json` says, and why; None without one. Training never reads it: damage only interrupts."""
        file, mend = self.path / "status.json", "training does not need it, and goes on"
        if not file.exists():
            return None, ""
        try:
            status = read_json(file, mend)
        except MissingError as fault:
            return "interrupted", str(fault)
        said, why = status.get("status"), status.get("why")
        if said not in STATES:
            return "interrupted", f"{file} says none of {', '.join(STATES)}; {mend}"
        return said, why if isinstance(why, str) else ""

    def refuse_another(self, config: Values, remedy: str) -> None:
        """UsageError, with the difference and what to do, where the folder holds a run with other settings.

        MissingError where it has checkpoints, and nothing says of what.
        """
        if not (self.path / "config.yaml").exists():
            if any(self.checkpoints.glob("step-*")):
                raise MissingError(f"{self.path} has checkpoints but no config.yaml that says of what; {remedy}")
            return
        if changed := differences(self.config(), config):
            listing = "\n".join(f"  {line}" for line in changed)
            raise UsageError(f"{self.path} holds a run with other settings:\n{listing}\n{remedy}")

    def write_config(self, config: Values) -> None:
        """Set down what this run is."""
        write_text(self.path / "config.yaml", yaml.safe_dump(config, sort_keys=False))

    def write_status(self, status: str, why: str = "") -> None:
        """Set down that the run is running, done, failed or stopped, and why."""
        write_json(self.path / "status.json", {"status": status, "why": why})

    def lock(self) -> FileLock:
        """Held by the process that writes here; the system frees it when that process ends, however it ends."""
        return FileLock(self.path / ".lock", timeout=1)

    def is_locked(self) -> bool:
        """Whether a process is writing here now; where nobody can tell, it doesn't say so."""
        return self._held() is True

    def _held(self) -> bool | None:
        """Whether the lock is held; None where it can't be opened, as in a folder of somebody else's."""
        try:
            if not (self.path / ".lock").exists():
                return False
            with self.lock().acquire(timeout=0):
                return False
        except Timeout:
            return True
        except OSError:
            return None


def contradictions(config: Values, written: Values) -> list[str]:
    """`key: stored -> written` where a run's cell settings are not what an experiment's file says now.

    Only of keys that both have: what the file leaves to defaults is not compared.
    """
    return differences(_shared(config, written), _shared(written, config))


def _shared(values: Values, other: Values) -> Values:
    """Values without the keys that the other hasn't, likewise within what both have as mappings."""
    return {
        key: _shared(value, other[key]) if isinstance(value, dict) and isinstance(other[key], dict) else value
        for key, value in values.items()
        if key in other
    }


def find_runs(folders: Iterable[Path]) -> Iterator[RunFolder]:
    """Every run folder below `folders` once, in the order of their paths; what is hidden there is none: a half copy."""
    seen: set[str] = set()
    for folder in folders:
        for path in sorted(folder.rglob("config.yaml")):
            hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
            if not hidden and (real := os.path.realpath(path)) not in seen:
                seen.add(real)
                yield RunFolder(path.parent)


def finished_runs(folders: Sequence[Path]) -> list[RunFolder]:
    """Every finished run below `folders` once, in the order of their paths.

    MissingError where there is none, or a folder isn't there.
    """
    if absent := [folder for folder in folders if not folder.is_dir()]:
        raise MissingError(f"no folder {absent[0]}; finished runs come from, for example: infty train sort --case x8")
    found = [run for run in find_runs(folders) if run.finished]
    if not found:
        where = ", ".join(map(str, folders))
        raise MissingError(f"no finished runs in {where}; make one with: infty train sort --case x8")
    return found


def trials_folder(runs: Path) -> Path:
    """Where the trials of `infty tune` lie: beside the runs, so that no report takes them for cells."""
    return runs.parent / "tuning"


def find_run(name: str, runs: Path) -> RunFolder:
    """A run by its folder, or by its place below `runs` (`sort/laptop/infty@x8/seed-0`).

    UsageError for a folder of several; MissingError where there is none.
    """
    for path in (Path(name), runs / name):
        if (path / "config.yaml").is_file():
            return RunFolder(path)
        if seeds := sorted(path.glob("seed-*/config.yaml")):
            raise UsageError(f"{name} holds runs: name one of {', '.join(seed.parent.name for seed in seeds)}")
    raise MissingError(f"{name} is no run: wanted a folder with config.yaml, here or below {runs}")


def differences(before: Values, after: Values, path: str = "") -> list[str]:
    """`key: old -> new` for each value that differs between two nested mappings."""
    lines = []
    for key in sorted({*before, *after}, key=str):
        old, new, here = before.get(key), after.get(key), f"{path}{one_line(str(key))}"
        if isinstance(old, dict) and isinstance(new, dict):
            lines += differences(old, new, f"{here}.")
        elif old != new:
            lines.append(f"{here}: {one_line(str(old))} -> {one_line(str(new))}")
    return lines

"""Run folders, how they are found, and finished runs read back. Imports no torch."""

import os
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from infty.base.errors import MissingError, UsageError, one_line
from infty.base.files import read_json, refuse_broken_link, write_json, write_text
from infty.base.folders import walk_folder
from infty.base.locks import is_held, take_lock
from infty.config.definition import CellKey, Values
from infty.config.strict_yaml import parse_yaml
from infty.runs.parts import AnswerDetails, Recall, TextDetails
from infty.runs.schemas import Environment, Evaluation, MemoryTrace, Place, Result, Task, Validation

SCHEMA = 1  # of JSON that commands print; records have their own
RECORDS = ("config.yaml", "environment.json", "status.json", "result.json")  # of a run, beside metrics and evaluations
BASE = "base"  # row of the GPT-2 that is trained first, among the runs; no table has it
LOCK = ".lock"
STATES = ("running", "done", "failed", "stopped")  # what status.json may say


@dataclass(frozen=True)
class Run:
    """A finished run read back: its cell, settings and result, and its other records, if they were read."""

    folder: "RunFolder"
    key: CellKey
    config: Values
    result: Result
    length: int | None  # of its sequences, if that is a setting
    evaluation: Evaluation | None = None  # its test
    knock_outs: dict[str, Evaluation] = field(default_factory=dict)  # the same without its memory, by kind
    trace: MemoryTrace | None = None
    curve: list[Validation] = field(default_factory=list)
    environment: Environment = field(default_factory=Environment)

    @property
    def start(self) -> str | None:
        """The SHA-256 of the weights that it was fine-tuned from, if any."""
        weights = self.result.starting_weights
        return weights.sha256 if weights else None

    @property
    def begins_as_base(self) -> bool:
        """True for a graft whose memories added nothing at first, so that it began as its base."""
        model: Any = self.config.get("model")
        return isinstance(model, dict) and model.get("start") == "base"

    @property
    def num_basis(self) -> int | None:
        """The number of basis functions of a row that has a long-term memory."""
        return self._find_size("long_range", "num_basis")

    @property
    def near_segments(self) -> int:
        """The number of whole segments before its own that one layer's attention reaches."""
        return (self._find_size("short_term_length") or 0) // (self._find_size("segment_length") or 1)

    @property
    def reached_segments(self) -> int:
        """The number of whole segments before its own that attention reaches from layer to layer."""
        return self.near_segments * (self._find_size("num_layers") or 1)

    def _find_size(self, *keys: str) -> int | None:
        """Find a positive whole number in the settings of the model."""
        found: Any = self.config.get("model")
        for key in keys:
            found = found.get(key) if isinstance(found, dict) else None
        return found if type(found) is int and 0 < found < 2**31 else None

    @property
    def parts(self) -> TextDetails | None:
        """The parts of its test's mean, if it was tested on a text."""
        details = self.evaluation.details if self.evaluation else None
        return details if isinstance(details, TextDetails) else None

    @property
    def recall(self) -> Recall | None:
        """What was right at each distance, if its test was of recall."""
        details = self.evaluation.details if self.evaluation else None
        return details.recall if isinstance(details, AnswerDetails) else None

    def without(self, kind: str) -> list["Run"]:
        """Return the run as tested with its memory knocked out in this way; an empty list if it was not."""
        return [replace(self, evaluation=self.knock_outs[kind])] if kind in self.knock_outs else []


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
        """The file of metrics: one JSON object per line."""
        return self.path / "metrics.jsonl"

    @property
    def begun(self) -> bool:
        """Whether there are checkpoints to go on from, whole or not."""
        return any(self.checkpoints.glob("step-*")) or any(self.checkpoints.glob(".step-*.old.tmp"))

    @property
    def finished(self) -> bool:
        """True once the run has its result."""
        return (self.path / "result.json").is_file()

    def result(self) -> Result:
        """Read what `result.json` holds. MissingError if the run isn't finished, or the file is damaged."""
        return Result.read(self.path / "result.json")

    def read(self) -> Run:
        """Read a finished run, without the records beside its result. MissingError if it isn't finished, or damaged."""
        result, config = self.result(), self.config()
        task = Task.check(config.get("task"), self.path / "config.yaml")
        if result.is_text != task.is_text:
            file = self.path / "result.json"
            raise MissingError(f"{file} and config.yaml are of different tasks; train again with --fresh")
        return Run(self, self.key(config), config, result, task.length)

    def config(self) -> Values:
        """Read what `config.yaml` holds. MissingError if it is missing or damaged."""
        file = self.path / "config.yaml"
        try:
            values = parse_yaml(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as fault:
            raise MissingError(f"{file} can't be read: {one_line(str(fault))}; train again with --fresh") from None
        if not isinstance(values, dict) or not isinstance(values.get("cell"), dict):
            raise MissingError(f"{file} describes no run; train again with --fresh")
        return values

    def key(self, config: Values | None = None) -> CellKey:
        """Read which cell this is a run of, with the variant that its folder's name adds. MissingError as `config`."""
        file = self.path / "config.yaml"
        place = Place.check((config or self.config())["cell"], file)
        name = f"{place.model}@{place.case}"
        # A link counts by its own name if that names this run, else by that of what it leads to.
        for folder in (Path(os.path.abspath(self.path)), Path(os.path.realpath(self.path))):
            agrees = folder.parent.name.startswith(name) and folder.name == f"seed-{place.seed}"
            if agrees:
                break
        if not agrees and re.fullmatch(r".+@.+/seed-\d+", "/".join(folder.parts[-2:])):  # else somebody renamed it
            raise MissingError(f"{file} describes another run, {name} seed {place.seed}; train again with --fresh")
        return CellKey(**place.model_dump(), variant=folder.parent.name.removeprefix(name))

    def command(self) -> str | None:
        """Read the command that trains this run from `environment.json`; None if it could not be pasted safely."""
        try:
            command = str(read_json(self.path / "environment.json").get("command"))
            words = shlex.split(command)
        except (MissingError, ValueError):  # ValueError: a quotation mark without its other half
            return None
        plain = words[:2] == ["infty", "train"] and shlex.join(words) == command and command.isprintable()
        return command if plain else None

    def state(self) -> str:
        """Tell if a run is missing, running, stopped, failed, interrupted (no process runs it), done or damaged."""
        return self.condition()[0]

    def condition(self) -> tuple[str, str]:
        """Return the state, and why if `status.json` says so or something is damaged."""
        try:
            if self.finished:
                self.read()
                return "done", ""
            begun = (self.path / "config.yaml").exists()
            if begun:
                self.key()
            said, why = self._status()
        except (MissingError, OSError) as fault:
            return "damaged", str(fault)
        held = self.is_locked()
        if held or said is None:
            return ("running" if held else "interrupted" if begun else "missing"), ""
        if said == "done" or (said == "running" and held is False):
            said = "interrupted"
        return said, why

    def _status(self) -> tuple[str | None, str]:
        """Read `status.json`: state and why; None without one. Training never reads it: damage reads as interrupted."""
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
        """Raise UsageError if the folder holds a run with other settings; MissingError if it lacks its settings."""
        if not (self.path / "config.yaml").exists():
            if any(self.checkpoints.glob("step-*")):
                raise MissingError(f"{self.path} has checkpoints but no config.yaml that says of what; {remedy}")
            return
        if changed := differences(self.config(), config):
            listing = "\n".join(f"  {line}" for line in changed)
            raise UsageError(f"{self.path} holds a run with other settings:\n{listing}\n{remedy}")

    def write_config(self, config: Values) -> None:
        """Write the settings of this run."""
        write_text(self.path / "config.yaml", yaml.safe_dump(config, sort_keys=False))

    def write_status(self, status: str, why: str = "") -> None:
        """Write that the run is running, done, failed or stopped, and why."""
        write_json(self.path / "status.json", {"status": status, "why": why})

    def lock(self) -> AbstractContextManager[object]:
        """Take the lock of the process that writes here. HeldError if another one has it; OSError if that fails."""
        return take_lock(self.path / LOCK, 1)

    def is_locked(self) -> bool | None:
        """Tell if a process is writing here now; None if the lock can't be opened, as in another user's folder."""
        return is_held(self.path / LOCK)


def find_runs(folders: Iterable[Path]) -> Iterator[RunFolder]:
    """Find each run folder below `folders` once, in the order of their paths; hidden ones, half copies, are skipped.

    Raises:
        MissingError: One of them is linked to what is not there.
    """
    seen: set[str] = set()
    for folder in folders:
        refuse_broken_link(folder)
        for path in walk_folder(folder):
            if path.name == "config.yaml" and (real := os.path.realpath(path)) not in seen:
                seen.add(real)
                yield RunFolder(path.parent)


def find_finished_runs(folders: Sequence[Path]) -> list[RunFolder]:
    """Find each finished run below `folders` once, by path. MissingError if there is none, or a folder is not there."""
    for folder in folders:
        refuse_broken_link(folder)
    if absent := [folder for folder in folders if not folder.is_dir()]:
        raise MissingError(f"no folder {absent[0]}; finished runs come from, for example: infty train sort --case x8")
    found = [run for run in find_runs(folders) if run.finished]
    if not found:
        where = ", ".join(map(str, folders))
        raise MissingError(f"no finished runs in {where}; make one with: infty train sort --case x8")
    return found


def trials_folder(runs: Path) -> Path:
    """Return the folder of the trials of `infty tune`: beside the runs, so that no report takes them for cells."""
    return runs.parent / "tuning"


def find_run(name: str, runs: Path) -> RunFolder:
    """Find a run by its folder, or its place below `runs`. UsageError if it holds several; MissingError if none."""
    for path in (Path(name), runs / name):
        if (path / "config.yaml").is_file():
            return RunFolder(path)
        if seeds := sorted(path.glob("seed-*/config.yaml")):
            raise UsageError(f"{name} holds runs: name one of {', '.join(seed.parent.name for seed in seeds)}")
    raise MissingError(f"{name} is no run: wanted a folder with config.yaml, here or below {runs}")


def differences(before: Values, after: Values, path: str = "", *, shared: bool = False) -> list[str]:
    """List as `key: old -> new` each value that differs between two nested mappings; shared: of keys that both have."""
    lines = []
    for key in sorted(before.keys() & after.keys() if shared else {*before, *after}, key=str):
        old, new, here = before.get(key), after.get(key), f"{path}{one_line(str(key))}"
        if isinstance(old, dict) and isinstance(new, dict):
            lines += differences(old, new, f"{here}.", shared=shared)
        elif old != new:
            lines.append(f"{here}: {one_line(str(old))} -> {one_line(str(new))}")
    return lines

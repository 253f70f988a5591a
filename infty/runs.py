"""The run folder: what it holds, when it is finished, how it is found. Imports no torch."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from infty.definition import Cell
from infty.errors import MissingError
from infty.files import read_json, write_json, write_text

SCHEMA = 1  # of the JSON files in a run folder
Values = dict[str, Any]
RESULT_KEYS = (
    "metrics", "calibration", "protocol", "data", "best_step", "parameters", "memory_slots", "tokens_seen",
    "wall_seconds", "commit", "dirty", "command",
)  # fmt: skip


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
    def finished(self) -> bool:
        """Whether the run has its result."""
        return (self.path / "result.json").is_file()

    def result(self) -> Values:
        """`result.json`; MissingError where the run isn't finished, or the file lacks what everything reads."""
        result = read_json(self.path / "result.json")
        if absent := [key for key in RESULT_KEYS if key not in result]:
            raise MissingError(f"{self.path / 'result.json'} lacks {', '.join(absent)}; train again with --fresh")
        return result

    def config(self) -> Values:
        """`config.yaml`; MissingError where it is missing or damaged."""
        try:
            values = yaml.safe_load((self.path / "config.yaml").read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as fault:
            why = getattr(fault, "problem", fault)
            raise MissingError(f"{self.path / 'config.yaml'} can't be read: {why}; train again with --fresh") from None
        if not isinstance(values, dict) or not isinstance(values.get("cell"), dict):
            raise MissingError(f"{self.path / 'config.yaml'} describes no run")
        return values

    def cell(self) -> Cell:
        """Which cell this is a run of; the variant is what the folder's name adds."""
        place = self.config()["cell"]
        try:
            cell = Cell(**place)
        except TypeError:
            raise MissingError(f"{self.path / 'config.yaml'} names no cell") from None
        variant = self.path.parent.name.removeprefix(f"{cell.model}@{cell.case}")
        return Cell(**place, variant=variant)

    def state(self) -> str:
        """missing, running, stopped, failed, interrupted (it says running, but nobody is), done or damaged."""
        try:
            if self.finished:
                self.result()
                return "done"
            if not (self.path / "status.json").is_file():
                return "missing"
            status = str(read_json(self.path / "status.json").get("status"))
        except (MissingError, OSError):
            return "damaged"
        return "interrupted" if status == "running" and not self.is_locked() else status

    def write_config(self, config: Values) -> None:
        """Set down what this run is."""
        write_text(self.path / "config.yaml", yaml.safe_dump(config, sort_keys=False, allow_unicode=True))

    def write_status(self, status: str, why: str = "") -> None:
        """running, done, failed or stopped, and why."""
        write_json(self.path / "status.json", {"status": status, "why": why})

    def lock(self) -> FileLock:
        """Held by the process that writes here; the system frees it when that process ends, however it ends."""
        return FileLock(self.path / ".lock", timeout=1)

    def is_locked(self) -> bool:
        """Whether a process is writing here now."""
        if not (self.path / ".lock").exists():
            return False
        try:
            with self.lock().acquire(timeout=0):
                return False
        except Timeout:
            return True


def find_runs(folders: Iterable[Path]) -> Iterator[RunFolder]:
    """Every run folder below `folders` once, in the order of their paths."""
    seen = set()
    for folder in folders:
        for path in sorted(folder.rglob("config.yaml")):
            if path.resolve() not in seen:
                seen.add(path.resolve())
                yield RunFolder(path.parent)


def differences(before: Values, after: Values, path: str = "") -> list[str]:
    """`key: old -> new` for each value that differs between two nested mappings."""
    lines = []
    for key in sorted({*before, *after}, key=str):
        old, new, here = before.get(key), after.get(key), f"{path}{key}"
        if isinstance(old, dict) and isinstance(new, dict):
            lines += differences(old, new, f"{here}.")
        elif old != new:
            lines.append(f"{here}: {old} -> {new}")
    return lines

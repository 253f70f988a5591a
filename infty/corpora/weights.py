"""Starting weights of a GPT-2 from a folder or the hub."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from infty.errors import MissingError


@dataclass(frozen=True)
class WeightsFolder:
    """A folder with `config.json` and `model.safetensors`."""

    path: Path
    origin: str
    config: dict[str, Any]
    sha256: str


def find_weights(given: str, data: Path, console: Console, *, may_fetch: bool) -> WeightsFolder:
    """Not read yet: weights that are trained first are."""
    raise MissingError(f"{given} can't be read by this version")


def refuse_other_sizes(config: dict[str, Any], wanted: dict[str, int], where: str) -> None:
    """UsageError where a GPT-2 is of other sizes than wanted."""

"""One's own experiments, whose tables are to be filled."""

from pathlib import Path
from typing import Any

import yaml

from infty.config.definition import SHIPPED
from infty.runs.folder import RunFolder

SMOKE = ("--scale", "smoke")
Values = dict[str, Any]


def write_experiment(folder: Path, name: str, rows: dict[str, Values], *, seeds: tuple[int, ...] = (0,)) -> None:
    """One's own experiment: column x4 of the sorting task at smoke scale. rows: what they change of Transformer-XL."""
    values = yaml.safe_load((SHIPPED / "sort.yaml").read_text(encoding="utf-8"))
    smoke = values["scales"]["smoke"]
    smoke.update(cases={"x4": smoke["cases"]["x4"]}, models={}, seeds=list(seeds))
    plain = {"model": {"short_term_length": 32, "long_range": None}}
    values.update(models={row: {**plain, **change} for row, change in rows.items()}, scales={"smoke": smoke})
    del values["rows"]
    values["cases"] = {"x4": {"task": values["cases"]["x4"]["task"]}}
    (folder / "experiments").mkdir(exist_ok=True)
    (folder / f"experiments/{name}.yaml").write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


def run_of(folder: Path, row: str, *, experiment: str = "mine", seed: int = 0) -> RunFolder:
    return RunFolder(folder / f"runs/{experiment}/smoke/{row}@x4/seed-{seed}")

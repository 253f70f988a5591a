"""Finished runs of the sorting task, written by hand, and the report on them."""

import json
from pathlib import Path
from typing import Any

import yaml

from infty.config.catalog import SHIPPED
from infty.report import write_report

LENGTHS = {"x4": 236, "x8": 492, "x16": 1004}


def put(
    root: Path, model: str, case: str, accuracy: float, *, seed: int = 0, variant: str = "", **changes: Any
) -> Path:
    """A finished run, written by hand."""
    folder = root / f"sort/laptop/{model}@{case}{variant}/seed-{seed}"
    folder.mkdir(parents=True)
    cell = {"experiment": "sort", "scale": "laptop", "model": model, "case": case, "seed": seed}
    (folder / "config.yaml").write_text(yaml.safe_dump({"cell": cell, "task": {"length": LENGTHS[case]}}))
    result = {
        **cell,
        "metrics": {"test/accuracy": accuracy, "test/loss": 1.5},
        "calibration": {"chance": 0.18, "oracle": 0.36, "oracle_window": 172},
        "protocol": {"name": "sort-accuracy-v1"},
        "data": {"name": "sort", "sha256": f"{case:f<64}"},
        "best_step": 600,
        "parameters": 164288,
        "memory_slots": 128,
        "tokens_seen": 1000,
        "wall_seconds": 61.4,
        "commit": "0123456789abcdef",
        "dirty": False,
        "command": f"infty train sort --model {model} --case {case}",
        **changes,
    }
    (folder / "result.json").write_text(json.dumps(result))
    return folder


def report(runs: Path, out: Path) -> str:
    write_report([runs], out, ["md", "csv"], SHIPPED)
    return (out / "sort-laptop.md").read_text()

"""Finished runs of the sorting task and of texts, written by hand, and the report on them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from infty.config.definition import SHIPPED, CellKey
from infty.report import write_report
from infty.runs.folder import Run, RunFolder
from infty.runs.record import Record
from infty.runs.schemas import Evaluation, Result

LENGTHS = {"x4": 236, "x8": 492, "x16": 1004}
SORT: dict[str, Any] = {
    "metrics": {"test/accuracy": 0.5, "test/loss": 1.5},
    "totals": {"nats": 1.5, "scored": 1, "correct": 1, "aside": 0, "aside_nats": 0.0},
    "calibration": {"chance": 0.18, "oracle": 0.36, "oracle_window": 172},
    "protocol": {
        "name": "sort-accuracy-v1", "unit": "symbol", "memory_reset": "sequence", "scored": "all", "segment_length": 32,
        "memory_slots": 128,
    },
    "data": {"name": "sort", "sha256": "a"},
    "training_data": {"name": "sort", "sequences": "seeds 0 to 9"},
}  # fmt: skip
DATA: dict[str, Any] = {
    "name": "w", "title": "W", "split": "test", "documents": 1, "sha256": "a", "tokens_sha256": "b",
    "tokenizer": {"kind": "bpe", "vocab_size": 7},
}  # fmt: skip
TEXT: dict[str, Any] = {
    "metrics": dict.fromkeys(
        (f"test/{name}" for name in ("loss", "token_perplexity", "word_perplexity", "bits_per_byte")), 1.0
    ),
    "totals": {"nats": 1.0, "scored": 40, "correct": 0, "aside": 0, "aside_nats": 0.0, "words": 20, "bytes": 90},
    "calibration": {},
    "protocol": {
        "name": "p", "unit": "word", "memory_reset": "document", "scored": "all", "words": "all", "segment_length": 32,
        "memory_slots": 128,
    },
    "data": DATA,
    "training_data": {**DATA, "split": "train"},
}  # fmt: skip
COST = {
    "best_step": 600,
    "best_validation_loss": 1.5,
    "parameters": 164288,
    "memory_slots": 128,
    "tokens_seen": 1000,
    "wall_seconds": 61.4,
    "tokens_per_second": 16,
    "training_flops": None,
    "peak_memory_bytes": 10**8,
    "commit": "0123456789abcdef",
    "dirty": False,
    "command": "infty train",
}
BINS: dict[str, Any] = {"from": [], "nats": [], "tokens": []}
NOTHING: dict[str, Any] = {"nats": 0.0, "tokens": 0}


def merge(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`values` with these changes, also within what both have as mappings."""
    inner = {key: merge(values[key], new) for key, new in changes.items() if isinstance(values.get(key), dict) and new}
    return {**values, **changes, **inner}


def sort_result(cell: dict[str, Any], **changes: Any) -> Result:
    """What a run of the sorting task found; changes: what it found otherwise."""
    return Result.check(merge({**cell, **SORT, **COST}, changes), "handmade")


def text_result(cell: dict[str, Any], **changes: Any) -> Result:
    """What a run on a text found; changes: what it found otherwise."""
    return Result.check(merge({**cell, **TEXT, **COST}, changes), "handmade")


def evaluation(result: Result, details: dict[str, Any], **changes: Any) -> Evaluation:
    """The test that a result is of, with its details: answers, or of a text some of them."""
    values = {key: value for key, value in result.model_dump().items() if key in Evaluation.model_fields}
    if result.is_text:
        nothing = {"new_word": NOTHING, "no_word": NOTHING}
        rest = {"by_position": BINS, "by_distance": {**BINS, **nothing}, "far": {"more_than": 9, **NOTHING}}
        details = {**rest, **{key: {"nats": [], "tokens": []} for key in ("chunks", "documents")}, **details}
    about = {"split": "test", "knock_out": None, "step": result.best_step}
    return Evaluation.check(merge({**values, **about, "details": details}, changes), "handmade")


def make_run(result: Result, details: dict[str, Any] | None = None, **more: Any) -> Run:
    """A run as a report gets it, with its test if there are details; of the sorting task with a length."""
    key = CellKey(result.experiment, result.scale, result.model, result.case, result.seed)
    test = None if details is None else evaluation(result, details)
    values = {"config": {}, "length": None if result.is_text else 492, "evaluation": test, **more}
    return Run(folder=RunFolder(Path()), key=key, result=result, **values)


def memory(
    layers: int = 2, heads: int = 3, updates: tuple[int, ...] = (1, 2, 4), texts: list[str] | None = None
) -> dict[str, Any]:
    """The trace of memories, as an evaluation writes it."""
    draw = np.random.default_rng(0)
    density, histogram = draw.random((layers, heads, 64)), draw.random((layers, 128))
    return {
        "schema": 1,
        "protocol": "text-documents-v1",
        "step": 60,
        "stream": {"kind": "document" if texts else "sequence", "index": 3, "segments": 24, "tokens": 3072},
        "density": (density / density.sum(-1, keepdims=True)).tolist(),
        "histogram": (histogram / histogram.sum(-1, keepdims=True)).tolist(),
        "reconstruction": [{"updates": k, "layers": draw.uniform(-2, 1, (layers, k)).tolist()} for k in updates],
        "regression_error": [0.25] * layers,
        "regression_error_mean": 0.25,
        "reach": {**{name: [0.5] * layers for name in ("share", "gate", "where", "what")}, "rest": 0.1},
        "gaze": [{"center": 0.5, "apart": 0.1, "width": 0.3, "there": 1.2}] * layers,
        "room": [{"text": t, "token": 8 * i, "room": 0.01, "attention": 0.03} for i, t in enumerate(texts)]
        if texts
        else None,
    }


def write(record: Record, file: Path) -> None:
    """In one line, of which a test may change some signs."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(record.model_dump()))


def evaluate(folder: Path, details: dict[str, Any], *, without: str = "", **changes: Any) -> Path:
    """Put a test beside a run's result; returns the file. without: the knock-out."""
    result = Result.read(folder / "result.json")
    name = f"{result.protocol.name}-test" + (f"-without-{without}" if without else "")
    write(evaluation(result, details, knock_out=without or None, **changes), folder / "eval" / f"{name}.json")
    return folder / "eval" / f"{name}.json"


def put(
    root: Path, model: str, case: str, accuracy: float, *, seed: int = 0, variant: str = "", **changes: Any
) -> Path:
    """A finished run of the sorting task."""
    folder = root / f"sort/laptop/{model}@{case}{variant}/seed-{seed}"
    folder.mkdir(parents=True)
    cell = {"experiment": "sort", "scale": "laptop", "model": model, "case": case, "seed": seed}
    (folder / "config.yaml").write_text(yaml.safe_dump({"cell": cell, "task": {"length": LENGTHS[case]}}))
    metrics = {"metrics": {"test/accuracy": accuracy}, "data": {"sha256": f"{case:f<64}"}}
    command = {"command": f"infty train sort --model {model} --case {case}"}
    write(sort_result(cell, **merge({**metrics, **command}, changes)), folder / "result.json")
    return folder


def put_text(
    root: Path, scale: str, model: str, nats: Sequence[float], tokens: Sequence[int], *, seed: int = 0,
    case: str = "main", **changes: Any,
) -> Path:  # fmt: skip
    """A finished run on WikiText, with the test's chunks."""
    folder = root / f"wikitext/{scale}/{model}@{case}/seed-{seed}"
    cell = {"experiment": "wikitext", "scale": scale, "model": model, "case": case, "seed": seed}
    write(text_result(cell, **changes), folder / "result.json")
    (folder / "config.yaml").write_text(yaml.safe_dump({"cell": cell, "task": {"kind": "corpus"}}))
    evaluate(folder, {"chunks": {"nats": list(nats), "tokens": list(tokens)}})
    return folder


def report(runs: Path, out: Path) -> str:
    write_report([runs], out, ["md", "csv"], SHIPPED)
    return (out / "sort-laptop.md").read_text()

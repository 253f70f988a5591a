"""SHA-256 of what a run and a report hold, less what differs between two runs of the same code.

Left out: times, speeds, peak memory, commits, command lines, versions, W&B's ids, the words above and below tables, and
the figure of speeds of runs that are made here (`…-pace.svg`).
"""

import csv
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

# Keys of JSON and CSV, and words in headings, of what is measured or says how, not what.
LEFT_OUT = re.compile(
    r"second|per_second|\bpace\b|peak|commit|dirty|command|version|wandb|environment|\bnext\b|\bwhy\b"
)
COLUMNS_LEFT_OUT = re.compile(r"second|\btime|speed|peak|commit|dirty|command")


def sum_of(value: Any) -> str:
    """SHA-256 of anything that JSON holds, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def clean(value: Any) -> Any:
    """A value of JSON without what is measured."""
    if isinstance(value, dict):
        return {key: clean(inner) for key, inner in value.items() if not LEFT_OUT.search(key)}
    return [clean(inner) for inner in value] if isinstance(value, list) else value


def json_sum(path: Path) -> str:
    """The sum of a JSON document."""
    return sum_of(clean(json.loads(path.read_text(encoding="utf-8"))))


def run_sums(run: Path) -> dict[str, Any]:
    """The sums of a run folder: both its checkpoints, metrics, result, configuration and evaluations."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    evaluations = {path.stem: json_sum(path) for path in sorted((run / "eval").glob("*.json"))}
    memories = {name: found for name, found in evaluations.items() if name.endswith("-memory")}
    return {
        "weights": {name: _checkpoint_sum(run / "checkpoints", name) for name in ("best", "last")},
        "metrics": sum_of([clean(json.loads(line)) for line in lines]),
        "result": json_sum(run / "result.json"),
        "config": sum_of(yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))),
        "status": json_sum(run / "status.json"),
        "eval": {name: found for name, found in evaluations.items() if name not in memories},
        "memory": memories,
    }


def report_sums(folder: Path) -> dict[str, Any]:
    """The sums of a report: a sum a table of Markdown and LaTeX, and one of each CSV file and figure."""
    found: dict[str, Any] = {}
    for path in sorted(folder.iterdir()):
        match path.suffix:
            case ".md":
                found[path.name] = _tables_sums(_markdown_tables(path.read_text(encoding="utf-8").splitlines()))
            case ".tex":
                found[path.name] = _tables_sums(_latex_tables(path.read_text(encoding="utf-8").splitlines()))
            case ".csv":
                with path.open(encoding="utf-8", newline="") as file:
                    found[path.name] = sum_of(_body(list(csv.reader(file))))
            case ".svg":
                found[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
            case _:
                pass
    return found


def _checkpoint_sum(checkpoints: Path, pointer: str) -> str:
    """Of all tensors, to the bit, and the state beside them."""
    named = json.loads((checkpoints / f"{pointer}.json").read_text(encoding="utf-8"))["checkpoint"]
    digest, folder = hashlib.sha256(), checkpoints / named
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(path.name.encode())
        _add_tensors(digest, path.read_bytes())
    digest.update(json_sum(folder / "state.json").encode())
    return digest.hexdigest()


def _add_tensors(digest: Any, content: bytes) -> None:
    """A safetensors file: eight bytes that say how long its header is, the header, and the tensors' bytes."""
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    digest.update(sum_of(header.pop("__metadata__", None)).encode())
    for name in sorted(header):
        about = header[name]
        first, end = about["data_offsets"]
        digest.update(json.dumps([name, about["dtype"], about["shape"]]).encode())
        digest.update(content[start + first : start + end])


def _tables_sums(tables: Iterable[Sequence[Sequence[str]]]) -> dict[str, str]:
    return {f"table {number}": sum_of(_body(table)) for number, table in enumerate(tables, start=1)}


def _body(table: Sequence[Sequence[str]]) -> list[list[str]]:
    """The cells below the headings, without the columns of what is measured."""
    kept = [i for i, heading in enumerate(table[0]) if not COLUMNS_LEFT_OUT.search(heading)]
    return [[row[i] for i in kept] for row in table[1:]]


def _markdown_tables(lines: list[str]) -> list[list[list[str]]]:
    """Pipe tables, headings first; `\\|` is no border."""
    tables: list[list[list[str]]] = []
    before = ""
    for line in lines:
        if line.startswith("|"):
            if not before.startswith("|"):
                tables.append([])
            if not re.fullmatch(r"[|:\- ]+", line):
                tables[-1].append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
        before = line
    return tables


def _latex_tables(lines: list[str]) -> list[list[list[str]]]:
    """What stands between rules, headings first; `\\&` is no border."""
    tables: list[list[list[str]]] = []
    inside = False
    for line in lines:
        match line:
            case r"\toprule":
                inside = True
                tables.append([])
            case r"\bottomrule":
                inside = False
            case r"\midrule":
                pass
            case _ if inside:
                cells = re.split(r"(?<!\\)&", line.removesuffix(r"\\"))
                tables[-1].append([cell.strip() for cell in cells])
            case _:
                pass
    return tables

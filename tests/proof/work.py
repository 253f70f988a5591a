"""The commands of a proof: every cell trained and evaluated in each way, and reports, with what they leave behind."""

import itertools
import json
import os
import queue
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.proof.sums import clean, json_sum, report_sums, run_sums, sum_of

WAYS = ("one", "two", "micro")  # one process; two; one that takes a batch in parts, three rows and one
FIRST_PORT = 12_000  # and those above it, below what Linux hands out itself
PROMPT = "the river was wide and the road was long ."
Cell = tuple[str, str, str, str]  # way, experiment, row, case
QUICK: tuple[Cell, ...] = (
    ("one", "sort", "infty", "x4"),
    ("one", "sort", "infty-sticky", "x8"),
    ("one", "wikitext", "compressive", "main"),
    ("micro", "wikitext", "compressive", "main"),
    ("one", "pg19", "infty", "main"),
    ("one", "gpt2", "infty", "wikitext"),
    ("two", "gpt2", "infty", "wikitext"),
)


def every_cell(tree: Path) -> list[Cell]:
    """Each row in each column of each experiment of a checkout, also those that no table has, by one process.

    In the other ways each row once, going round the columns.
    """
    cells = []
    for way, path in itertools.product(WAYS, sorted((tree / "experiments").glob("*.yaml"))):
        written = yaml.safe_load(path.read_text(encoding="utf-8"))
        rows, cases = tuple(written["models"]), tuple(written.get("cases") or ("main",))
        pairs = itertools.product(rows, cases) if way == "one" else zip(rows, itertools.cycle(cases), strict=False)
        cells += [(way, path.stem, row, case) for row, case in pairs]
    return cells


class Worker:
    """One process that has everything loaded, and forks for each command."""

    def __init__(self, tree: Path, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).with_name("worker.py"))],
            env={**environment, "PYTHONPATH": str(tree)},
            cwd=environment["HOME"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.about = self._answer()
        assert Path(self.about["infty"]).is_relative_to(tree), f"infty is {self.about['infty']}, not of {tree}"

    def run(self, words: Sequence[str], environments: list[dict[str, str]], stdout: Path, stderr: Path) -> int:
        """One command in as many processes as there are environments; the worst exit code."""
        request = {
            "words": list(words), "environments": environments, "folder": environments[0]["HOME"],
            "stdout": str(stdout), "stderr": str(stderr),
        }  # fmt: skip
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return max(self._answer(), key=abs)

    def close(self) -> None:
        """End it: it ends with its stdin."""
        self._process.communicate()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        if not (line := self._process.stdout.readline()):
            raise RuntimeError("the process that runs the commands has ended; what it said stands above")
        return json.loads(line)


@dataclass
class Proof:
    """What is proven of a checkout in a folder, with so many commands at once; `sums` fills as they end."""

    tree: Path
    folder: Path
    jobs: int
    sums: dict[str, Any] = field(default_factory=dict)

    def run(self, cells: Sequence[Cell]) -> dict[str, Any]:
        """Run all, and return the sums. What several cells need is made first, by one cell after the other."""
        self._ports, self._workers = _ports(), queue.SimpleQueue[Worker]()
        started = [Worker(self.tree, self._environment()) for _ in range(self.jobs)]
        for worker in started:
            self._workers.put(worker)
        self.sums["about"] = {**clean(started[0].about), "cells": len(cells)}
        del self.sums["about"]["infty"]  # a path of this machine
        leaders = _leaders(cells)
        with ThreadPoolExecutor(self.jobs) as pool:
            committed = pool.submit(self._report, "committed", self.tree / "experiments" / "results" / "laptop")
            for _ in pool.map(self._lead, [leaders]):
                pass
            for _ in pool.map(self._train_and_evaluate, [cell for cell in cells if cell not in leaders]):
                pass
            committed.result()
            self._report("one", self.folder / "one")
            self._list_and_compare()
        for worker in started:
            worker.close()
        for path in sorted(self.folder.glob("*/*/smoke/*/seed-0")):
            way, experiment, cell = path.parts[-5], path.parts[-4], path.parts[-2]
            self.sums[f"{way}/{experiment}/{cell}"] = {**self.sums.pop(f"{way}/{experiment}/{cell}", {}), **_sums(path)}
        return dict(sorted(self.sums.items()))

    def _lead(self, cells: Sequence[Cell]) -> None:
        for cell in cells:
            self._train_and_evaluate(cell)

    def _train_and_evaluate(self, cell: Cell) -> None:
        """Train a cell and evaluate it; what leaves no file is summed as it is said."""
        way, experiment, row, case = cell
        words = (experiment, "--model", row, "--case", case, "--scale", "smoke")
        said: dict[str, Any] = {"train": self._command(way, "train", *words)}
        self.sums[f"{way}/{experiment}/{row}@{case}"] = {"said": said}
        if way == "micro":  # which matters in training alone
            return
        said["eval"] = self._command(way, "eval", *words)
        said["validation"] = self._command(way, "eval", *words, "--split", "validation")
        # Rows that have a memory were tested without it after training.
        if list((self.folder / way / experiment / "smoke" / f"{row}@{case}").glob("seed-0/eval/*-without-zero.json")):
            other = ("--protocol", "text-documents-v1") if experiment == "gpt2" else ()
            said["shuffle"] = self._command(way, "eval", *words, "--knock-out", "shuffle")
            said["other"] = self._command(way, "eval", *words, "--knock-out", "other", *other)
        # What is slow, or works on text, with one row of each experiment.
        if way == "one" and row in ("infty", "compressive"):
            said["check-batch"] = self._command(way, "eval", *words, "--check-batch")
            if not experiment.startswith("sort"):
                text = self.folder / "stream.txt"
                said["stream"] = self._command(way, "eval", *words, "--stream", str(text))
                said["generate"] = self._command(way, "generate", *words, "--tokens", "40", "--prompt", PROMPT)

    def _report(self, name: str, runs: Path) -> None:
        out = self.folder / "report" / name
        said = self._command("one", "report", str(runs), "--out", str(out), "--format", "md,tex,csv", json=False)
        found = report_sums(out) if out.is_dir() else {}
        if name != "committed":  # a figure of measured speeds
            found = {file: sums for file, sums in found.items() if not file.endswith("-pace.svg")}
        self.sums |= {f"report/{name}/{file}": sums for file, sums in found.items()} | {f"report/{name}": said}

    def _list_and_compare(self) -> None:
        self.sums["list/one"] = self._command("one", "list", "--scale", "smoke")
        committed = self.tree / "experiments" / "results" / "laptop" / "sort"
        pair = [str(committed / f"{row}@x8" / "seed-0") for row in ("infty", "infty-sticky")]
        self.sums["compare/committed"] = self._command("one", "compare", *pair)

    def _command(self, way: str, *words: str, json: bool = True) -> str:
        """Run a command. The sum of the document that it says, or its exit code where that is not 0."""
        worker = self._workers.get()
        stem = self.folder / "said" / "-".join(word.strip("-").replace("/", "_") for word in (way, *words))[:200]
        stem.parent.mkdir(exist_ok=True)
        stdout, stderr = stem.with_name(stem.name + ".out"), stem.with_name(stem.name + ".err")
        together = way == "two" and words[0] in ("train", "eval")
        try:
            environments = self._environments(way) if together else [self._environment(way)]
            code = worker.run((*words, "--json") if json else words, environments, stdout, stderr)
        finally:
            self._workers.put(worker)
        if code:
            last = stderr.read_text(encoding="utf-8", errors="replace").splitlines()[-3:]
            print(f"exit code {code} of {way}: infty {' '.join(words)}", *last, sep="\n  ", file=sys.stderr)
            return f"exit code {code}"
        return json_sum(stdout) if json else sum_of(None)

    def _environment(self, way: str = "one") -> dict[str, str]:
        """That of a user who set nothing, but one thread, no network, and folders."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("INFTY_", "WANDB_", "HF_", "PYTHON"))}
        return {
            **kept,
            "HOME": str(self.folder),
            "INFTY_RUNS": str(self.folder / way),
            "INFTY_DATA": str(self.folder / "data"),
            "INFTY_THREADS": "1",
            "OMP_NUM_THREADS": "1",
            "WANDB_MODE": "disabled",
            "HF_HUB_OFFLINE": "1",
            "NO_COLOR": "1",
            "COLUMNS": "120",
            **({"INFTY_MICRO_BATCH": "3"} if way == "micro" else {}),
        }

    def _environments(self, way: str) -> list[dict[str, str]]:
        """Of two processes, as torchrun sets them."""
        common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
        common["MASTER_PORT"] = str(next(self._ports))
        return [{**self._environment(way), **common, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]


def _leaders(cells: Sequence[Cell]) -> list[Cell]:
    """The first cell of each experiment that reads text, which makes its token files; and in each way the first of
    gpt2, which trains the weights that all begin with."""
    found: dict[tuple[str, ...], Cell] = {}
    for cell in cells:
        way, experiment, _, _ = cell
        if experiment == "gpt2" or (way == "one" and not experiment.startswith("sort")):
            found.setdefault((way, experiment), cell)
    return list(found.values())


def _sums(run: Path) -> dict[str, Any]:
    try:
        return run_sums(run)
    except (OSError, ValueError, KeyError) as fault:
        return {"unfinished": f"{type(fault).__name__}"}


def _ports() -> Iterator[int]:
    """Ports that nobody listens at."""
    for port in range(FIRST_PORT + os.getpid() % 10_000, 32_000):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                yield port

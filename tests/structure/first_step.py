"""The way of a cell to its first optimiser step: how often a reader who follows the calls changes packages.

`infty train sort --scale smoke --case x4` is run, and its calls between infty's own functions are recorded, from the
command's function to the call of the first step (see `call_recorder`). Then:

- Left out, with all that is called from there: constructors and other methods with double underscores, properties, and
  what a library calls and not infty itself (validators, hooks), context managers excepted. Comprehensions and lambdas
  belong to the function that runs them.
- Each function counts once, when it is called for the first time.
- A *visit* to a package begins when a function of another package calls one there that has not been called before. What
  is called within a package begins none, and visits that follow each other in one package are one. The command itself
  is the first visit.
- A *climb* is a call from a package to one of a higher level (see `ImportGraph.levels`); each pair of functions counts
  once. An *ascent* is a visit to a package of a higher level than that of the visit before, whoever calls.

The same is counted by module, with each file as a package of its own. In version 0.1.0 the way has 60 visits to 32
modules; to packages and modules at the top of infty/, 54 visits to 24.
"""

import ast
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tests.structure.source import Place, Source

COMMAND = ("train", "sort", "--scale", "smoke", "--case", "x4")
TIMEOUT = 300  # seconds; the run takes a few


@dataclass(frozen=True)
class Call:
    """One call of a function: see `call_recorder`. caller: the index of the call that it was made from."""

    caller: int | None
    path: str
    name: str
    line: int
    direct: bool = True
    generator: bool = False

    @property
    def function(self) -> tuple[str, str]:
        """The function that is called, by file and qualified name."""
        return self.path, self.name

    @property
    def last_name(self) -> str:
        """The function's own name, without what it is defined in."""
        return self.name.rpartition(".")[2]

    def name_unit(self, *, by_module: bool = False) -> str:
        """Name the package at the top of infty/ that the function is in, or its module (`training.loop`)."""
        module = self.path.removesuffix(".py").replace("/", ".")
        return module if by_module else module.partition(".")[0]


@dataclass(frozen=True)
class Step:
    """One call between two functions, as a reader meets it; the command has no caller but itself."""

    caller: Call
    callee: Call

    def locate(self) -> Place:
        """Locate the function that is called."""
        return Place(f"infty/{self.callee.path}", self.callee.line, f"{self.caller.name} → {self.callee.name}")


def record_calls(tree: Path) -> list[Call]:
    """Run the command on a tree in a process of its own, in a folder for runs that is then removed.

    Raises RuntimeError if the run ends before its first step.
    """
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "calls.json"
        # Nothing that the user has set shall change the way.
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("INFTY_", "WANDB_"))}
        settings = {"INFTY_RUNS": f"{name}/runs", "WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1"}
        # -P: the folder of the script must not hide modules of the tree.
        done = subprocess.run(
            [sys.executable, "-P", str(Path(__file__).with_name("call_recorder.py")), str(out), *COMMAND],
            cwd=tree,
            env={**kept, **settings, "PYTHONPATH": str(tree)},
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        if not out.is_file():
            raise RuntimeError(f"the first step was not met: {(done.stdout + done.stderr).strip()[-500:]}")
        return [Call(*values) for values in json.loads(out.read_text(encoding="utf-8"))]


def follow_calls(calls: list[Call], sources: list[Source]) -> Iterator[Step]:
    """Follow the calls that a reader follows, in their order, repeated ones too; the command itself comes first."""
    properties = _find_properties(sources)
    readers: list[Call | None] = []  # the function that each call counts for; None if it is left out
    for call in calls:
        caller = call if call.caller is None else readers[call.caller]
        if caller is None or _is_left_out(call, properties):
            readers.append(None)
        elif call.last_name.startswith("<"):
            readers.append(caller)
        else:
            readers.append(call)
            yield Step(caller, call)


def _find_properties(sources: list[Source]) -> set[tuple[str, int]]:
    """Collect where properties are defined: the file below infty/ and the line of the first decorator."""
    return {
        (source.path.partition("/")[2], node.decorator_list[0].lineno)
        for source in sources
        for node in source.functions()
        if any("property" in ast.unparse(decorator) for decorator in node.decorator_list)
    }


def _is_left_out(call: Call, properties: set[tuple[str, int]]) -> bool:
    """Tell if a reader passes over a call."""
    if call.caller is None or call.last_name.startswith("<"):
        return False
    by_library = not call.direct and not call.generator
    return by_library or call.last_name.startswith("__") or (call.path, call.line) in properties


def find_visits(way: list[Step], *, by_module: bool = False) -> list[Step]:
    """Find the steps that begin a visit to a package, or to a module; the command's own is the first."""
    found: list[Step] = []
    known: set[tuple[str, str]] = set()
    here = ""
    for step in way:
        unit, before = (call.name_unit(by_module=by_module) for call in (step.callee, step.caller))
        is_command = not found
        if step.callee.function not in known and (unit != before or is_command):
            if unit != here:
                found.append(step)
            here = unit
        known.add(step.callee.function)
    return found


def find_climbs(way: list[Step], levels: Mapping[str, int]) -> list[Step]:
    """Find the calls from a package to one of a higher level, each pair of functions once."""
    found: dict[tuple[object, object], Step] = {}
    for step in way:
        if levels.get(step.caller.name_unit(), 0) < levels.get(step.callee.name_unit(), 0):
            found.setdefault((step.caller.function, step.callee.function), step)
    return list(found.values())


def count_ascents(way: list[Step], levels: Mapping[str, int]) -> int:
    """Count the visits to a package of a higher level than that of the visit before."""
    heights = [levels.get(step.callee.name_unit(), 0) for step in find_visits(way)]
    return sum(before < after for before, after in pairwise(heights))

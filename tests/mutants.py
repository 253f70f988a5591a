"""Change the memory's code in many places, one at a time, and list which changes its tests do not notice.

`make mutants`. mutmut passes over decorated functions, so it is given a copy of the tree in which each of them is a
plain function that a decorator is applied to afterwards.
"""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import libcst as cst
from libcst import matchers as m

ROOT = Path(__file__).parents[1]
CHANGED = Path("infty/memory")
COPIED = ("infty", "tests", "experiments", "pyproject.toml", "README.md")
SURVIVED, UNTESTED = 0, 33  # mutmut's exit codes; any other: a test noticed

REASONS = {  # why a change of this kind need not be noticed; by what stands in it
    r"strict=": "the lists are of the same length; that they are held to it finds a mistake of our own",
    r"\+ +[f\"']+[A-Zx( ]|XX.*XX|raise \w+\(None\)": "words of a message",
    r"assert_never|_never_attend|NO LOSS": "there is no other case, or it is never called",
    r"vars\(parts\[1\]\)": "all parts have the same names",
    r"stacklevel": "the place that a warning names",
    r"device=None|\.to\(None\)|, \)\.to|convolutions=|mps|MPS|HOST": "the tests have one device, a CPU",
    r"\(\+1|\[\+1\]|\(\+2\)": "the last dimension by its other number",
    r"bias=None": "None is as good as False",
    r"memory_format|full_matrices": "the same numbers in another order of memory",
    r"unknown=": "what can't be known is asked within a transform alone",
    r"dtype=None|num_bins \+ 1, device": "that type is the default",
    r"_C, \"_are": "torch has that function",
    r"padding=": "the weights alone are used: a faster convolution pads by itself",
    r"torch\.empty\(len|torch\.empty\(count": "without numbers, only the shape is of use, and that fits any batch",
    r"torch\.empty\([01]": "only its type and device are looked at",
    r"device=(?s:.*)\+ .*, \)|dtype=(?s:.*)\+ .*, \)": "the device or type is the default here",
    r"_tiles__|x_holds__|round_exact__|_apply__": "it decides how much is done at once, or again; not what",
    r"initialise_graft\(std, None\)": "a memory's own matrices do not depend on the number of layers",
    r"offset = \(\(": "a place that leaves its bin by less than 1e-12 of it, as sums round",
    r"\(none\)|einsum\(\"[A-Z]": "the same in capitals, or without",
    r"missing, 1|STEP \* tiles": "what is padded at the end is not read",
    r"wanted < x|wanted > x|plainly": "it decides how quickly, not what",
    r"arange\(-margin": "from how many points the functions are chosen, and how exact these are",
    r"(?s:[<>] .*\+ .*[<>]=|[<>]= .*\+ .*[<>] )": "no number lies on the boundary",
}


class Undecorator(cst.CSTTransformer):
    """Move the body of each decorated function to a plain function of its module, before the statement it stands in."""

    def __init__(self) -> None:
        super().__init__()
        self.depth = 0  # of functions
        self.classes: list[str] = []
        self.hoisted: list[cst.FunctionDef] = []

    def visit_ClassDef(self, node: cst.ClassDef) -> None:
        self.classes.append(node.name.value)

    def leave_ClassDef(self, original_node: cst.ClassDef, updated_node: cst.ClassDef) -> cst.ClassDef:
        self.classes.pop()
        return updated_node

    def visit_FunctionDef(self, node: cst.FunctionDef) -> None:
        self.depth += 1

    def leave_FunctionDef(
        self, original_node: cst.FunctionDef, updated_node: cst.FunctionDef
    ) -> cst.FunctionDef | cst.SimpleStatementLine:
        self.depth -= 1
        if (
            self.depth
            or not updated_node.decorators
            or (len(updated_node.body.body) == 1 and _is_docstring(updated_node))
        ):
            return updated_node
        name = updated_node.name.value
        plain = "_".join(["_plain", *self.classes, name])
        without = updated_node.with_changes(decorators=[], name=cst.Name(plain), returns=None)
        self.hoisted.append(without.with_changes(params=without.params.visit(_Unannotator())))
        value: cst.BaseExpression = cst.Name(plain)
        for decorator in reversed(updated_node.decorators):
            value = cst.Call(decorator.decorator, [cst.Arg(value)])
        return cst.SimpleStatementLine([cst.Assign([cst.AssignTarget(cst.Name(name))], value)])

    def leave_Module(self, original_node: cst.Module, updated_node: cst.Module) -> cst.Module:
        # The plain functions come after the imports; what they name is looked up when they are called.
        body = list(updated_node.body)
        imports = m.SimpleStatementLine([m.OneOf(m.Import(), m.ImportFrom())])
        place = max((number + 1 for number, line in enumerate(body) if m.matches(line, imports)), default=0)
        return updated_node.with_changes(body=[*body[:place], *self.hoisted, *body[place:]])


class _Unannotator(cst.CSTTransformer):
    def leave_Param(self, original_node: cst.Param, updated_node: cst.Param) -> cst.Param:
        return updated_node.with_changes(annotation=None)


def _is_docstring(function: cst.FunctionDef) -> bool:
    return m.matches(function.body.body[0], m.SimpleStatementLine([m.Expr(m.SimpleString())]))


def prepare(folder: Path) -> None:
    """Copy what the tests need to `folder`, with the memory's decorated functions made plain."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in COPIED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    for path in (folder / CHANGED).rglob("*.py"):
        path.write_text(cst.parse_module(path.read_text()).visit(Undecorator()).code)


def explain(name: str, changed: list[str]) -> str:
    """Explain why no test notices a change, if that is known."""
    text = "\n".join((name, *changed))
    return next((why for pattern, why in REASONS.items() if re.search(pattern, text)), "LOOK AT IT")


def list_results(folder: Path) -> dict[str, int | None]:
    """List how each change ended, by its name; None: it was not tried."""
    metas = sorted((folder / "mutants" / CHANGED).rglob("*.meta"))
    return {name: code for meta in metas for name, code in json.loads(meta.read_text())["exit_code_by_key"].items()}


def print_shares(results: dict[str, int | None]) -> None:
    """Print, by module, how many changes there were and how many the tests noticed."""
    made, noticed = Counter[str](), Counter[str]()
    for name, code in results.items():
        module = name.rpartition(".")[0]
        made[module] += 1
        noticed[module] += code not in (SURVIVED, UNTESTED)
    for module in [*sorted(made), "all"]:
        count, share = (made.total(), noticed.total()) if module == "all" else (made[module], noticed[module])
        print(f"{module:40} {share:5} of {count:5}  {share / count:.1%}")


def main() -> None:
    """Make the copy, let mutmut try every change, and print the shares and the changes that nothing noticed."""
    folder = ROOT / "build/undecorated"
    prepare(folder)
    mutmut = [str(Path(sys.executable).with_name("mutmut"))]
    subprocess.run([*mutmut, "run", "--max-children", "2"], cwd=folder, check=False)
    results = list_results(folder)
    if None in results.values():
        sys.exit("mutmut did not try all of them; why stands above")
    print_shares(results)
    os.chdir(folder)  # where mutmut finds what it made
    show: Any = importlib.import_module("mutmut.__main__").get_diff_for_mutant
    for name, code in results.items():
        if code in (SURVIVED, UNTESTED):
            changed = [line for line in show(name).splitlines() if re.match(r"[+-](?![+-])", line)]
            print(f"{name.removeprefix('infty.memory.')}: {explain(name, changed)}", *changed, sep="\n    ")


if __name__ == "__main__":
    main()

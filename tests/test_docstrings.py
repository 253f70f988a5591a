"""Every public name says what it is, in which shapes and units, what it raises, and where in which paper it stands.

Each rule is simple enough to be doubted. Public is what no underscore begins, in modules and in public classes.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pydantic import BaseModel

import infty
from infty.base import errors
from infty.config.settings import Settings
from infty.experiment import Experiment

ROOT = Path(infty.__file__).parent
Function = ast.FunctionDef | ast.AsyncFunctionDef
BUILTIN = {"KeyError", "TypeError", "ValueError"}
ERRORS = BUILTIN | {name for name, kind in vars(errors).items() if isinstance(kind, type)}
CAUGHT_BY = {"Exception": ERRORS - {"Stopped"}, "InftyError": ERRORS - BUILTIN - {"Stopped"}}
REFERENCE = re.compile(
    r"\bM([1-9]|1[0-7])\b|\bsections? \d|\bequations? \d|\bet al\. (19|20)\d\d|\barXiv \d|\bnot in the paper\b"
)
UNITS = re.compile(
    r"\b(seconds?|bytes?|nats?|bits?|tokens?|words?|symbols?|targets|steps?|FLOPs?|operations|sequences|vectors|keys|"
    r"batch(es| items)|cells?|devices|processes|digits|numbers?|ratio|share|eigenvalue|from 0 to 1|exit code|‖)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Name:
    """A module, class or function: where it is, its docstring and then those around it, and what it lies in."""

    place: str
    node: ast.Module | ast.ClassDef | Function
    texts: tuple[str, ...]
    public: bool
    around: tuple[ast.Module | ast.ClassDef | Function, ...] = ()

    def inner(self) -> Iterator["Name"]:
        yield self
        for node in self.node.body:
            if isinstance(node, ast.ClassDef | Function):
                public = self.public and not node.name.startswith("_") and not isinstance(self.node, Function)
                texts = (ast.get_docstring(node) or "", *self.texts)
                place = f"{self.place.split(':')[0]}:{node.lineno} {node.name}"
                yield from Name(place, node, texts, public, (self.node, *self.around)).inner()


@cache
def every_name() -> list[Name]:
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        module = ast.parse(path.read_text(encoding="utf-8"))
        text = ast.get_docstring(module) or ""
        found += Name(str(path.relative_to(ROOT.parent)), module, (text,), public=True).inner()
    return found


def public_names() -> list[Name]:
    return [name for name in every_name() if name.public]


def test_there_are_names_to_look_at() -> None:
    assert len(public_names()) > 700
    kinds = {type(name.node) for name in public_names()}
    assert kinds == {ast.Module, ast.ClassDef, ast.FunctionDef}


def without_shape(annotation: ast.AST | None) -> list[str]:
    """Tensors and arrays of an annotation that lack what jaxtyping writes beside them: Float[Tensor, "batch n"]."""
    if isinstance(annotation, ast.Subscript) and isinstance(annotation.slice, ast.Tuple):
        last = annotation.slice.elts[-1]
        if len(annotation.slice.elts) == 2 and isinstance(last, ast.Constant) and isinstance(last.value, str):
            return []
    if annotation is None:
        return []
    name = str(getattr(annotation, "id", getattr(annotation, "attr", getattr(annotation, "value", ""))))
    own = [name] if re.fullmatch(r"[\w.]*(Tensor|ndarray|NDArray)", name) else []
    return own + [found for inner in ast.iter_child_nodes(annotation) for found in without_shape(inner)]


def annotations(node: ast.Module | ast.ClassDef | Function) -> Iterator[ast.AST | None]:
    """What a function takes and returns; what a class holds and is made of; what aliases of a module stand for."""
    if isinstance(node, Function):
        a = node.args
        yield from (arg.annotation for arg in (*a.posonlyargs, *a.args, *a.kwonlyargs, a.vararg, a.kwarg) if arg)
        yield node.returns
        return
    for line in node.body:
        if isinstance(line, ast.AnnAssign):
            yield line.annotation
        elif isinstance(line, ast.Assign) and re.match(r"[A-Z][a-z]", getattr(line.targets[0], "id", "")):
            yield line.value
        elif isinstance(line, Function) and line.name == "__init__":
            yield from annotations(line)


def test_every_tensor_and_array_of_a_public_name_has_its_shape() -> None:
    told = [(name.place, annotation) for name in public_names() for annotation in annotations(name.node)]
    assert [f"{place}: {found}" for place, annotation in told if (found := without_shape(annotation))] == []


def raised(name: Name, function: Function, seen: frozenset[str] = frozenset()) -> set[str]:
    """Errors that leave a function by its own `raise`, or by that of private functions around it that it calls."""
    near = [node for around in (name.node, *name.around) for node in around.body if isinstance(node, Function)]
    private = {node.name: node for node in near if node.name.startswith("_")}

    def leaving(node: ast.AST, caught: frozenset[str]) -> set[str]:
        if isinstance(node, ast.Try):
            kinds = [kind for handler in node.handlers for kind in ast.walk(handler.type or ast.Name("Exception"))]
            names = {kind.id for kind in kinds if isinstance(kind, ast.Name)}
            held = caught | names | {error for kind in names for error in CAUGHT_BY.get(kind, ())}
            rest = [*node.handlers, *node.orelse, *node.finalbody]
            return {e for n in node.body for e in leaving(n, held)} | {e for n in rest for e in leaving(n, caught)}
        found = {error for inner in ast.iter_child_nodes(node) for error in leaving(inner, caught)}
        if isinstance(node, ast.Raise):
            kind = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            found |= {getattr(kind, "id", "")}
            called = private.get(getattr(kind, "id", getattr(kind, "attr", "")))
            found |= {getattr(called.returns, "id", "")} if called else set()  # raise _damaged(path)
        if isinstance(node, ast.Call):
            callee = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if callee in private and callee not in seen:
                found |= raised(name, private[callee], seen | {callee})
        return found - caught

    return {error for line in function.body for error in leaving(line, frozenset())} & ERRORS


@cache
def registered() -> str:
    """The lines of the command line that make a command of a function without decorating it."""
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "cli").glob("*.py")]
    return "\n".join(line for text in texts for line in text.splitlines() if ".command(" in line)


def is_command(name: Name) -> bool:
    """Whether it is a command of the command line: its docstring is its help, and its errors are exit codes."""
    decorators = " ".join(map(ast.unparse, getattr(name.node, "decorator_list", [])))
    own = getattr(name.node, "name", "")
    return any(sign in decorators for sign in (".command(", ".callback(")) or f")({own})\n" in f"{registered()}\n"


def test_every_error_that_a_public_function_raises_is_named_in_its_docstring() -> None:
    """Also what ruff does not see: docstrings of one line, and errors that private functions raise for a public one."""
    faults = []
    for name in public_names():
        if isinstance(name.node, ast.Module) or is_command(name):
            continue
        making = ("__init__", "__post_init__")  # what they raise stands in the class's docstring
        within = [n for n in name.node.body if isinstance(n, Function) and n.name in making]
        functions = [name.node] if isinstance(name.node, Function) else within
        raising = {error for function in functions for error in raised(name, function)}
        faults += [f"{name.place}: {error}" for error in sorted(raising) if error not in name.texts[0]]
    assert faults == []


def test_every_public_name_of_the_memory_the_models_and_the_tasks_says_where_it_is_from() -> None:
    """A section or an equation of the paper, or another paper: a method may leave that to its class.

    In the memory, which is the paper's core, a class or function says it itself; elsewhere its module may.
    """
    faults = []
    for name in public_names():
        room = Path(name.place.split(":")[0]).with_suffix("").parts[1]
        if room in ("memory", "model", "tasks"):
            itself = room == "memory" and name.around
            texts = name.texts[:-1] if itself else name.texts
            faults += [] if REFERENCE.search("\n".join(texts)) else [name.place]
    assert faults == []


def test_every_public_function_that_returns_a_number_says_of_what() -> None:
    faults = []
    for name in public_names():
        returns = ast.unparse(name.node.returns) if isinstance(name.node, Function) and name.node.returns else ""
        if re.fullmatch(r"(int|float)( \| None)?", returns) and not UNITS.search(name.texts[0]):
            faults.append(f"{name.place}: {name.texts[0][:60]!r}")
    assert faults == []


def configs(kind: object) -> set[type[BaseModel]]:
    """The configurations that a configuration is made of, itself among them."""
    parts = {part for inner in getattr(kind, "__args__", ()) for part in configs(inner)}
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        parts |= {part for field in kind.model_fields.values() for part in configs(field.annotation)} | {kind}
    return parts


def test_every_setting_of_an_experiment_and_of_the_machine_says_what_it_is() -> None:
    found = configs(Experiment) | configs(Settings)
    assert len(found) > 10
    assert {f"{c.__name__}.{n}" for c in found for n, field in c.model_fields.items() if not field.description} == set()

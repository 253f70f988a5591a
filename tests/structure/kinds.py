"""Branches on the kind of a task, model or memory, outside the packages of tasks, models and memories.

A kind is a class that infty/tasks, infty/model or infty/memory defines, or one elsewhere that inherits from such a
class. A branch is one of these, outside those three packages:

- a call of `isinstance` or `issubclass` that names a kind; not in an assert, which only tells the type checker;
- a `match` statement with a pattern that names a kind;
- a comparison of an attribute `kind` of a task, model or memory (`x.task.kind == "corpus"`, `model.kind in (...)`), or
  a `match` on one: what the attribute is taken from must say by its name that it is or belongs to one.
"""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tests.structure.source import Place, Source

OWNERS = ("tasks", "model", "memory")
SUBJECTS = {"task": "tasks", "model": "model", "memory": "memory", "long_range": "memory"}


@dataclass(frozen=True)
class Branch:
    """A branch on a kind; `owner` is the package that defines the kind."""

    place: Place
    owner: str


def find_branches_on_kind(sources: list[Source]) -> list[Branch]:
    """Find every branch on a kind outside the packages that own kinds."""
    kinds = _collect_kinds(sources)
    return [
        Branch(source.locate(node), owner)
        for source in sources
        if source.package not in OWNERS
        for node, owner in sorted(_walk_branches(source.module, kinds), key=lambda branch: branch[0].lineno)
    ]


def _collect_kinds(sources: list[Source]) -> dict[str, str]:
    """Collect the classes of tasks, models and memories and their heirs in other packages, each with its owner."""
    classes = [
        (source.package, node) for source in sources for node in source.nodes() if isinstance(node, ast.ClassDef)
    ]
    kinds = {node.name: package for package, node in classes if package in OWNERS}
    ahead = True
    while ahead:
        heirs = {node.name: owner for _, node in classes for owner in _find_owner(node.bases, kinds)}
        ahead = heirs.keys() - kinds.keys()
        kinds = {**heirs, **kinds}
    return kinds


def _find_owner(nodes: list[ast.expr], kinds: Mapping[str, str]) -> list[str]:
    """Find the owner of the first kind that expressions name; none if they name no kind."""
    inner = [node for outer in nodes for node in ast.walk(outer)]
    names = [str(getattr(node, "id", getattr(node, "attr", ""))) for node in inner]
    return [kinds[name] for name in names if name in kinds][:1]


def _walk_branches(node: ast.AST, kinds: Mapping[str, str]) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
    """Walk the branches below a node, each with the owner of its kind; asserts are passed over."""
    match node:
        case ast.Assert():
            return
        case ast.Call(func=ast.Name(id="isinstance" | "issubclass"), args=[_, wanted]):
            yield from ((node, owner) for owner in _find_owner([wanted], kinds))
        case ast.Match(subject=subject, cases=cases):
            inner = [pattern for case in cases for pattern in ast.walk(case.pattern)]
            named = [pattern.cls for pattern in inner if isinstance(pattern, ast.MatchClass)]
            yield from ((node, owner) for owner in (_read_kind(subject) or _find_owner(named, kinds)))
        case ast.Compare(left=left):
            yield from ((node, owner) for owner in _read_kind(left))
    for inner in ast.iter_child_nodes(node):
        yield from _walk_branches(inner, kinds)


def _read_kind(node: ast.expr) -> list[str]:
    """Find whose kind an expression reads, if it is the attribute `kind` of a task, model or memory."""
    if not (isinstance(node, ast.Attribute) and node.attr == "kind"):
        return []
    subject = ast.unparse(node.value).lower()
    return [owner for word, owner in SUBJECTS.items() if word in subject][:1]

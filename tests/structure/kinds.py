"""Branches on the kind of a task, model or memory, outside the packages of tasks, models and memories.

A kind is a class that infty/tasks, infty/model or infty/memory defines, or one elsewhere that inherits from such a class.
A branch is one of these, outside those three packages:

- a call of `isinstance` or `issubclass` that names a kind, asserts left out, which only tell the type checker;
- a `match` statement with a case that is a pattern of a kind;
- a comparison of an attribute `kind` with a constant or constants (`x.kind == "gpt2"`, `x.kind in (...)`), or a `match`
  on an attribute `kind`, if the object's name says that it is a task, model or memory.
"""

import ast
from collections.abc import Iterator

from tests.structure.source import Place, Source

OWNERS = {"tasks", "model", "memory"}
SUBJECTS = ("task", "model", "memory", "long_range")


def branches_on_kind(sources: list[Source]) -> list[Place]:
    """Find every branch on a kind outside the packages that own kinds."""
    kinds = _kinds(sources)
    return [
        source.place(node)
        for source in sources
        if source.package not in OWNERS
        for node in sorted(_branches(source.module, kinds), key=lambda node: node.lineno)
    ]


def _kinds(sources: list[Source]) -> set[str]:
    """Name the classes of tasks, models and memories, and their heirs in other packages."""
    classes = [
        (source.package, node) for source in sources for node in source.nodes() if isinstance(node, ast.ClassDef)
    ]
    kinds = {node.name for package, node in classes if package in OWNERS}
    while heirs := {node.name for _, node in classes if any(_names(b) & kinds for b in node.bases)} - kinds:
        kinds |= heirs
    return kinds


def _names(node: ast.AST) -> set[str]:
    """Collect the names and the last components of attributes in an expression."""
    found = {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}
    return found | {inner.attr for inner in ast.walk(node) if isinstance(inner, ast.Attribute)}


def _branches(node: ast.AST, kinds: set[str]) -> Iterator[ast.expr | ast.stmt]:
    """Walk the branches below a node; into asserts no further."""
    match node:
        case ast.Assert():
            return
        case ast.Call(func=ast.Name(id="isinstance" | "issubclass"), args=[_, wanted]) if _names(wanted) & kinds:
            yield node
        case ast.Match(subject=subject, cases=cases):
            patterns = [
                inner for case in cases for inner in ast.walk(case.pattern) if isinstance(inner, ast.MatchClass)
            ]
            if _asks_kind(subject) or any(_names(pattern.cls) & kinds for pattern in patterns):
                yield node
        case ast.Compare(left=left) if _asks_kind(left):
            yield node
    for inner in ast.iter_child_nodes(node):
        yield from _branches(inner, kinds)


def _asks_kind(node: ast.expr) -> bool:
    """Tell if an expression is the attribute `kind` of a task, model or memory."""
    if not (isinstance(node, ast.Attribute) and node.attr == "kind"):
        return False
    return any(word in ast.unparse(node.value).lower() for word in SUBJECTS)

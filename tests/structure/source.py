"""The Python files of infty/, parsed: what all measures of the structure read."""

import ast
import io
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

Function = ast.FunctionDef | ast.AsyncFunctionDef
Definition = ast.Module | ast.ClassDef | Function


@dataclass(frozen=True)
class Place:
    """A line of a file that a measure counts, and what stands there."""

    path: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text}"


@dataclass(frozen=True)
class Source:
    """One Python file of infty/: `path` is relative to the tree that holds infty/, with forward slashes."""

    path: str
    text: str

    @property
    def parts(self) -> list[str]:
        """The path below infty/ without suffixes: `["report", "tables"]`."""
        return self.path.removesuffix(".py").split("/")[1:]

    @property
    def package(self) -> str:
        """The package or module at the top of infty/ that the file belongs to, `__init__` and `__main__` among them."""
        return self.parts[0]

    @cached_property
    def module(self) -> ast.Module:
        """The parsed file."""
        return ast.parse(self.text)

    @cached_property
    def lines(self) -> list[str]:
        """The lines of the file."""
        return self.text.splitlines()

    @cached_property
    def comment_lines(self) -> set[int]:
        """Numbers of the lines that hold a comment and nothing else."""
        tokens = tokenize.generate_tokens(io.StringIO(self.text).readline)
        return {t.start[0] for t in tokens if t.type == tokenize.COMMENT and t.line.lstrip().startswith("#")}

    def nodes(self) -> Iterator[ast.AST]:
        """Walk all nodes of the file."""
        return ast.walk(self.module)

    def functions(self) -> Iterator[Function]:
        """Walk all functions and methods of the file, nested ones among them."""
        return (node for node in self.nodes() if isinstance(node, Function))

    def locate(self, node: ast.expr | ast.stmt | Function, text: str = "") -> Place:
        """Locate a node; by default with the text of its line."""
        return Place(self.path, node.lineno, text or self.lines[node.lineno - 1].strip())


def read_sources(tree: Path, folder: str = "infty") -> list[Source]:
    """Read every Python file of a folder of a tree."""
    paths = sorted((tree / folder).rglob("*.py"))
    return [Source(path.relative_to(tree).as_posix(), path.read_text(encoding="utf-8")) for path in paths]

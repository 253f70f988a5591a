"""Packages at the top of infty/, who imports whom, and the level of each.

A package here is a folder or a module at the top of infty/, other than `__init__` and `__main__`. It imports another if
any of its files names it in an import statement, anywhere in the file: inside functions and under TYPE_CHECKING too.
"""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tests.structure.source import Source

OUTSIDE = {"__init__", "__main__"}  # the doors of infty, no packages of their own


@dataclass(frozen=True)
class ImportGraph:
    """Packages at the top of infty/ and what each imports."""

    imports: Mapping[str, frozenset[str]]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Ordered pairs: the first imports the second."""
        return [(one, other) for one, others in sorted(self.imports.items()) for other in sorted(others)]

    @property
    def circles(self) -> list[list[str]]:
        """Largest sets of two or more packages that all reach one another through imports."""
        groups = {frozenset(self._find_circle(package)) for package in self.imports}
        return sorted(sorted(group) for group in groups if len(group) > 1)

    @property
    def levels(self) -> dict[str, int]:
        """The longest chain of imports below each package: 0 imports nothing. A circle counts as one package."""
        circles = {package: frozenset(self._find_circle(package)) for package in self.imports}
        levels: dict[frozenset[str], int] = {}

        def level(circle: frozenset[str]) -> int:
            if circle not in levels:
                below = {circles[other] for package in circle for other in self.imports[package]} - {circle}
                levels[circle] = max((level(other) + 1 for other in below), default=0)
            return levels[circle]

        return {package: level(circle) for package, circle in circles.items()}

    def _follow_imports(self, package: str) -> set[str]:
        """Follow imports, one or more, from a package."""
        found: set[str] = set()
        ahead = list(self.imports[package])
        while ahead:
            if (other := ahead.pop()) not in found:
                found.add(other)
                ahead.extend(self.imports[other])
        return found

    def _find_circle(self, package: str) -> set[str]:
        """Find the packages in a circle with this one, itself among them."""
        return {package, *(other for other in self._follow_imports(package) if package in self._follow_imports(other))}


def read_imports(sources: list[Source]) -> ImportGraph:
    """Draw the graph of imports between the packages of infty."""
    packages = {source.package for source in sources} - OUTSIDE
    imports: dict[str, set[str]] = {package: set() for package in packages}
    for source in sources:
        if source.package in packages:
            imports[source.package] |= set(_walk_imported_packages(source)) & packages - {source.package}
    return ImportGraph({package: frozenset(others) for package, others in imports.items()})


def _walk_imported_packages(source: Source) -> Iterator[str]:
    """Walk the names below infty that a file imports, each cut to its first component."""
    for node in source.nodes():
        match node:
            case ast.Import(names=names):
                dotted = [alias.name for alias in names]
            case ast.ImportFrom(module=module, names=names, level=level):
                base = _resolve_module(source, module, level)
                dotted = [f"{base}.{alias.name}" for alias in names]
            case _:
                continue
        yield from (name.split(".")[1] for name in dotted if name.startswith("infty."))


def _resolve_module(source: Source, module: str | None, level: int) -> str:
    """Resolve the module of a `from` import, relative ones too."""
    if level == 0:
        return module or ""
    folder = source.path.split("/")[:-1]
    return ".".join([*folder[: len(folder) - level + 1], *filter(None, [module])])

"""Records that are read by string: constant keys of subscripts and of `.get` in the report and in `report --check`.

Every `x["key"]` that reads and every `x.get("key")` in infty/report and in the module of the check is counted once, a
chain `x["a"]["b"]` twice; dictionaries of the report's own making too, since the eye can't tell them apart. Left out:
annotations (`Literal["md"]`), and what matplotlib hands out by name (`axes["density"]`).
"""

import ast

from tests.structure.source import Place, Source

CHECKS = (["verification"], ["commands", "check"])
NO_RECORDS = {"Literal", "axes", "rcParams"}


def find_string_indexes(sources: list[Source]) -> list[Place]:
    """Find every reading by a constant string in the report and the check."""
    found = []
    for source in sources:
        if source.package == "report" or source.parts[:2] in CHECKS or source.parts[:1] in CHECKS:
            nodes = [node for node in source.nodes() if isinstance(node, ast.expr) and _reads_by_string(node)]
            found += [source.locate(node, ast.unparse(node)) for node in sorted(nodes, key=_order_in_file)]
    return found


def _order_in_file(node: ast.expr) -> tuple[int, int, int]:
    """Order nodes as they stand in the file, the outer of a chain last."""
    return node.lineno, node.col_offset, node.end_col_offset or 0


def _reads_by_string(node: ast.expr) -> bool:
    """Tell if an expression reads a value by a constant string."""
    match node:
        case ast.Subscript(value=value, slice=ast.Constant(value=str()), ctx=ast.Load()):
            return not (isinstance(value, ast.Name) and value.id in NO_RECORDS)
        case ast.Call(func=ast.Attribute(attr="get"), args=[ast.Constant(value=str()), *_]):
            return True
        case _:
            return False

"""Lines of code, and long functions with and without comments.

Lines are those of Python files, blank lines and docstrings included; lines with a comment alone are counted apart. The
body of a function begins after its signature and docstring. It is long if it has more than 25 lines, and its stages
count as named if two or more lines of the body hold a comment alone.
"""

import ast

from tests.structure.source import Function, Place, Source

LONG = 25
NAMED_STAGES = 2  # comments that a long function should have at the least


def count_lines(sources: list[Source]) -> tuple[int, int]:
    """Count the lines of all files: without those that hold a comment alone, and with them."""
    raw = sum(len(source.lines) for source in sources)
    return raw - sum(len(source.comment_lines) for source in sources), raw


def find_long_functions(sources: list[Source]) -> list[tuple[Place, int]]:
    """Find the functions whose body is long, each with the number of lines of its body that hold a comment alone."""
    found = []
    for source in sources:
        for node in source.functions():
            body = _number_body_lines(source, node)
            if len(body) > LONG:
                comments = len(source.comment_lines.intersection(body))
                found.append((source.locate(node, f"{node.name}: {len(body)} lines, {comments} comments"), comments))
    return found


def _number_body_lines(source: Source, node: Function) -> range:
    """Number the lines of a function's body without its docstring; comments above the first statement belong to it."""
    if ast.get_docstring(node) is not None:
        begin = (node.body[0].end_lineno or 0) + 1
    else:
        begin = node.body[0].lineno
        while begin - 1 in source.comment_lines:
            begin -= 1
    return range(begin, (node.end_lineno or 0) + 1)

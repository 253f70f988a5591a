"""How docstrings begin and what functions are called.

A docstring begins with a question word if its first word is what, where, whether or how. A function's name is a
participle if its first or last word ends in "ed" or is the participle of an irregular verb (`told`, `kept_status`),
properties, dunder methods and questions (`is_shared`, `has_moved`) left out. Participles that are also the plain verb
(read, set, split) don't count.
"""

import ast
import re

from tests.structure.source import Definition, Function, Place, Source

QUESTIONS = re.compile(r"(what|where|whether|how)\b", re.IGNORECASE)
IRREGULAR = frozenset(
    "begun born bound bought broken brought built caught chosen dealt done drawn driven eaten fallen fed felt fitted "
    "forgotten found frozen given gone gotten grown heard held hidden kept known laid learnt led lent lost made meant "
    "met paid proven said seen sent shaken shown slept sold sought spelt spent spoken stood stuck sunk sworn "
    "taken taught thrown told torn understood unknown woken won worn woven written".split()
)
NO_PARTICIPLES = frozenset("bed embed exceed feed need proceed red seed shed speed succeed".split())
ASKS = frozenset("are can do does has have is may must should was were will".split())


def docstrings(sources: list[Source]) -> list[tuple[Place, str]]:
    """Collect the docstrings of all modules, classes and functions, each with its place."""
    found = []
    for source in sources:
        for node in source.nodes():
            if isinstance(node, Definition) and (text := ast.get_docstring(node)):
                line = 1 if isinstance(node, ast.Module) else node.lineno
                found.append((Place(source.path, line, text.splitlines()[0]), text))
    return found


def question_docstrings(sources: list[Source]) -> list[Place]:
    """Find the docstrings that begin with a question word."""
    return [place for place, text in docstrings(sources) if QUESTIONS.match(text)]


def named_functions(sources: list[Source]) -> list[tuple[Place, str]]:
    """Collect the functions whose name is judged, each with its place: all but properties and dunder methods."""
    found = []
    for source in sources:
        for node in source.functions():
            if not _is_property(node) and not node.name.startswith("__"):
                found.append((source.place(node, node.name), node.name))
    return found


def participle_functions(sources: list[Source]) -> list[Place]:
    """Find the functions whose name is a participle."""
    return [place for place, name in named_functions(sources) if is_participle(name)]


def is_participle(name: str) -> bool:
    """Tell if a function's name begins or ends with a participle and asks nothing."""
    words = name.strip("_").lower().split("_")
    return words[0] not in ASKS and any(_is_participle_word(word) for word in (words[0], words[-1]))


def _is_participle_word(word: str) -> bool:
    """Tell if one word is a participle, of a regular or an irregular verb."""
    return word in IRREGULAR or (word.endswith("ed") and len(word) > 3 and word not in NO_PARTICIPLES)


def _is_property(node: Function) -> bool:
    """Tell if a function is read like an attribute."""
    return any("property" in ast.unparse(one) or ".setter" in ast.unparse(one) for one in node.decorator_list)

"""How docstrings begin and what functions are called.

A docstring begins with a question word if its first word is what, where, whether or how.

A function's name is a participle if its first word is one (`told`, `kept_status`), or if its last word is one and its
first is no verb of the list below (`tokens_seen`, but not `refuse_damaged`). A word is a participle if it ends in "ed"
or is in the list of irregular ones; those that are also the plain verb (read, set, split) are not. Properties, methods
with double underscores and questions (`is_shared`, `has_moved`) are not judged.
"""

import ast
import re

from tests.structure.source import Definition, Function, Place, Source

QUESTIONS = re.compile(r"(what|where|whether|how)\b", re.IGNORECASE)
IRREGULAR = frozenset(re.findall(r"\w+", """
    begun born bound bought broken brought built caught chosen dealt done drawn driven eaten fallen fed felt forgotten
    found frozen given gone grown heard held hidden kept known laid learnt led lent lost made meant met paid proven said
    seen sent shaken shown slept sold sought spelt spent spoken stood stuck sunk sworn taken taught thrown told torn
    understood unknown won worn woven written
"""))  # fmt: skip
NO_PARTICIPLES = frozenset(re.findall(r"\w+", "bed embed exceed feed need proceed red seed shed speed succeed"))
VERBS = frozenset(re.findall(r"\w+", """
    assert check collect count drop fill find from get keep list load make mark open print raise read refuse remove
    replace report save skip take warn write
"""))  # fmt: skip
ASKS = frozenset(re.findall(r"\w+", "are can do does has have is may must should was were will"))


def collect_docstrings(sources: list[Source]) -> list[Place]:
    """Collect the docstrings of all modules, classes and functions by their first lines."""
    found = []
    for source in sources:
        for node in source.nodes():
            if isinstance(node, Definition) and (text := ast.get_docstring(node)):
                line = 1 if isinstance(node, ast.Module) else node.lineno
                found.append(Place(source.path, line, text.splitlines()[0]))
    return found


def find_questions(sources: list[Source]) -> list[Place]:
    """Find the docstrings that begin with a question word."""
    return [place for place in collect_docstrings(sources) if QUESTIONS.match(place.text)]


def collect_functions(sources: list[Source]) -> list[Place]:
    """Collect the functions whose name is judged, by their names."""
    found = []
    for source in sources:
        for node in source.functions():
            if not _is_property(node) and not node.name.startswith("__"):
                found.append(source.locate(node, node.name))
    return found


def find_participles(sources: list[Source]) -> list[Place]:
    """Find the functions whose name is a participle."""
    return [place for place in collect_functions(sources) if is_participle(place.text)]


def is_participle(name: str) -> bool:
    """Tell if a function's name is a participle, or begins or ends with one and is no verb."""
    first, *_, last = [*(words := name.strip("_").lower().split("_")), words[-1]]
    if first in ASKS:
        return False
    return _is_participle_word(first) or (first not in VERBS and _is_participle_word(last))


def _is_participle_word(word: str) -> bool:
    """Tell if one word is a participle, of a regular or an irregular verb."""
    return word in IRREGULAR or (word.endswith("ed") and len(word) > 3 and word not in NO_PARTICIPLES)


def _is_property(node: Function) -> bool:
    """Tell if a function is read like an attribute."""
    return any("property" in ast.unparse(one) or ".setter" in ast.unparse(one) for one in node.decorator_list)

"""YAML as safe_load reads it, and strictly for experiment files. Invalid YAML is a ValueError of one line."""

import re
from collections.abc import Iterator
from typing import Any, TypeVar

import yaml

DEEPEST = 50  # mappings and lists within each other; an experiment has seven
MOST = 100_000  # values, an alias counting for all that it refers to; an experiment has some hundreds
FEW = 20  # brackets in a text that a library in C may read
_DEEP = re.compile(r"^(?: {40}|.*[-?] +[-?] )", re.MULTILINE)  # far to the right, or lists and keys within each other
Loader = TypeVar("Loader", bound=yaml.SafeLoader)


class PlainLoader(yaml.SafeLoader):
    """A loader with safe_load's semantics that refuses excessive nesting before it takes excessive time."""

    def fetch_flow_collection_start(self, TokenClass: type[yaml.Token]) -> None:  # noqa: N803
        """Begin the list or mapping that `[` or `{` opens; ValueError if it is nested too deeply."""
        if self.flow_level >= DEEPEST:
            raise ValueError("nested too deeply")
        super().fetch_flow_collection_start(TokenClass)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Merge what a mapping has under `<<`; ValueError if it then holds too much."""
        super().flatten_mapping(node)
        if len(node.value) > MOST:
            raise ValueError("holds too much")


class StrictLoader(PlainLoader):
    """PlainLoader, but keys that stand twice are noted, and 1e-4 is a number."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.doubles: list[tuple[str, int]] = []

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Note doubled keys before the mapping drops them."""
        seen: set[str] = set()
        for key_node, _ in node.value if isinstance(node, yaml.MappingNode) else ():  # none: `!!map x`
            if isinstance(key_node, yaml.ScalarNode):
                if key_node.value in seen:
                    self.doubles.append((key_node.value, key_node.start_mark.line + 1))
                seen.add(key_node.value)
        return super().construct_mapping(node, deep)


StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


# The same values as PlainLoader's in a tenth of the time, if there is the C library. Only for little nesting.
QuickLoader: Any = getattr(yaml, "CSafeLoader", PlainLoader)


def parse_yaml(text: str) -> Any:
    """Parse YAML as safe_load reads it, which is how safe_dump wrote it. ValueError if it is not YAML."""
    return _parse(text, QuickLoader if _is_nested_little(text) else PlainLoader)[0]


def _is_nested_little(text: str) -> bool:
    """Tell by its characters alone that nesting can't be deep and nothing is repeated: C's stack is limited."""
    flat = text.count("[") + text.count("{") < FEW and not _DEEP.search(text)
    return flat and not any(sign in text for sign in "&*!\t\r\x85\u2028\u2029")


def parse_strictly(text: str) -> tuple[Any, list[tuple[str, int]]]:
    """Parse YAML as people write it, and note keys that stand twice, with their lines. ValueError if it is not YAML."""
    value, loader = _parse(text, StrictLoader)
    return value, loader.doubles


def _parse(text: str, kind: type[Loader]) -> tuple[Any, Loader]:
    try:
        loader = kind(text)
        value = loader.get_single_data()
        for count, found in enumerate(_all_values(value)):
            if count > MOST:
                raise ValueError("holds too much")
            if isinstance(found, int):
                str(found)  # ValueError: an integer of more digits than Python writes
    except yaml.MarkedYAMLError as fault:
        line = f"line {fault.problem_mark.line + 1}: " if fault.problem_mark else ""
        raise ValueError(f"{line}not valid YAML: {fault.problem}") from None
    except (yaml.YAMLError, ValueError) as fault:
        raise ValueError(f"can't be read: {str(fault).splitlines()[0]}") from None
    except RecursionError:
        raise ValueError("can't be read: nested too deeply") from None
    except (AttributeError, LookupError, OverflowError):  # PyYAML's own, of `!!bool x`, `!!int ''` and their like
        raise ValueError("not valid YAML: a tag stands before what it is not for") from None
    return value, loader


def _all_values(value: Any, around: tuple[int, ...] = ()) -> Iterator[Any]:
    """Yield every value and key within, as often as it is referred to. ValueError if one is within itself."""
    if id(value) in around:
        raise ValueError("Circular reference")
    if len(around) > DEEPEST:
        raise ValueError("nested too deeply")
    yield value
    inner = (*value, *value.values()) if isinstance(value, dict) else value
    for item in inner if isinstance(value, dict | list | tuple | set) else ():
        yield from _all_values(item, (*around, id(value)))

"""Faults of configurations, each with its origin and key, in the words of the file."""

import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ValidationError

from infty.base.errors import UsageError, one_line, suggest

Origins = dict[tuple[str, ...], str]  # of each key, the layer that set it


@dataclass(frozen=True)
class Fault:
    """Something wrong in a configuration: in which file or option, at which key, and what to do."""

    origin: str
    key: str
    message: str

    def __str__(self) -> str:
        return one_line(": ".join(filter(None, (self.origin, one_line(self.key), self.message))), 1000)


def raise_faults(faults: list[Fault]) -> None:
    """Raise UsageError with every fault, a line each, if there is one."""
    if faults:
        raise UsageError("\n".join(dict.fromkeys(map(str, faults))))


def quote(value: Any) -> str:
    """Quote a value in a message: in one line, and shortened if it is long."""
    try:
        return one_line(repr(value))
    except ValueError:  # an integer of more digits than Python writes
        return "a number without end"


WANTED = {
    "int_type": "wanted an integer",
    "int_from_float": "wanted an integer",
    "int_parsing": "wanted an integer",
    "int_parsing_size": "wanted an integer",
    "float_type": "wanted a number",
    "float_parsing": "wanted a number",
    "bool_type": "wanted true or false",
    "bool_parsing": "wanted true or false",
    "string_type": "wanted text",
    "tuple_type": "wanted a list",
    "model_type": "wanted a mapping",
    "model_attributes_type": "wanted a mapping",
    "dict_type": "wanted a mapping",
}


def reword(detail: Mapping[str, Any]) -> str:
    """Say in a user's words what one of pydantic's errors wanted, without the value that it got."""
    if detail["type"] in WANTED:
        return WANTED[detail["type"]]
    return detail["msg"].removeprefix("Value error, ").replace("Input should be", "must be")


def value_faults(error: ValidationError, root: type[BaseModel], origins: Origins, default: str) -> list[Fault]:
    """Collect pydantic's errors; for a mapping whose `kind` is wrong only that, since its keys have no meaning."""
    faults = [_fault(detail, root, origins, default) for detail in error.errors()]
    unknown = [fault.key.removesuffix("kind") for fault in faults if fault.key.endswith(".kind")]
    return [f for f in faults if f.key.endswith(".kind") or not any(f.key.startswith(key) for key in unknown)]


def _fault(detail: Any, root: type[BaseModel], origins: Origins, default: str) -> Fault:
    """Express one of pydantic's errors in the words of the file."""
    path, allowed = _key_path(root, detail["loc"])
    kind, context, given = detail["type"], detail.get("ctx", {}), quote(detail["input"])
    if kind == "extra_forbidden":
        message = f"unknown key; {suggest(path[-1], allowed)}"
    elif kind == "missing":
        message = "is missing"
    elif kind == "union_tag_invalid":
        message = f"wanted kind: {context['expected_tags']}, got {quote(context['tag'])}"
        path = (*path, "kind")
    elif kind == "union_tag_not_found":
        message = "its kind is missing"
    elif kind == "value_error":
        message = str(context["error"])
    else:
        message = f"{reword(detail)}, got {given}"
    return Fault(origin_of(origins, path, default), ".".join(path), message)


def _key_path(root: type[BaseModel], location: tuple[Any, ...]) -> tuple[tuple[str, ...], list[str]]:
    """Return pydantic's location as keys, and the keys that are allowed beside the last."""
    path, allowed, choices = list[str](), list[str](), list[Any]([root])
    for part in map(str, location):
        if len(choices) > 1:  # pydantic names which of several types the value was checked against: that is no key
            choices = [choice for choice in choices if part in _tags(choice)][:1]
            continue
        path.append(part)
        fields = getattr(choices[0], "model_fields", {}) if choices else {}
        allowed = list(fields)
        choices = _alternatives(fields[part].annotation) if part in fields else []
    return tuple(path), allowed


def _alternatives(annotation: Any) -> list[Any]:
    """List the types that a value may have, but for None."""
    if typing.get_origin(annotation) is Annotated:
        return _alternatives(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [found for inner in typing.get_args(annotation) for found in _alternatives(inner)]
    return [] if annotation is types.NoneType else [annotation]


def _tags(choice: Any) -> tuple[str, ...]:
    """Return the names that pydantic may give to one of several alternatives."""
    kind = getattr(choice, "model_fields", {}).get("kind")
    return (kind.default if kind else "", getattr(choice, "__name__", ""))


def origin_of(origins: Origins, path: tuple[str, ...], default: str) -> str:
    """Name the layer that set `path`, or what lies in it, or the nearest mapping around it."""
    around = (path[:end] for end in range(len(path), 0, -1))
    return next((origins[keys] for keys in around if keys in origins), default)

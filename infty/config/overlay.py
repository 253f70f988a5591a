"""Overlays: mappings merged deeply, and which of them each key came from."""

from typing import Any

from infty.config.faults import Fault, quote
from infty.config.strict_yaml import DEEPEST, parse_strictly

Values = dict[str, Any]


def overlay(layers: list[tuple[str, Values]]) -> tuple[Values, dict[tuple[str, ...], str]]:
    """Merge layers deeply, and say which layer each key came from. Lists are replaced."""
    merged: Values = {}
    origins: dict[tuple[str, ...], str] = {}
    for origin, values in layers:
        _merge(merged, values, origin, (), origins)
    return merged, origins


def parse_override(text: str) -> tuple[Values, Fault | None]:
    """Parse `key.path=value` of `--set` into a nested mapping, or say what is wrong; the value is YAML."""
    key, equals, value = text.partition("=")
    if not equals or not all(key.split(".")):
        return {}, Fault("--set", text, "wanted key.path=value")
    if key.count(".") > DEEPEST:
        return {}, Fault("--set", key, "is nested too deeply")
    try:
        nested, doubles = parse_strictly(value)
    except ValueError:
        return {}, Fault("--set", key, f"{quote(value)} is not a YAML value")
    if doubles:
        return {}, Fault("--set", f"{key}.{doubles[0][0]}", "stands twice")
    for part in reversed(key.split(".")):
        nested = {part: nested}
    return nested, None


def _merge(
    merged: Values, values: Values, origin: str, path: tuple[str, ...], origins: dict[tuple[str, ...], str]
) -> None:
    for key, value in values.items():
        here, below = (*path, key), merged.get(key)
        # A mapping that names another `kind` than the one beneath it replaces that, whose keys belong to another thing.
        kind = below.get("kind") if isinstance(below, dict) else None
        if not (isinstance(value, dict) and isinstance(below, dict) and value.get("kind", kind) == kind):
            for known in [known for known in origins if known[: len(here)] == here]:
                del origins[known]
            merged[key] = {} if isinstance(value, dict) else value
            origins[here] = origin
        if isinstance(value, dict):
            _merge(merged[key], value, origin, here, origins)

"""Files that went wrong, for property tests: bytes cut, doubled, altered, and values that do not belong."""

import copy
import json
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

# What breaks readers that are trusting: ends of numbers and of nesting, other encodings, what asks to be run.
NASTY = (
    b"", b"\x00", b"\xff\xfe", b"\xed\xa0\x80", b"\r", b"\n\n", b"null", b"NaN", b"-Infinity", b"1e999", b"-1",
    b"9" * 5000, b"[" * 3000, b"{" * 3000, b"../x", b"/etc/passwd", b"&a [*a]", b"*a", b"? ", b"- ", b"<<: ", b"\t",
    b"!!python/object/apply:os.system [true]", b"!!binary x", b"2001-99-99", b"\x80\x04\x95", b"}", b"]", b'"', b":",
)  # fmt: skip
ODD = (
    None, True, False, 0, -1, 1, 2**70, -(2**70), 0.5, 1e308, float("nan"), float("inf"), "", "x", "../x", "/x", "\x00",
    "step-00000001", [], {}, [[]], [None], {"x": {}}, {"": None}, ["x"] * 3,
)  # fmt: skip


@st.composite
def mutated_bytes(draw: st.DrawFn, data: bytes) -> bytes:
    """`data` after one to four accidents."""
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 200)))
        match draw(st.sampled_from(["cut", "truncate", "double", "flip", "insert", "replace", "random"])):
            case "cut":
                data = data[:start] + data[end:]
            case "truncate":
                data = data[:start]
            case "double":
                data = data[:end] + data[start:]
            case "flip":
                bit = 1 << draw(st.integers(0, 7))
                data = data[:start] + bytes(byte ^ bit for byte in data[start : start + 1]) + data[start + 1 :]
            case "insert":
                data = data[:start] + draw(st.sampled_from(NASTY)) + data[start:]
            case "replace":
                data = data[:start] + draw(st.sampled_from(NASTY)) + data[end:]
            case _:
                data = data[:start] + draw(st.binary(max_size=40)) + data[end:]
    return data


@st.composite
def mutated_values(draw: st.DrawFn, document: Any) -> Any:
    """A JSON or YAML document in which one to three values are gone, doubled under another key, or other ones."""
    document = {"": copy.deepcopy(document)}  # so that the whole is a value too
    for _ in range(draw(st.integers(1, 3))):
        holder, key = draw(st.sampled_from(list(_places(document)) or [(document, "")]))
        match draw(st.sampled_from(["odd", "odd", "gone", "added"])):
            case "odd":
                holder[key] = copy.deepcopy(draw(st.sampled_from(ODD)))
            case "gone" if isinstance(holder, dict):
                holder.pop(key, None)  # the whole may be gone already
            case "gone":
                del holder[key]
            case _ if isinstance(holder, dict):
                holder[draw(st.sampled_from(["x", "", "../x", "step"]))] = copy.deepcopy(draw(st.sampled_from(ODD)))
            case _:
                holder.insert(key, copy.deepcopy(draw(st.sampled_from(ODD))))
    return document.get("")


def mutated_json(document: Any) -> st.SearchStrategy[bytes]:
    """A JSON file that holds other values than it should, or is none."""
    values = mutated_values(document).map(lambda value: json.dumps(value).encode())
    return st.one_of(values, mutated_bytes(json.dumps(document).encode()))


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """(mapping or list, key or index) of every value within."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield value, key
        yield from _places(inner)

"""The quick way of reading YAML and the careful one give the same; what is nested deeply never takes the quick one."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from infty.config.definition import SHIPPED
from infty.config.strict_yaml import PlainLoader, QuickLoader, _is_nested_little, _parse, parse_yaml

CONFIGS = sorted((SHIPPED / "results").rglob("config.yaml"))
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3))


@pytest.mark.parametrize("file", CONFIGS[::7], ids=lambda file: file.parent.parent.name)
def test_configurations_of_runs_are_read_the_quick_way_to_the_same_values(file: Path) -> None:
    text = file.read_text()
    assert _is_nested_little(text)
    assert _parse(text, QuickLoader)[0] == _parse(text, PlainLoader)[0]


@given(VALUES)
def test_whatever_was_dumped_comes_back(value: Any) -> None:
    assert parse_yaml(yaml.safe_dump(value)) == value


@given(st.text("a-?:[]{}&*! \n\t'\"|>#,", max_size=60))
def test_both_ways_agree_on_texts_that_may_be_none(text: str) -> None:
    """On values where both find some, and on whether there are any."""
    if not _is_nested_little(text):
        return
    found = []
    for kind in (QuickLoader, PlainLoader):
        try:
            found.append(repr(_parse(text, kind)[0]))
        except ValueError:
            found.append(None)
    assert found[0] == found[1]


@pytest.mark.parametrize(
    "text",
    [
        "[" * 20,
        "{a: " * 20,
        "- - a",
        "-   ? a",
        "? - a",
        " " * 40 + "a: 1",
        "-\t-\ta",
        "a: &b 1",
        "a: *b",
        "a: !!int ''",
        "a:\x85 b: 1",
    ],
)
def test_what_may_be_nested_deeply_is_read_with_care(text: str) -> None:
    assert not _is_nested_little(text)

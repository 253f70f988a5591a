"""Experiment files: overlays by a hand-written example, and every kind of fault, all at once."""

import contextlib
import shlex
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infty.base.errors import UsageError
from infty.config.definition import (
    SHIPPED,
    CellKey,
    load_definition,
    open_experiment,
    overlay,
    parse_override,
    read_yaml,
    variant_of,
)
from infty.experiment import Cell, resolve
from infty.model.config import KINDS

TEXT = """
task: {kind: sort, vocabulary: 5, length: 59, train_sequences: 8, validation_sequences: 4, test_sequences: 4}
model: {num_layers: 1, num_heads: 2, hidden_size: 8, feed_forward_size: 8, dropout: 0.0,
  segment_length: 16, short_term_length: 16}
training: {steps: 2, batch_size: 2, learning_rate: 1e-4, evaluate_every: 2}
models:
  plain: {model: {long_range: null}, training: {steps: 30}}
  long: {model: {long_range: {kind: long_term, num_basis: 8, num_samples: 8}}}
cases:
  a: {training: {steps: 20}}
  b: {}
scales:
  small:
    training: {steps: 10}
    cases: {a: {training: {steps: 40}}}
    models: {plain: {training: {steps: 50}}}
    seeds: [3, 4]
  bare:
"""


def bomb(level: str) -> str:
    """A few lines that are 10^9 values to whoever follows their aliases."""
    lines = ["a0: &a0 {k: v}"]
    for i in range(1, 10):
        lines.append(f"a{i}: &a{i} {level.format(', '.join([f'*a{i - 1}'] * 10))}")
    return "\n".join(lines)


@pytest.fixture
def make(tmp_path: Path) -> Any:
    def write(text: str = TEXT) -> Any:
        path = tmp_path / "mine.yaml"
        path.write_text(text, encoding="utf-8")
        return load_definition(path, path.name)

    return write


def cell(make: Any, scale: str = "bare", model: str = "plain", case: str = "b", sets: tuple[str, ...] = ()) -> Cell:
    return resolve(make(), CellKey("mine", scale, model, case), sets)


def faults(make: Any, text: str, sets: tuple[str, ...] = (), model: str = "long") -> list[str]:
    with pytest.raises(UsageError) as raised:
        resolve(make(text), CellKey("mine", "small", model, "a"), sets)
    assert raised.value.exit_code == 2
    return str(raised.value).splitlines()


@pytest.mark.parametrize(
    ("scale", "model", "case", "sets", "steps"),
    [
        ("bare", "long", "b", (), 2),
        ("small", "long", "b", (), 10),
        ("bare", "long", "a", (), 20),
        ("bare", "plain", "a", (), 30),
        ("small", "long", "a", (), 40),
        ("small", "plain", "a", (), 50),
        ("small", "plain", "a", ("training.steps=60",), 60),
    ],
)
def test_order_of_overlays(make: Any, scale: str, model: str, case: str, sets: tuple[str, ...], steps: int) -> None:
    """base < scale < case < model < the scale's own case and model < --set."""
    assert cell(make, scale, model, case, sets).experiment.training.steps == steps


def test_origins_name_the_layer_of_each_value(make: Any) -> None:
    origins = cell(make, "small", "plain", "a", ("training.batch_size=3",)).origins
    assert origins["training", "steps"] == "mine.yaml: scales.small.models.plain"
    assert origins["training", "batch_size"] == "--set"
    assert origins["task", "length"] == "mine.yaml"


def test_lists_and_mappings_of_another_kind_are_replaced() -> None:
    layers = [
        ("one", {"m": {"kind": "x", "size": 1, "list": [1, 2]}, "n": {"kept": 1}}),
        ("two", {"m": {"kind": "y", "rate": 2}, "n": {"list": [3]}}),
        ("three", {"n": {"list": [4]}}),
    ]
    values, origins = overlay(layers)
    assert values == {"m": {"kind": "y", "rate": 2}, "n": {"kept": 1, "list": [4]}}
    assert ("m", "size") not in origins
    assert layers[0][1]["m"]["list"] == [1, 2]


def test_numbers_with_an_exponent_are_numbers(make: Any) -> None:
    assert cell(make).experiment.training.learning_rate == 1e-4
    assert parse_override("a.b=1e-3")[0] == {"a": {"b": 0.001}}
    assert parse_override("a=-2E5")[0] == {"a": -200_000.0}


def test_cells_and_seeds(make: Any) -> None:
    found = list(make().cells("small"))
    assert len(found) == 2 * 2 * 2
    assert found[0] == CellKey("mine", "small", "plain", "a", 3)
    assert [c.seed for c in make().cells("bare")] == [0] * 4
    assert found[0].folder == Path("mine/small/plain@a/seed-3")


def test_both_faults_of_the_readme_are_named_at_once(make: Any) -> None:
    lines = faults(make, TEXT, ("model.long_rnage.num_basis=3", "training.steps=x"))
    assert lines == [
        "--set: model.long_rnage: unknown key; did you mean long_range?",
        "--set: training.steps: wanted an integer, got 'x'",
    ]


def test_all_faults_of_a_file_are_reported_at_once_with_place_and_remedy(make: Any) -> None:
    text = (
        TEXT.replace("train_sequences: 8", "train_sequences: eight")
        .replace("num_layers: 1, ", "")
        .replace("num_basis: 8", "num_bases: 8")
        .replace("evaluate_every: 2", "evaluate_every: 0, batch_size: 7")
        .replace("  b: {}", "  b: {modle: {}}")
        .replace("seeds: [3, 4]", "seeds: [3, four]")
    )
    text = text + "mdoels: {}\n"
    assert set(faults(make, text, ("training.steps", "x.y=1"))) == {
        "mine.yaml: batch_size: stands twice (line 5)",
        "mine.yaml: mdoels: unknown key; did you mean models?",
        "mine.yaml: cases.b.modle: unknown key; did you mean model?",
        "mine.yaml: scales.small.seeds: wanted a list of integers from 0 to 2147483647, got [3, 'four']",
        "mine.yaml: task.train_sequences: wanted an integer, got 'eight'",
        "mine.yaml: model.num_layers: is missing",
        "mine.yaml: models.long: model.long_range.num_basis: is missing",
        "mine.yaml: models.long: model.long_range.num_bases: unknown key; did you mean num_basis?",
        "mine.yaml: training.evaluate_every: must be greater than 0, got 0",
        "--set: training.steps: wanted key.path=value",
        "--set: x: unknown key; there is task, model, training, pretraining",
    }


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            "model.long_range.kind=long",
            f"--set: model.long_range.kind: wanted kind: {', '.join(map(repr, KINDS))}, got 'long'",
        ),
        ("model.long_range=7", "--set: model.long_range: wanted a mapping, got 7"),
        ("model=7", "--set: model: wanted a mapping, got 7"),
        ("task.kind=srot", "--set: task.kind: wanted kind: 'sort', 'first-seen', 'sort-stretch', "),
        ("training.steps=1.5", "--set: training.steps: wanted an integer, got 1.5"),
        ("training.steps=true", "--set: training.steps: wanted an integer, got True"),
        ("training.steps='3'", "--set: training.steps: wanted an integer, got '3'"),
        ("training.learning_rate=fast", "--set: training.learning_rate: wanted a number, got 'fast'"),
        ("model.dropout=1", "--set: model.dropout: must be less than 1"),
        ("model.long_range.widths=3", "--set: model.long_range.widths: wanted a list, got 3"),
        (
            "model.long_range.sticky={num_bin: 3}",
            "--set: model.long_range.sticky.num_bin: unknown key; did you mean num_bins?",
        ),
        ("model.num_heads=3", "model.long_range: hidden_size 8 is not a multiple of num_heads 3"),
        ("model.long_range.num_basis=9", "model.long_range: num_basis 9 is not a multiple of the 2 widths"),
        (
            "task.length=60",
            "--set: task.length: at 60 the separator and the 5 targets would straddle two segments of 16; "
            "the nearest that work: 59 and 64",
        ),
        ("task.vocabulary=17", "model.segment_length: 16 is too short for the 17 targets"),
        ("training.steps=[", "--set: training.steps: '[' is not a YAML value"),
        ("training={steps: 1, steps: 7}", "--set: training.steps: stands twice"),
        ("model.long_range.kind=[1]", "--set: model.long_range.kind: "),
        ("training={[a]: 1}", "--set: training: '{[a]: 1}' is not a YAML value"),
        ("training=&a [*a]", "--set: training: '&a [*a]' is not a YAML value"),
        ("training.learning_rate=.inf", "--set: training.learning_rate: must be a finite number, got inf"),
        ("training={1: 2}", "training.1: Keys should be strings, got 1"),
        ("=3", "--set: =3: wanted key.path=value"),
        ("decoder=1", "--set: decoder: unknown key; there is task, model"),
        ("training.decoder=1", "--set: training.decoder: unknown key; there is steps"),
        ("model.decoder=1", "--set: model.decoder: unknown key; there is num_layers"),
        (f"{'a.' * 1000}b=1", "is nested too deeply"),
        (f"x={'[' * 3000}", "is not a YAML value"),
        ("training.steps=!!bool x", "--set: training.steps: '!!bool x' is not a YAML value"),
        ("training.steps=!!int ''", "--set: training.steps: \"!!int ''\" is not a YAML value"),
        ("training.steps=!!timestamp x", "--set: training.steps: '!!timestamp x' is not a YAML value"),
        ("training=!!map x", "--set: training: '!!map x' is not a YAML value"),
        (f"training.steps={'1:' * 400}1.5", "is not a YAML value"),
    ],
)
def test_a_fault_says_where_what_and_how(make: Any, change: str, line: str) -> None:
    lines = faults(make, TEXT, (change,))
    assert len(lines) == 1
    assert line in lines[0]


def test_faults_of_one_kind_are_told_in_the_same_order_each_time(make: Any) -> None:
    names = ["c3", "c1", "c2", "c5", "c4"]
    extra = ", ".join(f"{name}: {{}}" for name in names)
    definition = make(f"models: {{a: {{}}}}\nscales: {{small: {{cases: {{{extra}}}}}}}\n")
    assert [fault.key for fault in definition.faults] == [f"scales.small.cases.c{i}" for i in range(1, 6)]


def test_unknown_names_suggest_the_right_one(make: Any) -> None:
    with pytest.raises(UsageError) as raised:
        resolve(make(), CellKey("mine", "smal", "plian", "c"))
    assert str(raised.value).splitlines() == [
        "mine.yaml: scales: no 'smal' here; did you mean small?",
        "mine.yaml: models: no 'plian' here; did you mean plain?",
        "mine.yaml: cases: no 'c' here; there is a, b",
    ]


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("cases: {a: {training: {steps: 40}}}", "cases: 5", "mine.yaml: scales.small.cases: wanted a mapping, got 5"),
        (
            "cases: {a: {training: {steps: 40}}}",
            "cases: [[]]",
            "mine.yaml: scales.small.cases: wanted a mapping, got [[]]",
        ),
        ("  b: {}", "  1: {}", "mine.yaml: cases.1: names are lower-case letters"),
        ("  b: {}", f"  {'b' * 65}: {{}}", "at most 64"),
        ("  bare:", "  bare:\nrows: [[long]]", "mine.yaml: rows: no ['long'] among the models"),
        ("steps: 2,", '"st\\neps\\e[1m": 2,', r"mine.yaml: training.st\neps\x1b[1m: unknown key"),
    ],
)
def test_a_fault_is_one_line_whatever_is_in_it(make: Any, old: str, new: str, line: str) -> None:
    assert old in TEXT
    found = faults(make, TEXT.replace(old, new))
    assert any(line in said for said in found), found
    assert all(said.isprintable() and len(said) < 1100 for said in found)


def test_the_fault_of_a_value_that_may_be_several_things_is_told_without_their_tags() -> None:
    cell = CellKey("gpt2", "laptop", "infty", "wikitext")
    with pytest.raises(UsageError) as raised:
        resolve(open_experiment("gpt2", SHIPPED), cell, ("task.memory_reset={x: 1}",))
    assert str(raised.value).splitlines() == [
        "--set: task.memory_reset: must be 'never' or 'document', got {'x': 1}",
        "--set: task.memory_reset.tokens: is missing",
        "--set: task.memory_reset.x: unknown key; there is tokens, documents",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "not valid YAML"),
        ("- 1\n- 2\n", "wanted a mapping"),
        ("", "wanted a mapping"),
        ("a: !!python/object/apply:os.system ['true']", "could not determine a constructor"),
        ("a: \x01", "can't be read"),
        ("task: &a {b: *a}", "Circular reference"),
        ("? [a, b]\n: 1\n", "not valid YAML: found unhashable key"),
        ("[" * 5000, "mine.yaml"),
        ("a: " + "- " * 5000 + "x", "mine.yaml"),
        ("- " * 200 + "x", "nested too deeply"),
        (bomb("[{}]"), "holds too much"),
        (bomb("{{<<: [{}]}}"), "holds too much"),
        (f"a: 0x{'f' * 5000}", "can't be read: Exceeds the limit"),
        (f"? 0x{'f' * 5000}\n: a", "can't be read: Exceeds the limit"),
    ],
)
def test_what_is_no_experiment_is_refused_in_one_line(make: Any, text: str, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        make(text)
    assert message in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


def test_a_doubled_key_is_found_at_any_depth(tmp_path: Path) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text("a:\n  b:\n    c: 1\n    c: 2\na: 3\n", encoding="utf-8")
    assert [str(fault) for fault in read_yaml(path)[1]] == [
        "twice.yaml: a: stands twice (line 5)",
        "twice.yaml: c: stands twice (line 4)",
    ]


def test_a_table_with_faults_has_no_cells(make: Any) -> None:
    for seeds in ("5", "[-1, x]", "[3000000000]"):
        with pytest.raises(UsageError, match="seeds: wanted a list of integers"):
            list(make(TEXT.replace("[3, 4]", seeds)).cells("small"))


def test_commands_can_be_pasted_and_lead_to_the_same_run(make: Any) -> None:
    sets = ("model.long_range.sticky={num_bins: 3}", "training.steps=5")
    variant = variant_of(sets, None)
    words = shlex.split(resolve(make(), CellKey("mine", "small", "long", "a", 3, variant), sets).command)
    assert words[:3] == ["infty", "train", "mine.yaml"]
    assert [words[i + 1] for i, word in enumerate(words) if word == "--set"] == list(sets)
    assert "--name" not in words
    named = resolve(make(), CellKey("mine", "small", "long", "a", 3, "+other"), sets).command
    assert shlex.split(named)[-2:] == ["--name", "other"]


def test_variants_depend_on_what_is_set_not_on_how_it_is_written() -> None:
    assert variant_of([], None) == ""
    one = variant_of(["training.steps=5", "model.dropout=0.1"], None)
    assert one == variant_of(["model.dropout=0.10", "training.steps=5"], None)
    assert one != variant_of(["training.steps=6", "model.dropout=0.1"], None)
    assert variant_of(["training.steps=5"], "mine") == "+mine"
    with pytest.raises(UsageError, match="lower-case"):
        variant_of([], "../x")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
@given(st.data())
def test_whatever_stands_in_a_file_only_our_own_error_comes_out(make: Any, data: st.DataObject) -> None:
    """Lines cut, doubled, shortened or replaced by anything: an experiment, or a UsageError."""
    lines: list[str] = list(TEXT.splitlines())
    for _ in range(data.draw(st.integers(1, 3))):
        i = data.draw(st.integers(0, len(lines) - 1))
        junk = st.text(st.characters(codec="utf-8"), max_size=12)
        kept = data.draw(st.integers(0, len(lines[i])))
        lines[i] = data.draw(
            st.sampled_from(["", lines[i] + "\n" + lines[i], lines[i][:kept], lines[i][:kept] + data.draw(junk)])
        )
    with contextlib.suppress(UsageError):
        resolve(make("\n".join(lines)), CellKey("mine", "small", "long", "a"))


def test_rows_say_which_models_make_the_table_and_the_others_can_be_asked_for(make: Any) -> None:
    text = f"{TEXT}\nrows: [long]\n"
    assert {found.model for found in make(text).cells("small")} == {"long"}
    assert resolve(make(text), CellKey("mine", "small", "plain", "a")).experiment.training.steps == 50
    for rows, message in (("[lng]", "no 'lng' among the models; did you mean long?"), ("long", "wanted a list")):
        with pytest.raises(UsageError, match=message):
            list(make(f"{TEXT}\nrows: {rows}\n").cells("small"))

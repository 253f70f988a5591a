"""Whatever an experiment file, an option, infty.toml or the environment says: an experiment, or our own error."""

import contextlib
import os
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from infty.base.errors import UsageError
from infty.config.definition import SHIPPED, CellKey, experiment_files, open_experiment, variant_of
from infty.config.settings import Settings, load_settings
from infty.experiment import Cell, Experiment, resolve
from infty.runs.folder import RunFolder
from tests.mutations import NASTY, ODD, mutated_bytes, mutated_values

pytestmark = pytest.mark.fuzz
EXPERIMENTS = sorted(experiment_files(SHIPPED))
DEFINITIONS = {name: open_experiment(name, SHIPPED) for name in EXPERIMENTS}
VALUES = {name: yaml.safe_load((SHIPPED / f"{name}.yaml").read_text(encoding="utf-8")) for name in EXPERIMENTS}
QUICK = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
TOML = """\
# this machine
runs = "data/runs"
data = "~/corpora"
auto_fetch = true
experiments = "mine"
device = "cuda:0"
precision = "float32"
compile = false
threads = 2
wandb = "offline"
wandb_project = "infty"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mutated")


@contextlib.contextmanager
def refused() -> Iterator[None]:
    """Our own error may come out: lines that a terminal can show, none of them long."""
    said = ["fine"]
    try:
        yield
    except UsageError as fault:
        said = str(fault).split("\n")
    assert all(line.strip() and line.isprintable() and len(line) <= 1001 for line in said), said


def keeps(resolved: Cell, folder: Path) -> None:
    """A run folder holds its configuration whole, as `load_run` reads it."""
    run = RunFolder(folder)
    run.write_config(resolved.config)
    values = run.config()
    assert values == resolved.config
    values.pop("cell")
    assert Experiment.model_validate(values) == resolved.experiment


def all_cells(path: Path, folder: Path, data: st.DataObject) -> None:
    """Every cell resolves or is refused, and one of those that do can be kept."""
    with refused():
        definition = open_experiment(str(path), path.parent)
        found = []
        for scale in [*definition.names("scales"), "none"]:
            for cell in dict.fromkeys(replace(cell, seed=0) for cell in definition.cells(scale)):
                with refused():
                    found.append(resolve(definition, cell))
        if found:
            keeps(data.draw(st.sampled_from(found)), folder)


@pytest.mark.parametrize("name", EXPERIMENTS)
@given(data=st.data())
def test_files_with_other_bytes(name: str, folder: Path, data: st.DataObject) -> None:
    path = folder / f"{name}.yaml"
    path.write_bytes(data.draw(mutated_bytes((SHIPPED / path.name).read_bytes())))
    all_cells(path, folder, data)


@pytest.mark.parametrize("name", EXPERIMENTS)
@given(data=st.data())
def test_files_with_other_values(name: str, folder: Path, data: st.DataObject) -> None:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.dump(data.draw(mutated_values(VALUES[name])), Dumper=QUICK), encoding="utf-8")
    all_cells(path, folder, data)


def option_values() -> st.SearchStrategy[str]:
    odd = [yaml.safe_dump(value, default_flow_style=True) for value in ODD]
    nasty = [text.decode("utf-8", "surrogateescape") for text in NASTY]
    tagged = st.builds("!!{} {}".format, st.sampled_from(TAGS), st.sampled_from(["", "x", "''", "[a]", "{a: b}", "=:"]))
    return st.one_of(st.sampled_from([*odd, *nasty, "1:" * 400 + "1.5"]), tagged, st.text(max_size=20))


TAGS = ("bool", "int", "float", "timestamp", "binary", "null", "str", "map", "seq", "set", "omap", "pairs", "merge")
KEYS = (
    "task", "task.kind", "task.length", "task.corpus", "task.tokenizer", "task.memory_reset", "task.train.last",
    "task.memory_reset.tokens", "task.protocol", "model", "model.kind", "model.weights", "model.long_range",
    "model.adaptive", "model.long_range.widths", "model.long_range.sticky", "model.adaptive.cutoffs", "decoder",
    "model.decoder", "training", "training.decoder", "training.learning_rate", "training.steps", "pretraining", "kind",
    ".".join("a" * 2000),
)  # fmt: skip


def overrides() -> st.SearchStrategy[list[str]]:
    keys = st.one_of(st.sampled_from(KEYS), st.text(max_size=10))
    one = st.one_of(st.builds("{}={}".format, keys, option_values()), st.text(max_size=20))
    return st.lists(one, min_size=1, max_size=3)


@pytest.mark.parametrize("name", EXPERIMENTS)
@given(sets=overrides())
def test_options_of_any_text(name: str, folder: Path, sets: list[str]) -> None:
    definition = DEFINITIONS[name]
    with refused():
        cell = CellKey(name, "laptop", "infty", definition.names("cases")[0], 0, variant_of(sets, None))
        resolved = resolve(definition, cell, sets)
        words = shlex.split(resolved.command)
        assert [words[i + 1] for i, word in enumerate(words) if word == "--set"] == sets
        keeps(resolved, folder)


@given(weights=st.text(), name=st.text())
def test_texts_are_kept_whole(folder: Path, weights: str, name: str) -> None:
    """The one setting that may be any text, and names."""
    sets = [f"model.weights={yaml.safe_dump(weights)}", "pretraining=null"]
    with refused():
        resolved = resolve(DEFINITIONS["gpt2"], CellKey("gpt2", "laptop", "infty", "pg19"), sets)
        keeps(resolved, folder)
        assert resolved.experiment.model.model_dump()["weights"] == weights
    with refused():
        assert variant_of([], name) == f"+{name}"
    with refused():
        open_experiment(name, folder)


@contextlib.contextmanager
def machine(folder: Path, **environment: str) -> Iterator[None]:
    """In `folder`, with these variables and no other of ours."""
    with pytest.MonkeyPatch.context() as patch:
        for key in [key for key in os.environ if key.startswith(("INFTY_", "WANDB_"))]:
            patch.delenv(key)
        for key, value in environment.items():
            patch.setenv(key, value)
        patch.chdir(folder)
        yield


def settings_of(folder: Path, **environment: str) -> Settings | None:
    with machine(folder, **environment), refused():
        found = load_settings()
        for path in (found.runs, found.data, found.experiments):
            assert path.is_absolute() or environment
            assert "\0" not in str(path)
        return found
    return None


@given(text=mutated_bytes(TOML.encode()))
def test_infty_toml_with_other_bytes(folder: Path, text: bytes) -> None:
    (folder / "infty.toml").write_bytes(text)
    settings_of(folder)


TOML_VALUES = (
    "0", "-1", "2.5", "inf", "nan", "true", '""', '"x"', '"\\u0000"', '"~nobody-of-that-name/x"', '"~"', "[]", "{}",
    "{a = 1}", "2001-01-01", "1" * 5000, "0x" + "f" * 5000, "[" * 3000, "[[]]", '"""\n"""', "'\ufeff'", '"a\\nb"',
)  # fmt: skip


@given(
    lines=st.lists(
        st.tuples(st.sampled_from([*Settings.model_fields, "x", '""', '"a\\nb"', "a.b"]), st.sampled_from(TOML_VALUES)),
        max_size=4,
    )
)
def test_infty_toml_with_other_values(folder: Path, lines: list[tuple[str, str]]) -> None:
    text = "".join(f"{key} = {value}\n" for key, value in lines)
    (folder / "infty.toml").write_text(text, encoding="utf-8")
    settings_of(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('runs = "~nobody-of-that-name/x"', r"settings: runs: no such home folder, got .*~nobody-of-that-name/x"),
        ('data = "\\u0000"', "settings: data: wanted a folder, got "),
        (f"threads = 0x{'f' * 5000}", "settings: threads: .*got a number without end"),
        (f"threads = {'1' * 5000}", "infty.toml: Exceeds the limit"),
        (f"runs = {'[' * 3000}", "infty.toml: "),
        ('"a\\nb" = 1', r"infty.toml: a\\nb: unknown key; there is runs, data"),
    ],
)
def test_what_infty_toml_may_not_say(folder: Path, text: str, message: str) -> None:
    (folder / "infty.toml").write_text(text, encoding="utf-8")
    with machine(folder), pytest.raises(UsageError, match=message) as raised:
        load_settings()
    assert len(str(raised.value).splitlines()) == 1


@given(
    environment=st.dictionaries(
        st.sampled_from([*(f"INFTY_{name.upper()}" for name in Settings.model_fields), "WANDB_MODE", "INFTY_X"]),
        st.one_of(
            st.binary(max_size=8).map(os.fsdecode),
            st.text(st.characters(codec="utf-8"), max_size=8),
            st.sampled_from(["~nobody-of-that-name", "1" * 5000, "0", "-1", "true", "off", "cpu", "[", "{}", "null"]),
        ).filter(lambda text: "\0" not in text),
        max_size=4,
    )
)
@pytest.mark.filterwarnings("ignore:INFTY_X is no variable of infty")
def test_variables_of_any_text(folder: Path, environment: dict[str, Any]) -> None:
    (folder / "infty.toml").write_text(TOML, encoding="utf-8")
    settings_of(folder, **environment)

"""Whatever a run folder holds: it is read or said to be damaged, and all other runs still stand in list and report."""

import contextlib
import io
import json
import shutil
import unicodedata
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from rich.console import Console

from infty.base.errors import MissingError
from infty.cli.output import summarize
from infty.commands.listing import list_cells, overview_tables
from infty.config import definition as catalog
from infty.config.definition import CellKey
from infty.config.settings import Settings, load_settings
from infty.report import FORMATS, write_report
from infty.report import paired_bootstrap as paired
from infty.report.load.collect import collect
from infty.report.load.results import ResultSet
from infty.runs.folder import RunFolder, find_runs
from tests.mutations import mutated_bytes, mutated_json, mutated_values

pytestmark = [pytest.mark.fuzz, pytest.mark.slow]
STATES = {"missing", "running", "stopped", "failed", "interrupted", "done", "damaged"}
OTHERS = {
    "sort": ("infty@x8/seed-0", "compressive@x8/seed-0"),
    "wikitext": ("transformer-xl@main/seed-0", "infty@main/seed-0"),
}
HIT = {"sort": "infty@x8/seed-1", "wikitext": "infty-sticky@main/seed-0"}
FILES = ("config.yaml", "status.json", "result.json", "environment.json", "eval", "memory", "metrics.jsonl")
SHARES = [0.25, 0.75]
MEMORY = {
    "schema": 1,
    "step": 9,
    "stream": {"kind": "document", "index": 0, "segments": 3, "tokens": 48},
    "density": [[SHARES, SHARES]],
    "histogram": [SHARES],
    "reconstruction": [{"updates": 1, "layers": [[0.9]]}, {"updates": 2, "layers": [[-0.1, 0.8]]}],
    "regression_error": [0.1],
    "regression_error_mean": 0.1,
    "reach": {"share": [0.2], "gate": [0.0], "where": [1e-5], "what": [0.3], "rest": 0.4},
    "gaze": [{"center": 0.5, "apart": 0.1, "width": 0.3, "there": 1.2}],
    "room": [{"text": "a $b$", "token": 8, "room": 0.1, "attention": 0.2}],
}
METRICS = [{"step": step, "train/loss": 2.0, "validation/loss": 1.5, "validation/accuracy": 0.5} for step in (10, 20)]


@dataclass(frozen=True)
class Place:
    """Runs of one experiment, one of which is hit. whole: what a report is made of before, less: without that run."""

    settings: Settings
    hit: RunFolder
    whole: list[ResultSet]
    less: list[ResultSet]

    def file(self, name: str) -> Path:
        kinds = {"eval": "*-test.json", "memory": "*-memory.json"}
        return next((self.hit.path / "eval").glob(kinds[name])) if name in kinds else self.hit.path / name


def make_place(folder: Path, name: str) -> Place:
    """Runs that came with infty, as train leaves them."""
    shipped = folder / "shipped"
    shipped.mkdir()
    definition = catalog.open_experiment(name, shipped)
    names = {key: dict.fromkeys(definition.names(key)) for key in ("models", "cases", "scales")}
    (shipped / f"{name}.yaml").write_text(yaml.safe_dump(names, sort_keys=False))  # all that is read of it here
    runs = folder / "runs"
    for run in (*OTHERS[name], HIT[name]):
        shutil.copytree(catalog.SHIPPED / "results/laptop" / name / run, runs / name / "laptop" / run)
        (runs / name / "laptop" / run / "status.json").write_text('{"status": "done", "why": ""}')
    for file in [*runs.rglob("eval/*-memory.json")]:
        file.unlink()  # for a shorter one
    for file in [*runs.rglob("eval/*.json")]:
        shorten(file)
        protocol = json.loads(file.read_text())["protocol"]["name"] if file.is_file() else ""
        if file.name == f"{protocol}-test.json":
            file.with_name(f"{protocol}-test-memory.json").write_text(json.dumps({"protocol": protocol, **MEMORY}))
            lines = "".join(json.dumps(line) + "\n" for line in METRICS)
            (file.parents[1] / "metrics.jsonl").write_text(lines)
    hit = RunFolder(runs / name / "laptop" / HIT[name])
    whole = collect([runs], shipped)
    hit.path.rename(folder / "away")
    less = collect([runs], shipped)
    (folder / "away").rename(hit.path)
    return Place(load_settings(runs=runs, data=folder, experiments=shipped), hit, whole, less)


def shorten(file: Path) -> None:
    """Five chunks, documents and distances are enough; that without memory nobody reads."""
    evaluation = json.loads(file.read_text())
    for found in evaluation.get("details", {}).values():
        found.update({key: value[:5] for key, value in found.items() if isinstance(value, list)})
    file.write_text(json.dumps(evaluation))
    if "without" in file.name:
        file.unlink()


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Place]]:
    """A place a kind of task. Only its own experiment ships there, and pictures are not drawn unless a test says so."""
    made = {name: make_place(tmp_path_factory.mktemp(name), name) for name in OTHERS}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalog, "SHIPPED", Path("nowhere"))
        patch.setattr(paired, "DRAWS", 20)
        patch.setattr(Figure, "savefig", lambda _, path, **__: Path(path).touch())
        yield made


@contextlib.contextmanager
def replaced(file: Path, data: bytes) -> Iterator[None]:
    before = file.read_bytes()
    file.write_bytes(data)
    try:
        yield
    finally:
        file.write_bytes(before)


@contextlib.contextmanager
def told() -> Iterator[list[str]]:
    """What is warned of: lines that a terminal can show."""
    said: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield said
    said += [str(warning.message) for warning in caught]
    assert all(line.isprintable() and len(line) < 1000 for text in said for line in text.split("\n")), said


def mutated(file: Path) -> st.SearchStrategy[bytes]:
    if file.suffix == ".jsonl":
        return mutated_bytes(file.read_bytes())
    if file.suffix == ".json":
        return mutated_json(json.loads(file.read_text()))
    values = mutated_values(yaml.safe_load(file.read_text())).map(lambda value: yaml.safe_dump(value).encode())
    return st.one_of(values, mutated_bytes(file.read_bytes()))


def readable(run: RunFolder) -> bool:
    """Whether the run says what it is and what came out; only our own error comes out, with what to do."""
    fine, reads = True, (run.config, run.key, run.result, run.read)
    for read in reads[: 4 if run.finished else 2]:
        try:
            read()
        except MissingError as fault:
            line, fine = str(fault), False
            assert line.isprintable(), line
            assert "train again with --fresh" in line
    if fine and run.finished:
        assert json.dumps({**summarize(run.result().model_dump()), **run.result().model_dump()}, allow_nan=False)
    return fine


def listed(place: Place) -> dict[str, Any]:
    """The row of the run that was hit; `infty list` prints the tables, and all rows as JSON."""
    rows = list_cells(place.settings, "laptop")
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    assert {row["state"] for row in rows} <= STATES
    for table in overview_tables(rows, "laptop"):
        for width in (20, 100):
            screen = Console(file=io.StringIO(), width=width)
            screen.print(table.to_rich(width))
        lines = table.to_markdown().splitlines() + [note.split(" with: ")[0] for note in table.notes]
        assert all(line.isprintable() and len(line) < 1000 for line in lines)
        assert all(map(str.isprintable, table.notes))
    (found,) = [
        row for row in rows if f"{row['model']}@{row['case']}{row['variant']}/seed-{row['seed']}" in HIT.values()
    ]
    return found


def cells(sets: list[ResultSet]) -> set[CellKey]:
    return {run.key for results in sets for run in results.runs}


SLOWER = pytest.param("memory", marks=pytest.mark.slower)


@pytest.mark.parametrize("file", ["config.yaml", "result.json", "eval", SLOWER, "metrics.jsonl", "environment.json"])
@pytest.mark.parametrize("name", ["sort", pytest.param("wikitext", marks=pytest.mark.slower)])
@given(data=st.data())
def test_a_finished_run(places: dict[str, Place], name: str, file: str, data: st.DataObject) -> None:
    """Of which a file is damaged: it is left out with a warning, or read, and the others stand."""
    place = places[name]
    path = place.file(file)
    with replaced(path, data.draw(mutated(path))):
        fine = readable(place.hit)
        assert listed(place)["state"] == ("done" if fine else "damaged")
        with told() as said:
            found = collect([place.settings.runs], place.settings.experiments)
        if found == place.less:
            assert any(f"{place.hit.path} is left out: " in text for text in said)
        else:
            assert fine
            assert cells(place.less) < cells(found)
        if found not in (place.less, place.whole):
            report(place, drawn=data.draw(st.integers(0, 9)) == 9)


def draw(figure: Figure, path: Path, **_: Any) -> None:
    figure.draw_without_rendering()
    path.touch()


def report(place: Place, *, drawn: bool) -> None:
    """All of it, but that most pictures are not drawn: that takes long."""
    out = place.settings.data / "out"
    with told(), pytest.MonkeyPatch.context() as patch:
        if drawn:
            shutil.rmtree(out, ignore_errors=True)
            patch.setattr(Figure, "savefig", draw)
        written = write_report([place.settings.runs], out, FORMATS, place.settings.experiments)
    assert {path.parent for path in written.files} == {out}
    for path in out.glob("*.md"):
        signs = set(path.read_text(encoding="utf-8")) - {"\n"}
        assert not {unicodedata.category(sign) for sign in signs} & {"Cc", "Zl", "Zp"}


@pytest.mark.parametrize("file", ["config.yaml", "status.json", "environment.json"])
@given(data=st.data())
def test_a_run_that_is_not_finished(places: dict[str, Place], file: str, data: st.DataObject) -> None:
    """It is listed with a state and with what continues it, where that is known; no report is made of it."""
    place = places["sort"]
    path, result = place.file(file), place.file("result.json")
    status = data.draw(st.sampled_from(["running", "failed", "stopped", "done"]))
    result.rename(place.settings.data / "result.json")
    try:
        with (
            replaced(place.file("status.json"), json.dumps({"status": status, "why": "x"}).encode()),
            replaced(path, data.draw(mutated(path))),
        ):
            row = listed(place)
            assert row["state"] in STATES - {"missing", "done", "running"}
            assert readable(place.hit) or row["state"] == "damaged"
            known, fresh = place.hit.command(), " --fresh" * (row["state"] == "damaged")
            assert row["next"] == (None if known is None else known + fresh)
            assert known or file == "environment.json"
            with told() as said:
                assert collect([place.settings.runs], place.settings.experiments) == place.less
            assert not said
    finally:
        (place.settings.data / "result.json").rename(result)


WHERE = ("compressive@x4/seed-0", "infty@x16+odd/seed-1", "base@x4+0123/seed-0", "@/seed-0", "x@y/seed-x", "files")


@given(data=st.data())
def test_what_may_be_no_run_at_all(places: dict[str, Place], data: st.DataObject) -> None:
    """Where a run's folder could be there may be anything."""
    place = places["sort"]
    folder = place.settings.runs / "sort/laptop" / data.draw(st.sampled_from(WHERE))
    folder.mkdir(parents=True)
    try:
        for file in (*FILES[:4], "metrics.jsonl"):
            if data.draw(st.booleans()):
                (folder / file).write_bytes(data.draw(st.one_of(st.binary(max_size=20), mutated(place.file(file)))))
        with told():
            assert {run.state() for run in find_runs([place.settings.runs])} <= STATES
            assert listed(place)["state"] == "done"
            assert cells(place.whole) <= cells(collect([place.settings.runs], place.settings.experiments))
    finally:
        shutil.rmtree(folder.parent if folder.name.startswith("seed") else folder)

"""What tables lack, in which order and for how long; and what is said of cells that can't be trained."""

import io
import os
import re
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from infty.base.errors import InftyError, MissingError, UsageError
from infty.cli.output import show_progress
from infty.commands.reproduce.missing import Job, Tables, find_missing, format_time
from infty.config.definition import SHIPPED, CellKey
from infty.config.settings import Settings, load_settings
from tests.commands.reproduce.own import run_of, write_experiment


@pytest.fixture
def machine(tmp_path: Path) -> Settings:
    return load_settings(runs=tmp_path / "runs", data=tmp_path, experiments=tmp_path / "experiments")


def missing(machine: Settings, *names: str, scale: str = "smoke", jobs: int = 1) -> tuple[Tables, str]:
    """What the tables lack, and what is told of them."""
    said = io.StringIO()
    with show_progress(Console(file=said, markup=False)):
        tables = find_missing(machine, names, scale, [], jobs)
    return tables, said.getvalue()


def test_the_order_is_seed_experiment_column_row(machine: Settings, tmp_path: Path) -> None:
    write_experiment(tmp_path, "mine", {"a": {}}, seeds=(7, 0))
    tables, told = missing(machine, "mine", "sort", "mine")
    places = [(job.cell.seed, job.cell.experiment, job.cell.case, job.cell.model) for job in tables.missing]
    assert places[0] == (0, "mine", "x4", "a")
    assert places[-1] == (7, "mine", "x4", "a")
    rows = ("transformer-xl", "transformer-xl-wide", "compressive", "infty", "infty-sticky")
    assert places[1:-1] == [(0, "sort", case, row) for case in ("x4", "x8", "x16") for row in rows]
    assert told == ""


def test_several_at_once_share_the_processors_unless_they_were_given_some(machine: Settings) -> None:
    words = missing(machine, "sort", jobs=2)[0].missing[0].words
    assert words[-2:] == ("--threads", str(max(1, (os.cpu_count() or 1) // 2)))
    assert "--threads" not in missing(machine, "sort")[0].missing[0].words
    assert "--threads" not in missing(machine.model_copy(update={"threads": 3}), "sort", jobs=2)[0].missing[0].words


def test_texts_of_the_users_are_left_out_and_refused_by_name(machine: Settings, tmp_path: Path) -> None:
    tables, told = missing(machine, scale="laptop")
    own = {"sort", "sort-ablation", "sort-basis", "sort-memories", "sort-stretch", "first-seen", "recall"}
    own |= {"wikitext", "wikitext-ablation", "wikitext-memories", "pg19", "gpt2", "gpt2-memories", "recall-text"}
    assert {job.cell.experiment for job in tables.missing} == own
    why = "at laptop scale text reads texts of your own; train its cells one by one with: infty train text --data"
    assert told == f"text is left out: {why} FOLDER\n"
    with pytest.raises(UsageError, match=re.escape(why)):
        missing(machine, "sort", "text", scale="laptop")
    assert len(missing(machine, "text")[0].missing) == 4  # at smoke scale its text is made by infty
    (tmp_path / "text").mkdir()
    (tmp_path / "text/MANIFEST.json").touch()
    assert len(missing(machine, "text", scale="laptop")[0].missing) == 4  # imported under that name


def test_what_cannot_be_is_refused(machine: Settings, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no experiment 'srot'; did you mean sort\?"):
        missing(machine, "srot")
    with pytest.raises(UsageError, match=r"sort\.yaml: scales: no 'huge' here; there is paper, laptop, smoke"):
        missing(machine, "sort", scale="huge")
    with pytest.raises(UsageError, match="no experiment has a scale 'huge'"):
        missing(machine, scale="huge")
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments/mine.yaml").write_text("seeds: 5\nscales: {smoke: {}}\n")
    assert "mine is left out: mine.yaml: seeds: wanted a list of integers" in missing(machine)[1]
    with pytest.raises(UsageError, match="seeds: wanted a list of integers"):
        missing(machine, "mine")


def test_what_another_process_trains_is_left_out_and_what_is_damaged_is_told(machine: Settings, tmp_path: Path) -> None:
    write_experiment(tmp_path, "mine", {"a": {}, "b": {}, "c": {}})
    for row in ("a", "b"):
        run_of(tmp_path, row).path.mkdir(parents=True)
    (run_of(tmp_path, "b").path / "result.json").write_text("{")
    with run_of(tmp_path, "a").lock():
        tables, told = missing(machine, "mine")
    assert [job.cell.model for job in tables.missing] == ["c"]
    assert told == "mine a@x4 seed 0 is left out: another process trains it\n"
    assert [(other.cell.model, other.why) for other in tables.left_out] == [("a", "another process trains it")]
    with pytest.raises(MissingError, match=r"b@x4 seed 0: .*result\.json can't be read") as damaged:
        tables.refuse_failures()
    assert str(damaged.value).endswith("infty train mine --model b --case x4 --scale smoke --seed 0 --fresh")


def test_time_is_expected_as_the_like_took(tmp_path: Path) -> None:
    def cell(case: str, experiment: str = "sort", seed: int = 0) -> CellKey:
        return CellKey(experiment, "smoke", "infty", case, seed)

    tables = Tables(tmp_path, missing=[Job(cell("x4"), ()), Job(cell("x8"), ())])
    assert tables.predict_cell(cell("x4")) is tables.predict_all(1) is None
    tables.took = [5.0, 7.0]
    assert tables.predict_cell(cell("x4")) == 6
    tables.seconds = {cell("x4", seed=1): 10.0, cell("x4", seed=2): 20.0, cell("x16"): 60.0, cell("x8", "other"): 1.0}
    assert tables.predict_cell(cell("x4")) == 15
    assert tables.predict_cell(cell("x8")) == 30
    assert tables.predict_cell(cell("main", "third")) == 6
    assert tables.predict_all(1) == 45
    assert tables.predict_all(2, [(cell("x16"), 55.0), (cell("x16"), 99.0)]) == 25
    assert [format_time(seconds) for seconds in (None, 0.4, 61, 3661)] == ["?", "0:00", "1:01", "1:01:01"]


@pytest.mark.parametrize(
    ("codes", "kind"),
    [((2, 2), UsageError), ((3,), MissingError), ((2, 3), InftyError), ((1,), InftyError), ((137, 137), InftyError)],
)
def test_the_error_is_that_of_all_failures_or_a_plain_one(
    tmp_path: Path, codes: tuple[int, ...], kind: type[InftyError]
) -> None:
    tables = Tables(tmp_path)
    tables.refuse_failures()
    job = Job(CellKey("sort", "smoke", "infty", "x4"), ("train", "a b"))
    for code in codes:
        tables.fail(job, "no", code)
    with pytest.raises(InftyError) as raised:
        tables.refuse_failures()
    assert type(raised.value) is kind
    assert str(raised.value).splitlines()[1:3] == ["sort infty@x4 seed 0: no", "  again with: infty train 'a b'"]


def test_a_run_with_other_settings_than_the_file_has_now_is_not_done(machine: Settings, tmp_path: Path) -> None:
    """As `infty train` would refuse it; what the file leaves to defaults is not compared."""
    place = Path("sort/laptop/infty@x8/seed-0")
    shutil.copytree(SHIPPED / "results/laptop/sort/infty@x8/seed-0", machine.runs / place)
    tables, _ = missing(machine, "sort", scale="laptop")
    assert [str(job) for job in tables.done] == ["sort infty@x8 seed 0"]
    assert tables.failed == []
    (tmp_path / "experiments").mkdir()
    text = (SHIPPED / "sort.yaml").read_text()
    (tmp_path / "experiments/sort.yaml").write_text(text.replace("steps: 1500", "steps: 1600"))
    tables, _ = missing(machine, "sort", scale="laptop")
    assert tables.done == []
    assert "sort infty@x8 seed 0" not in [str(job) for job in tables.missing]
    with pytest.raises(UsageError, match=r"with other settings: training.steps: 1500 -> 1600\n.*--fresh"):
        tables.refuse_failures()


def test_time_left_has_what_a_cell_takes_beside_its_training(machine: Settings) -> None:
    tables, _ = missing(machine, "sort")
    cell = tables.missing[0].cell
    assert tables.predict_cell(cell) is None
    tables.took.append(7.0)
    assert tables.predict_cell(cell) == 7
    tables.seconds[cell], tables.beside = 2.0, [4.0, 6.0]
    assert tables.predict_cell(cell) == 7
    assert tables.predict_all(2) == len(tables.missing) * 7 / 2

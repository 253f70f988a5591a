"""Files of a report: figures parsed, not only made; drawn where they changed; names of all kinds."""

import io
import json
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from matplotlib import image
from rich.console import Console

from infty.base.table import Table
from infty.config.catalog import SHIPPED
from infty.report import write_report
from infty.report.load.results import ResultSet
from tests.conftest import Infty
from tests.report.handmade import put, report


def test_the_figure_has_a_line_a_model_and_is_the_same_bytes_twice(runs: Path, tmp_path: Path) -> None:
    report(runs, tmp_path / "one")
    report(runs, tmp_path / "two")
    name = "sort-laptop-accuracy.svg"
    assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    root = ElementTree.parse(tmp_path / "one" / name).getroot()
    texts = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"infty", "transformer-xl", "chance", "last-window oracle", "492", "1,004", "test accuracy (%)"} <= texts
    assert "compressive" not in texts
    pixels = image.imread(tmp_path / "one/sort-laptop-accuracy.png")
    assert pixels.shape[0] > 400
    assert pixels.std() > 0.05


def test_reports_need_no_torch(runs: Path, tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from pathlib import Path; from infty.report import write_report; from infty.config.catalog import SHIPPED\n"
        f"write_report([Path({str(runs)!r})], Path({str(tmp_path / 'out')!r}), ['md'], SHIPPED)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (tmp_path / "out/sort-laptop.md").exists()


def test_the_command_reports_what_the_commands_before_it_made(infty: Infty, tmp_path: Path) -> None:
    infty("train", "sort", "--scale", "smoke", "--model", "compressive")
    done = infty("report", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    result = json.loads((tmp_path / "runs/sort/smoke/compressive@x4/seed-0/result.json").read_text())
    row = next(row for row in document["tables"][0]["rows"] if row[0] == "compressive")
    assert row[1] == f"{100 * result['metrics']['test/accuracy']:.1f} (n = 1)"
    charts = [f"sort-smoke-{name}.{kind}" for name in ("x4-learning",) for kind in ("svg", "png")]
    assert {Path(file).name for file in document["files"]} == {
        "sort-smoke.md", "sort-smoke.csv", "sort-smoke.tex", "index.html", *charts
    }  # fmt: skip
    assert all(Path(file).is_file() for file in document["files"])
    some = json.loads(infty("report", "--format", "md, csv", "--out", "some", "--json").stdout)["files"]
    assert {Path(file).suffix for file in some} == {".md", ".csv", ".svg", ".png"}
    shutil.rmtree(tmp_path / "runs/sort/smoke/compressive@x4/seed-0/checkpoints")
    assert infty("report").returncode == 0


def test_pictures_are_drawn_again_only_where_their_data_changed(runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report(runs, out)
    first = {path: path.stat().st_mtime_ns for path in out.glob("*.svg")}
    assert len(first) == 2  # accuracy and pace by length
    report(runs, out)
    assert {path: path.stat().st_mtime_ns for path in out.glob("*.svg")} == first
    file = runs / "sort/laptop/infty@x16/seed-0/result.json"
    file.write_text(file.read_text().replace('"test/accuracy": 0.4', '"test/accuracy": 0.5'))
    report(runs, out)
    again = {path: path.stat().st_mtime_ns for path in out.glob("*.svg")}
    assert {path.stem for path in first if again[path] != first[path]} == {"sort-laptop-accuracy"}
    (out / "sort-laptop-pace.png").unlink()
    (out / ".pictures.json").write_text("{")
    report(runs, out)
    assert (out / "sort-laptop-pace.png").is_file()


def test_figures_that_a_table_has_no_more_are_removed_and_all_is_as_if_made_anew(runs: Path, tmp_path: Path) -> None:
    report(runs, tmp_path / "out")
    (tmp_path / "out/my-own.svg").touch()
    assert (tmp_path / "out/sort-laptop-pace.svg").is_file()
    shutil.rmtree(runs / "sort/laptop/infty@x16")
    report(runs, tmp_path / "out")
    report(runs, tmp_path / "anew")
    names = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert names.pop("my-own.svg") == b""
    assert names == {path.name: path.read_bytes() for path in (tmp_path / "anew").iterdir()}
    assert "sort-laptop-pace.svg" not in names


def test_brackets_are_no_marks_on_a_terminal() -> None:
    table = Table("[/x] title", ["[bold]a[/bold]", "[/b]"], [["[i]c", "d"]])
    for width in (100, 10):
        screen = Console(force_terminal=True, width=width, file=io.StringIO())
        screen.print(table.to_rich(width), soft_wrap=True)
        assert isinstance(screen.file, io.StringIO)
        said = screen.file.getvalue()
        assert all(words in said for words in ("[/x] title", "[/b]", "[i]c"))
        assert ("[bold]a[/bold]" in said) == (width == 100)  # else the first heading goes without saying


def test_every_cell_has_an_anchor_of_its_own_whatever_the_names() -> None:
    def anchor(experiment: str, model: str, case: str) -> str:
        return ResultSet(experiment, "smoke", "p", [], [], f"{experiment}-smoke").anchor(model, case)

    cells = [("a b", "x", "y"), ("a_b", "x", "y"), ("a", "x.y", "z"), ("a", "x", "y.z"), ("a'\"<", "x", "y")]
    found = [anchor(*cell) for cell in cells]
    assert len(set(found)) == len(found)
    assert all(re.fullmatch(r"[\w.~-]+", one) for one in found)


def test_names_and_commands_with_signs_of_other_languages_are_told_as_they_are(tmp_path: Path) -> None:
    folder = put(tmp_path / "runs", "infty", "x8", 0.5, command="infty train sort --set 'model.weights=a|b'")
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("experiment: sort", "experiment: $x^$ mine"))
    write_report([tmp_path / "runs"], tmp_path / "out", ["md"], SHIPPED)
    assert "`infty train sort --set 'model.weights=a\\|b'` |" in (tmp_path / "out/$x^$ mine-laptop.md").read_text()
    assert "$x^$ mine, laptop scale" in (tmp_path / "out/$x^$ mine-laptop-accuracy.svg").read_text()

"""What the committed runs make: the tables and figures of README and RESULTS.md, and LaTeX that is well-formed."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from pylatexenc.latexwalker import LatexEnvironmentNode, LatexWalker

from infty.config.definition import SHIPPED
from infty.report import Written, write_report
from infty.report.figures import Picture
from tests.results import BLOCK, PAGES, committed, findings, with_results

pytestmark = pytest.mark.slow


def shown(page: Path) -> list[Path]:
    """The figures of the committed runs that a page shows."""
    found = re.findall(r"!\[[^]]*\]\(([^)]*results/laptop/[^)]+)\)", page.read_text(encoding="utf-8"))
    return [page.parent / path for path in found]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """`infty report experiments/results/laptop`, once for all of this file; of its figures those that are shown."""
    stems, draw = {figure.stem for page in PAGES for figure in shown(page)}, Picture.draw
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Picture, "draw", lambda picture, stem: draw(picture, stem) if stem.name in stems else [])
        out = tmp_path_factory.mktemp("report")
        return write_report([SHIPPED / "results" / "laptop"], out, ["md", "tex"], SHIPPED)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_results_are_what_the_report_makes_of_the_committed_runs(report: Written, page: Path) -> None:
    """Table for table, sign for sign; `python -m tests.results` writes them."""
    text = page.read_text(encoding="utf-8")
    blocks = BLOCK.findall(text)
    assert blocks
    assert all(f"**{name}, laptop scale: " in tables for name, _, tables in blocks)
    assert with_results(text, report.tables, findings(committed())) == text


def test_every_experiment_that_was_kept_is_in_the_results() -> None:
    kept = {folder.name for folder in (SHIPPED / "results" / "laptop").iterdir() if folder.is_dir()}
    blocks = BLOCK.findall(PAGES[1].read_text(encoding="utf-8"))
    assert {(name, kind) for name, kind, _ in blocks if kind != "seeds"} == {(k, m) for k in kept for m in ("", "more")}
    assert {name for name, kind, _ in blocks if kind == "seeds"} == {"gpt2", "pg19", "sort", "wikitext"}


def test_the_figures_are_those_of_the_report_of_the_committed_runs(report: Written) -> None:
    """Drawn anew, to the byte."""
    drawn = {path.name: path for path in report.files}
    for page in PAGES:
        figures = shown(page)
        assert figures
        assert [path.name for path in figures if path.read_bytes() != drawn[path.name].read_bytes()] == []


@pytest.fixture
def files(report: Written) -> list[Path]:
    """Its tables in LaTeX."""
    return sorted(file for file in report.files if file.suffix == ".tex")


def test_a_strict_parser_finds_every_table_and_each_row_has_all_its_columns(files: list[Path]) -> None:
    for file in files:
        nodes, _, _ = LatexWalker(file.read_text(encoding="ascii"), tolerant_parsing=False).get_latex_nodes()
        tables = [node for node in nodes if isinstance(node, LatexEnvironmentNode)]
        assert len(tables) >= 2
        for table in tables:
            source = table.latex_verbatim()
            columns = source.partition(r"\begin{tabular}{")[2].partition("}")[0]
            body = source.partition(r"\toprule")[2].partition(r"\bottomrule")[0].replace(r"\midrule", "")
            rows = [row for row in body.split("\\\\\n") if row.strip()]
            assert {row.replace(r"\&", "").count("&") + 1 for row in rows} == {len(columns)}


def test_it_compiles_where_there_is_a_tex(files: list[Path], tmp_path: Path) -> None:
    if shutil.which("pdflatex") is None:
        pytest.skip("no pdflatex here")
    inputs = "\n".join(f"\\input{{{file.as_posix()}}}" for file in files)
    (tmp_path / "paper.tex").write_text(
        "\\documentclass{article}\\usepackage{booktabs,graphicx}\\begin{document}\n" + inputs + "\n\\end{document}\n"
    )
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:]

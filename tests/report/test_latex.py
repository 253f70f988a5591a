"""LaTeX: well-formed to a parser, and to TeX where there is one; signs of all kinds survive."""

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pylatexenc.latex2text import LatexNodes2Text
from pylatexenc.latexwalker import LatexEnvironmentNode, LatexWalker

from infty.catalog import SHIPPED
from infty.report import write_report
from infty.report.latex import escape

RESULTS = SHIPPED / "results" / "laptop"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("report")
    write_report([RESULTS], folder, ["tex"], SHIPPED)
    return sorted(folder.glob("*.tex"))


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


def test_figures_and_signs_by_hand() -> None:
    assert escape("37.2 ± 3.3 (n = 1)") == r"37.2 \ensuremath{\pm} 3.3 (n = 1)"
    assert escape("infty train sort --model x") == "infty train sort -{}-model x"
    assert escape("−0.5 – 10 % of a_b & c#d") == r"\ensuremath{-}0.5 -- 10 \% of a\_b \& c\#d"


@given(st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S", "Zs"])))
def test_ascii_comes_back_from_latex(text: str) -> None:
    """Read by the parser: nothing in a text acts as a command. (TeX joins spaces, and some signs into others.)"""
    back = LatexNodes2Text(strict_latex_spaces=True, keep_comments=True).latex_to_text(escape(text))
    for one, other in (("'", "’"), ("`", "‘"), ('"', "”"), ("^", "ˆ"), ("~", "˜")):
        text, back = text.replace(one, other), back.replace(one, other)
    assert "".join(back.split()) == "".join(text.split())


@given(st.text())
def test_whatever_the_sign_it_is_ascii_and_well_formed(text: str) -> None:
    found = escape(text)
    assert found.isascii()
    LatexWalker("{" + found + "}", tolerant_parsing=False).get_latex_nodes()

"""LaTeX: signs of all kinds survive, and do nothing. What the committed runs make is in test_committed.py."""

from hypothesis import given
from hypothesis import strategies as st
from pylatexenc.latex2text import LatexNodes2Text
from pylatexenc.latexwalker import LatexWalker

from infty.report.write import escape


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

r"""Tables for a paper: LaTeX with booktabs, to be used with \input."""

import logging
import re
from collections.abc import Callable
from functools import cache

from infty.base.table import Table, is_best
from infty.report.write import Part

MINUS = {ord("−"): r"\ensuremath{-}", ord("–"): "--"}  # whatever the library has for them, in a column of figures


def to_latex(part: Part) -> str:
    r"""Set each table as a float with its notes. Needs \usepackage{booktabs} and \usepackage{graphicx}."""
    head = f"% {part.results.name}: infty report\n% \\usepackage{{booktabs,graphicx}}\n"
    return head + "\n".join(map(_set_float, part.tables))


def _set_float(table: Table) -> str:
    columns = "l" + ("r" if table.figures else "l") * (len(table.headings) - 1)
    lines = [" & ".join(map(_set_cell, line)) + r" \\" for line in (table.headings, *table.rows)]
    notes = r"\par ".join(map(escape, table.notes))
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape(table.title)}}}",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            lines[0],
            r"\midrule",
            *lines[1:],
            r"\bottomrule",
            r"\end{tabular}}",
            *([rf"\par\smallskip\parbox{{\linewidth}}{{\footnotesize {notes}}}"] if notes else []),
            r"\end{table}",
            "",
        ]
    )


def _set_cell(text: str) -> str:
    return rf"\textbf{{{escape(text)}}}" if is_best(text) else escape(text)


def escape(text: str) -> str:
    """Write text as LaTeX sets it, in ASCII."""
    return _make_encoder()(str(text))


@cache
def _make_encoder() -> Callable[[str], str]:
    from pylatexenc import latexencode as lib  # which takes long to import

    logging.getLogger("pylatexenc").setLevel(logging.ERROR)  # it tells of each sign that it has no name for
    ligatures = [(re.compile(r"([-'`,?!])(?=[-'`,])"), r"\1{}")]
    rules = [
        lib.UnicodeToLatexConversionRule(kind, rule)
        for kind, rule in ((lib.RULE_DICT, MINUS), (lib.RULE_REGEX, ligatures))
    ]
    rules += lib.get_builtin_conversion_rules("defaults")
    return lib.UnicodeToLatexEncoder(conversion_rules=rules, unknown_char_policy="unihex").unicode_to_latex

"""Tables for a paper: LaTeX with booktabs, to be used with \\input."""

import logging
import re
from functools import cache

from pylatexenc.latexencode import (
    RULE_DICT,
    RULE_REGEX,
    UnicodeToLatexConversionRule,
    UnicodeToLatexEncoder,
    get_builtin_conversion_rules,
)

from infty.base.table import Table, is_best
from infty.report.load.results import ResultSet

MINUS = {ord("−"): r"\ensuremath{-}", ord("–"): "--"}  # whatever the library has for them, in a column of figures


def to_latex(results: ResultSet, tables: list[Table]) -> str:
    """Each table as a float with its notes. Needs \\usepackage{booktabs} and \\usepackage{graphicx}."""
    head = f"% {results.name}: infty report\n% \\usepackage{{booktabs,graphicx}}\n"
    return head + "\n".join(map(_float, tables))


def _float(table: Table) -> str:
    columns = "l" + ("r" if table.figures else "l") * (len(table.headings) - 1)
    lines = [" & ".join(map(_cell, line)) + r" \\" for line in (table.headings, *table.rows)]
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


def _cell(text: str) -> str:
    shown = escape(text)
    return rf"\textbf{{{shown}}}" if is_best(text) else shown


def escape(text: str) -> str:
    """Text as LaTeX sets it, in ASCII."""
    return _encoder().unicode_to_latex(str(text))


@cache
def _encoder() -> UnicodeToLatexEncoder:
    logging.getLogger("pylatexenc").setLevel(logging.ERROR)  # it tells of each sign that it has no name for
    apart = UnicodeToLatexConversionRule(RULE_REGEX, [(re.compile(r"([-'`,?!])(?=[-'`,])"), r"\1{}")])  # no ligatures
    rules = [UnicodeToLatexConversionRule(RULE_DICT, MINUS), apart, *get_builtin_conversion_rules("defaults")]
    return UnicodeToLatexEncoder(conversion_rules=rules, unknown_char_policy="unihex")

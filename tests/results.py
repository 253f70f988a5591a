"""The tables of README and experiments/RESULTS.md: what the report makes of the committed runs, and what is beside it.

`python -m tests.results` writes them.
"""

import re
from collections.abc import Sequence

from infty.base.table import Table
from infty.config.definition import SHIPPED
from infty.report import make_tables
from infty.report.load.collect import collect
from infty.report.load.results import ResultSet
from tests.findings import finding_tables

PAGES = (SHIPPED.parent / "README.md", SHIPPED / "RESULTS.md")
BLOCK = re.compile(
    r"<!-- ([a-z0-9-]+)(?:, (more|headline|seeds))? results -->\n\n(?:((?:(?!<!--).)*?)\n\n)?<!-- end -->", re.DOTALL
)
HEADLINE = re.compile(r": (accuracy|test figures)")
FIRST = re.compile(  # the rest is folded
    r": (accuracy|test figures|by distance|the order of rows|difference to|neighbouring columns|memory knocked out)"
)
LEFT_OUT = re.compile(r": beside the paper$")  # laptop figures are not the paper's


def committed() -> list[ResultSet]:
    """The runs that were kept, by experiment."""
    return collect([SHIPPED / "results" / "laptop"], SHIPPED)


def findings(sets: Sequence[ResultSet]) -> list[Table]:
    """What each seed says, and the like: not a report's."""
    return [table for results in sets for table in finding_tables(results)]


def with_results(text: str, tables: Sequence[Table], found: Sequence[Table]) -> str:
    """`text` with its blocks made anew of a report's tables: `<!-- sort results -->`, and with `sort, more` or
    `sort, headline` what is folded and what README has; with `sort, seeds` of the tables beside a report's."""

    def block(match: re.Match[str]) -> str:
        name, kind, _ = match.groups()
        wanted = HEADLINE if kind == "headline" else FIRST
        own = [t for t in tables if bool(wanted.search(t.title)) != (kind == "more") and not LEFT_OUT.search(t.title)]
        shown = [t for t in (found if kind == "seeds" else own) if t.title.startswith(f"{name},")]
        return "\n\n".join([match[0].split("\n", 1)[0], *map(_shown, shown), "<!-- end -->"])

    return BLOCK.sub(block, text)


def _shown(table: Table) -> str:
    return f"**{table.title}**\n\n{table.to_markdown().strip()}"


if __name__ == "__main__":
    kept = committed()
    made = [table for results in kept for table in make_tables(results)]
    for page in PAGES:
        page.write_text(with_results(page.read_text(encoding="utf-8"), made, findings(kept)), encoding="utf-8")

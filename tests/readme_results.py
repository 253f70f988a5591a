"""README's results: what the report makes of the committed runs. `python -m tests.readme_results` writes them."""

import re
from collections.abc import Sequence
from pathlib import Path

from infty.catalog import SHIPPED
from infty.report.collect import collect
from infty.report.tables import all_tables
from infty.table import Table

README = Path(__file__).parent.parent / "README.md"
FIRST = re.compile(  # the rest is folded
    r": (accuracy|test figures|the order of rows|difference to|neighbouring columns|memory knocked out)"
)
LEFT_OUT = re.compile(r": beside the paper$")  # laptop figures are not the paper's


def with_results(text: str, tables: Sequence[Table]) -> str:
    """`text` with each block `<!-- sort -->` and `<!-- sort, more -->` made anew of a report's tables."""

    def block(match: re.Match[str]) -> str:
        own = [t for t in tables if t.title.startswith(f"{match['name']},") and not LEFT_OUT.search(t.title)]
        shown = [t for t in own if bool(FIRST.search(t.title)) != bool(match["more"])]
        return "\n\n".join([match["start"], *map(_shown, shown), match["end"]])

    return re.sub(
        r"(?P<start><!-- (?P<name>[a-z0-9-]+)(?P<more>, more)? results -->).*?(?P<end><!-- end -->)",
        block,
        text,
        flags=re.DOTALL,
    )


def _shown(table: Table) -> str:
    return f"**{table.title}**\n\n{table.markdown().strip()}"


if __name__ == "__main__":
    sets = collect([SHIPPED / "results" / "laptop"], SHIPPED)
    made = [table for results in sets for table in all_tables(results)]
    README.write_text(with_results(README.read_text(encoding="utf-8"), made), encoding="utf-8")

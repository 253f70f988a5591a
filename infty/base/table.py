"""A table as Markdown, on the terminal, and as JSON."""

from dataclasses import dataclass, field
from typing import Any

from rich import table as rich_table
from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text


class Entry(str):
    """A cell that says more than its text: whether it is the best of its column, and which runs it is made of."""

    best: bool
    runs: str  # an anchor of the page

    def __new__(cls, text: str, *, best: bool = False, runs: str = "") -> "Entry":
        """Text as it is shown, without marks."""
        entry = super().__new__(cls, text)
        entry.best, entry.runs = best, runs
        return entry


@dataclass(frozen=True)
class Table:
    """Headings and rows of text; `notes` say how to read them. `figures` stand to the right."""

    title: str
    headings: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)
    figures: bool = True

    def to_markdown(self) -> str:
        """A pipe table."""
        rule = ["---", *["---:" if self.figures else "---"] * (len(self.headings) - 1)]
        lines = [self.headings, rule, *self.rows]
        return "\n".join("| " + " | ".join(map(_escape, line)) + " |" for line in lines) + "\n"

    def to_rich(self, width: int) -> RenderableType:
        """The table for a terminal of that many cells, without its notes; a line a cell where words would be broken."""
        if (widths := self._fit_widths(width)) is None:
            return Group(Text(self.title, style="italic"), *(self._stack(row) for row in self.rows))
        table = rich_table.Table(title=Text(self.title))  # as it is: brackets are no marks
        for i, (heading, own) in enumerate(zip(self.headings, widths, strict=True)):
            table.add_column(Text(heading), justify="right" if i and self.figures else "left", width=own)
        for row in self.rows:
            table.add_row(*map(_style, row))
        return table

    def _fit_widths(self, width: int) -> list[int] | None:
        """Widths of the columns: the first whole, then the narrow ones. None where not even the longest words fit."""
        columns = list(zip(self.headings, *self.rows, strict=True))
        widths = [max(cell_len(word) for cell in column for word in cell.split() or [""]) for column in columns]
        whole = [max(map(cell_len, column)) for column in columns]
        left = width - sum(widths) - 3 * len(columns) - 1  # between the columns: a line and two blanks
        for _ in range(left):
            if wanting := [i for i, own in enumerate(widths) if own < whole[i]]:
                widths[min(wanting, key=lambda i: (i > 0, widths[i]))] += 1
        return widths if left >= 0 else None

    def _stack(self, row: list[str]) -> RenderableType:
        """The first cell, and the others below it with their headings."""
        pairs = [(heading, cell) for heading, cell in zip(self.headings[1:], row[1:], strict=True) if cell]
        lines = [Padding(Text.assemble(f"{heading}: ", _style(cell)), (0, 0, 0, 2)) for heading, cell in pairs]
        return Group(Text(row[0]), *lines)

    def document(self) -> dict[str, Any]:
        """The table as JSON holds it."""
        return vars(self)


def is_best(cell: str) -> bool:
    """Whether a cell is set in bold."""
    return isinstance(cell, Entry) and cell.best


def _style(cell: str) -> Text:
    return Text(cell, style="bold" if is_best(cell) else "")


def _escape(text: str) -> str:
    """A `|` would end the cell."""
    shown = text.replace("|", "\\|")
    return f"**{shown}**" if is_best(text) else shown

"""A table as Markdown, on the terminal, and as JSON."""

from dataclasses import dataclass, field

from rich import table as rich_table
from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text


class Entry(str):
    """The text of a cell, marked if it is the best of its column, and linked to the runs it comes from."""

    best: bool
    runs: str  # an anchor in the HTML page

    def __new__(cls, text: str, *, best: bool = False, runs: str = "") -> "Entry":
        """Make an entry of a text as it is shown, without Markdown."""
        entry = super().__new__(cls, text)
        entry.best, entry.runs = best, runs
        return entry


@dataclass(frozen=True)
class Table:
    """Headings and rows of text, with notes on how to read them. figures: right-align all columns but the first."""

    title: str
    headings: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)
    figures: bool = True

    def to_markdown(self) -> str:
        """Format the table as a Markdown pipe table."""
        rule = ["---", *["---:" if self.figures else "---"] * (len(self.headings) - 1)]
        lines = [self.headings, rule, *self.rows]
        return "\n".join("| " + " | ".join(map(_escape, line)) + " |" for line in lines) + "\n"

    def to_rich(self, width: int) -> RenderableType:
        """Format the table for a terminal of `width` cells, without notes; one line per cell if words would break."""
        if (widths := self._fit_widths(width)) is None:
            return Group(Text(self.title, style="italic"), *(self._stack(row) for row in self.rows))
        table = rich_table.Table(title=Text(self.title))  # taken literally: brackets are no markup
        for i, (heading, own) in enumerate(zip(self.headings, widths, strict=True)):
            table.add_column(Text(heading), justify="right" if i and self.figures else "left", width=own)
        for row in self.rows:
            table.add_row(*map(_style, row))
        return table

    def _fit_widths(self, width: int) -> list[int] | None:
        """Fit the columns to a width, widening the first, then the narrowest. None if the longest words do not fit."""
        columns = list(zip(self.headings, *self.rows, strict=True))
        widths = [max(cell_len(word) for cell in column for word in cell.split() or [""]) for column in columns]
        whole = [max(map(cell_len, column)) for column in columns]
        left = width - sum(widths) - 3 * len(columns) - 1  # between the columns: a line and two blanks
        for _ in range(left):
            if wanting := [i for i, own in enumerate(widths) if own < whole[i]]:
                widths[min(wanting, key=lambda i: (i > 0, widths[i]))] += 1
        return widths if left >= 0 else None

    def _stack(self, row: list[str]) -> RenderableType:
        """Stack a row: the first cell, and the others below it with their headings."""
        pairs = [(heading, cell) for heading, cell in zip(self.headings[1:], row[1:], strict=True) if cell]
        lines = [Padding(Text.assemble(f"{heading}: ", _style(cell)), (0, 0, 0, 2)) for heading, cell in pairs]
        return Group(Text(row[0]), *lines)


def is_best(cell: str) -> bool:
    """Tell if a cell is set in bold."""
    return isinstance(cell, Entry) and cell.best


def _style(cell: str) -> Text:
    return Text(cell, style="bold" if is_best(cell) else "")


def _escape(text: str) -> str:
    """Escape a cell for Markdown: a `|` would end it."""
    shown = text.replace("|", "\\|")
    return f"**{shown}**" if is_best(text) else shown

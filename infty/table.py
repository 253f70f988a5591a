"""A table as Markdown, on the terminal, and as JSON."""

from dataclasses import dataclass, field
from typing import Any

from rich import table as rich_table
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

    def markdown(self) -> str:
        """A pipe table."""
        rule = ["---", *["---:" if self.figures else "---"] * (len(self.headings) - 1)]
        lines = [self.headings, rule, *self.rows]
        return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines) + "\n"

    def rich(self) -> rich_table.Table:
        """The table as rich draws it on a terminal."""
        title, caption = Text(self.title), Text("\n".join(self.notes))  # as they are: brackets are no marks
        table = rich_table.Table(title=title, caption=caption, caption_justify="left")
        for i, heading in enumerate(self.headings):
            table.add_column(Text(heading), justify="right" if i and self.figures else "left", overflow="fold")
        for row in self.rows:
            table.add_row(*(Text(cell, style="bold" if is_best(cell) else "") for cell in row))
        return table

    def document(self) -> dict[str, Any]:
        """The table as JSON holds it."""
        return vars(self)


def is_best(cell: str) -> bool:
    """Whether a cell is set in bold."""
    return isinstance(cell, Entry) and cell.best


def _cell(text: str) -> str:
    """A `|` would end the cell."""
    shown = text.replace("|", "\\|")
    return f"**{shown}**" if is_best(text) else shown

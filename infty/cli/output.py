"""What commands share: the settings, the cell that options name, and how results are shown."""

import json
from pathlib import Path
from typing import Any


def settings(**options: Any) -> Any:
    """Of this machine, with what options say."""
    from infty.settings import load_settings

    return load_settings(**options)


def resolve_cell(
    machine: Any,
    experiment: str,
    model: str,
    case: str | None,
    scale: str,
    seed: int,
    overrides: list[str] | None,
    name: str | None,
    data: Path | None = None,
) -> Any:
    """The checked cell that the options name; with `data` its corpus is the user's own files."""
    from infty.catalog import open_experiment
    from infty.definition import Cell, variant_of
    from infty.experiment import resolve

    if data is not None:
        from infty.corpora.imports import own_name

        corpus = own_name(data)
        name = name or (None if overrides else corpus)  # a table of its own (see report/results.py)
        overrides = [*(overrides or []), f"task.corpus={corpus}"]
    definition = open_experiment(experiment, machine.experiments)
    cell = Cell(
        definition.name, scale, model, case or definition.names("cases")[0], seed, variant_of(overrides or [], name)
    )
    return resolve(definition, cell, overrides or [])


def console(stderr: bool = False) -> Any:
    """Where texts and bars go."""
    from rich.console import Console

    class Lasting(Console):
        """Goes on in silence where its reader went away: `| head` must not end a training."""

        def on_broken_pipe(self) -> None:
            self.quiet = True

    from infty.launch import this_launch

    return Lasting(stderr=stderr, markup=False, highlight=False, quiet=not this_launch().leads)


def show_values(values: dict[str, Any], as_json: bool, document: Any = None) -> None:
    """A line each, or the whole document as JSON."""
    if as_json:
        print_json(values if document is None else document)
        return
    for key, value in values.items():
        if isinstance(value, dict):
            print(f"{key}:")
            for inner, detail in value.items():
                print(f"  {inner}: {detail}")
        else:
            print(f"{key}: {value}")


def print_table(table: Any) -> None:
    """Drawn on a terminal; elsewhere whole lines, which other programs can read."""
    screen = console()
    if screen.is_terminal:
        screen.print(table.rich())
    else:
        print("\n".join([table.title, "", table.markdown(), *table.notes, ""]))


def print_json(document: Any) -> None:
    """One document on stdout."""
    print(json.dumps(document, indent=2, allow_nan=False))

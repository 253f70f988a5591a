"""`infty generate`: see a trained model continue a text."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from infty.base.errors import UsageError
from infty.cli.options import CellOptions, InferenceOptions, Json, expand
from infty.cli.output import open_console, print_json


@expand
def generate(
    cell_options: CellOptions,
    machine_options: InferenceOptions,
    prompt: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What it goes on from; by default a document begins.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The same from a file of any length; - is stdin.")
    ] = None,
    tokens: Annotated[int, typer.Option(min=1, help="Tokens to make.")] = 100,
    temperature: Annotated[
        float, typer.Option(min=0.0, help="Low keeps to what is likely; 0 takes the most likely token.")
    ] = 0.8,
    top_k: Annotated[int, typer.Option(min=1, help="Draw from so many of the most likely tokens.")] = 40,
    draw: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Seed of the draws.")] = 0,
    as_json: Json = False,
) -> None:
    """Continue a text with the best checkpoint of a cell, its memory carried from the first token on."""
    if prompt is not None and file is not None:
        raise UsageError("--prompt and --file are two texts to go on from: give one of them")

    from infty.commands.generate import Sampling, generate_cell

    machine = machine_options.read_settings()
    cell = cell_options.resolve_cell(machine)
    text = (prompt or "") if file is None else file
    write = (lambda _: None) if as_json else _write
    outcome = generate_cell(cell, machine, text, tokens, Sampling(temperature, top_k, draw), write)
    if as_json:
        print_json(outcome)
        return
    _write("\n")
    if (made := outcome["generated_tokens"]) < tokens:
        open_console(stderr=True).print(f"the text ended after {made} tokens")


def _write(piece: str) -> None:
    """Write a piece at once. A reader that went away, as `| head` does, has enough, and that is the end."""
    try:
        print(piece, end="", flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still to be flushed
        raise typer.Exit from None

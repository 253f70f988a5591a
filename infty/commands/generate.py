"""`infty generate`: continue a text with a trained model."""

import io
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice, takewhile, tee
from pathlib import Path
from typing import Any

from infty.base.errors import UsageError
from infty.base.progress import open_text
from infty.commands.evaluate import find_trained_run
from infty.commands.load import load_run
from infty.config.settings import Settings
from infty.corpora.text_pieces import PIECE, read_pieces
from infty.corpora.tokenizers import Tokenizer
from infty.evaluation.continuation import Sampling, generate_tokens, read_text
from infty.experiment import Cell
from infty.machine.placement import prepare_machine
from infty.runs.folder import SCHEMA
from infty.tasks.segmentation import cut_windows

BROKEN = "\ufffd"  # decoded from bytes that are no character, or not a whole one yet


def generate_cell(
    cell: Cell, settings: Settings, prompt: str | Path, count: int, sampling: Sampling, write: Callable[[str], None]
) -> dict[str, Any]:
    """Continue a text by `count` tokens, or to its end, with the best checkpoint of a cell's run.

    prompt: a text, or a file of any length (`-`: stdin). write: takes each piece of the continuation once it is made.

    Raises:
        UsageError: The cell is not about texts, or the temperature is no number.
    """
    # Refuse what can't be done before a model is loaded.
    if not cell.experiment.task.has_text:
        raise UsageError(f"{cell.key.experiment} has no text to continue: use an experiment on texts, as wikitext")
    if not math.isfinite(sampling.temperature):
        raise UsageError(f"--temperature {sampling.temperature}: wanted a number")
    machine, run = prepare_machine(settings), find_trained_run(cell, settings)
    trained = load_run(run.path)
    model, tokenizer = machine.place(trained.model), trained.tokenizer
    assert tokenizer is not None

    # Read the prompt once, segment by segment, so that it may be of any length.
    with _open_prompt(prompt) as pieces:
        reading = read_text(model, cut_windows(tokenizer, pieces, model.config.segment_length))

    # Draw each token after the text before it is written, so that nobody waits for the whole.
    tokens, again = tee(islice(take_until_end(generate_tokens(model, reading, sampling), tokenizer), count))
    text: list[str] = []
    for piece in decode_stream(tokens, tokenizer, reading.last):
        write(piece)
        text.append(piece)
    return {
        "schema": SCHEMA,
        "run": cell.key.folder.as_posix(),
        "cell": cell.config["cell"],
        "step": trained.step,
        "settings": {"tokens": count, **vars(sampling)},
        "prompt_tokens": reading.tokens,
        "generated_tokens": len(list(again)),
        "text": "".join(text),
    }


def take_until_end(tokens: Iterable[int], tokenizer: Tokenizer) -> Iterator[int]:
    """Take the tokens before the first end of text; all of them if the tokeniser has no such token."""
    return takewhile(lambda token: token != tokenizer.end_of_text, tokens)


def decode_stream(tokens: Iterable[int], tokenizer: Tokenizer, before: int) -> Iterator[str]:
    """Decode tokens that follow the token `before`, as they come: each character once all its bytes are there."""
    held, known = [before], tokenizer.decode([before])
    for token in tokens:
        held.append(token)
        text = tokenizer.decode(held)
        if not text.endswith(BROKEN):
            yield text[len(known) :]
            held, known = [token], tokenizer.decode([token])
    if len(held) > 1:
        yield tokenizer.decode(held)[len(known) :]


@contextmanager
def _open_prompt(prompt: str | Path) -> Iterator[Iterable[str]]:
    """Open a prompt, given as text or as a file (see `open_text`), to be read piece by piece."""
    if isinstance(prompt, str):
        yield read_pieces(io.BytesIO(prompt.encode(errors="surrogateescape")), "the prompt")
    else:
        with open_text(prompt) as file:
            yield iter(lambda: file.read(PIECE), "")

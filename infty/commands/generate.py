"""`infty generate`: continue a text with a trained model."""

import io
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice, takewhile, tee
from pathlib import Path
from typing import Any

from infty.base.errors import MissingError, UsageError
from infty.base.progress import open_text
from infty.commands.evaluate import find_trained_run
from infty.commands.load import load_run
from infty.config.settings import Settings
from infty.corpora.text_pieces import PIECE, read_pieces
from infty.corpora.tokenizers import Tokenizer
from infty.evaluation.continuation import Continuation, Reading, Sampling, generate_tokens, read_text
from infty.experiment import Cell
from infty.machine.placement import prepare_machine
from infty.model.interface import SegmentModel
from infty.runs.folder import SCHEMA
from infty.tasks.segmentation import cut_windows

BROKEN = "\ufffd"  # decoded from bytes that are no character, or not a whole one yet


@dataclass(frozen=True)
class Writer:
    """A trained model that continues texts."""

    cell: Cell
    step: int
    model: SegmentModel
    tokenizer: Tokenizer
    count: int  # tokens to make for each text, if it does not end before
    sampling: Sampling

    def read(self, pieces: Iterable[str]) -> Reading:
        """Read a text, segment by segment, so that it may be of any length."""
        return read_text(self.model, cut_windows(self.tokenizer, pieces, self.model.config.segment_length))

    def describe(self, reading: Reading, made: int, text: str) -> dict[str, Any]:
        """Describe for JSON a continuation of so many tokens."""
        return {
            "schema": SCHEMA,
            "run": self.cell.key.folder.as_posix(),
            "cell": self.cell.config["cell"],
            "step": self.step,
            "settings": {"tokens": self.count, **vars(self.sampling)},
            "prompt_tokens": reading.tokens,
            "generated_tokens": made,
            "text": text,
        }


def open_writer(cell: Cell, settings: Settings, count: int, sampling: Sampling) -> Writer:
    """Open the best checkpoint of a cell's run, to continue texts by `count` tokens, or to their end.

    Raises:
        UsageError: The cell is not about texts, or the temperature is no number.
        MissingError: Nothing is trained yet.
    """
    # Refuse what can't be done before a model is loaded.
    if not cell.experiment.task.has_text:
        raise UsageError(f"{cell.key.experiment} has no text to continue: use an experiment on texts, as wikitext")
    if not math.isfinite(sampling.temperature):
        raise UsageError(f"--temperature {sampling.temperature}: wanted a number")
    machine, run = prepare_machine(settings), find_trained_run(cell, settings)
    trained = load_run(run.path)
    assert trained.tokenizer is not None
    return Writer(cell, trained.step, machine.place(trained.model), trained.tokenizer, count, sampling)


def continue_text(writer: Writer, prompt: str | Path, write: Callable[[str], None]) -> dict[str, Any]:
    """Continue a text, or a file of any length (`-`: stdin). write: takes each piece once it is made."""
    with _open_prompt(prompt) as pieces:
        reading = writer.read(pieces)

    # Draw each token after the text before it is written, so that nobody waits for the whole.
    endless = generate_tokens(writer.model, reading, writer.sampling)
    tokens, again = tee(islice(take_until_end(endless, writer.tokenizer), writer.count))
    text: list[str] = []
    for piece in decode_stream(tokens, writer.tokenizer, reading.last):
        write(piece)
        text.append(piece)
    return writer.describe(reading, len(list(again)), "".join(text))


def continue_lines(writer: Writer, file: Path, batch: int) -> Iterator[dict[str, Any]]:
    """Continue each line of a file as if it were alone, `batch` of them side by side; blank ones are left out.

    Raises:
        MissingError: The file can't be read, or has no line.
    """
    with open_text(file) as opened:
        lines = [line for line in opened.read().splitlines() if line.strip()]
    if not lines:
        raise MissingError(f"{file} has no line that is not blank: wanted a text a line")
    for first in range(0, len(lines), batch):
        readings = [writer.read([line]) for line in lines[first : first + batch]]
        made = _make_tokens(writer, readings)
        for reading, tokens in zip(readings, made, strict=True):
            text = "".join(decode_stream(tokens, writer.tokenizer, reading.last))
            yield writer.describe(reading, len(tokens), text)


def _make_tokens(writer: Writer, readings: Sequence[Reading]) -> list[list[int]]:
    """Make the tokens that follow each text, side by side."""
    texts, made = Continuation(writer.model, readings, writer.sampling), [list[int]() for _ in readings]
    while texts.texts:
        for text, token in texts.draw().items():
            ended = token == writer.tokenizer.end_of_text
            if not ended:
                made[text].append(token)
            if ended or len(made[text]) == writer.count:
                texts.end(text)
    return made


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

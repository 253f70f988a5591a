"""Continue a text with a model, token by token, with all that the model remembers of the text.

Models read a segment at a time and return a state for the next one, so a state is kept only when a segment is full.
A segment that is not full is run again for each new token, from the state before it (s: separator, |: a kept state):

    text      s a b c | d e f g | h i
    run                           h i → j,   h i j → k,   h i j k → l   |   l → m, …
"""

import io
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice, takewhile, tee
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from numpy import ndarray
from torch import Tensor

from infty.base.errors import UsageError
from infty.base.progress import open_text
from infty.commands.evaluate import find_trained_run
from infty.commands.load import load_run
from infty.config.settings import Settings
from infty.corpora.text_pieces import PIECE, read_pieces
from infty.corpora.tokenizers import Tokenizer
from infty.evaluation.evaluate import use_evaluation_mode
from infty.experiment import Cell
from infty.machine.placement import prepare_machine
from infty.model.interface import SegmentModel, State
from infty.runs.folder import SCHEMA
from infty.tasks.segmentation import cut_windows

BROKEN = "\ufffd"  # decoded from bytes that are no character, or not a whole one yet


@dataclass(frozen=True)
class Sampling:
    """A way to draw a token: from the softmax of logits / temperature over the `top_k` likeliest; draw: the seed."""

    temperature: float = 0.8
    top_k: int = 40
    draw: int = 0


@dataclass(frozen=True)
class Reading:
    """A text as a model has read it."""

    state: State  # before the segment in which the text ends
    segment: tuple[int, ...]  # its tokens so far, 1 to `segment_length`
    tokens: int  # how many the text has, without the separator before it


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
    for piece in decode_stream(tokens, tokenizer, reading.segment[-1]):
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


def read_text(model: SegmentModel, windows: Iterable[Int64[ndarray, " n"]]) -> Reading:
    """Read a text with a model: run full segments once, in constant memory, and keep the rest (see `cut_windows`)."""
    length, tokens, segment = model.config.segment_length, 0, ()
    with use_evaluation_mode(model):
        state, positions = model.initial_state(torch.zeros(1, dtype=torch.int64)), model.positions()
        for window in windows:
            segment = tuple(window.tolist())
            if len(segment) > length:
                state = model(torch.tensor([segment[:length]], device=model.device), state, positions, 0).state
                tokens += length
    return Reading(state, segment, tokens + len(segment) - 1)


def generate_tokens(model: SegmentModel, reading: Reading, sampling: Sampling) -> Iterator[int]:
    """Generate tokens after a text, without end: the same ones for the same weights, text and sampling."""
    state, segment, generator = reading.state, reading.segment, torch.Generator().manual_seed(sampling.draw)
    with use_evaluation_mode(model):
        positions = model.positions()
    while True:
        with use_evaluation_mode(model):  # not around the loop: between tokens the caller's mode applies
            output = model(torch.tensor([segment], device=model.device), state, positions, 1)
            token = draw_token(output.logits[0, -1], sampling, generator)
        if len(segment) == model.config.segment_length:
            state, segment = output.state, ()
        segment = (*segment, token)
        yield token


def draw_token(logits: Float[Tensor, " vocab"], sampling: Sampling, generator: torch.Generator) -> int:
    """Draw one token, on the CPU whatever device the logits are on. generator: the CPU's."""
    if sampling.temperature == 0:
        return int(logits.argmax())
    best, tokens = logits.cpu().double().topk(min(sampling.top_k, len(logits)))
    chances = ((best - best[0]) / sampling.temperature).softmax(0)  # the largest is 0: no temperature is too low
    return int(tokens[torch.multinomial(chances, 1, generator=generator)])


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

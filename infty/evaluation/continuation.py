"""Continue texts with a model, token by token, with all that the model remembers of them.

A text's full segments are read at once. The segment in which it ends is read in parts, first what there is of it and
then each token as it comes, from the state that the part before it returned (s: separator, |: a segment begins, so that
what leaves the short-term memory enters the long-term one):

    text      s a b c | d e f g | h i
    read      s a b c | d e f g | h i → j,   j → k,   k → l   |   l → m, …
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from numpy import ndarray
from torch import Tensor

from infty.evaluation.evaluate import use_evaluation_mode
from infty.memory.rows import visible
from infty.model.interface import Output, SegmentModel, State
from infty.model.memory_layer import Part
from infty.model.tensors import take_rows


@dataclass(frozen=True)
class Sampling:
    """A way to draw a token: from the softmax of logits / temperature over the `top_k` likeliest; draw: the seed."""

    temperature: float = 0.8
    top_k: int = 40
    draw: int = 0


@dataclass(frozen=True)
class Reading:
    """A text as a model has read it, but for its last token."""

    state: State
    last: int  # the token that is yet to be read
    begun: int  # how many tokens of its segment come before it
    tokens: int  # how many the text has, without the separator before it


def read_text(model: SegmentModel, windows: Iterable[Int64[ndarray, " n"]]) -> Reading:
    """Read a text with a model in constant memory, a segment at once (see `cut_windows`), all but the last token."""
    length, tokens, segment = model.config.segment_length, 0, []
    with use_evaluation_mode(model):
        state, positions = model.initial_state(torch.zeros(1, dtype=torch.int64)), model.positions()
        for window in windows:
            segment = window.tolist()
            if len(segment) > length:
                state = model(torch.tensor([segment[:length]], device=model.device), state, positions, 0).state
                tokens += length
        if before := segment[:-1]:
            state = model(torch.tensor([before], device=model.device), state, positions, 1, Part(ends=False)).state
    return Reading(state, segment[-1], len(before), tokens + len(before))


def generate_tokens(model: SegmentModel, reading: Reading, sampling: Sampling) -> Iterator[int]:
    """Generate tokens after a text, without end: the same ones for the same weights, text and sampling."""
    texts = Continuation(model, [reading], sampling)
    while True:
        yield texts.draw()[0]


class Continuation:
    """Texts that are continued side by side, each as it would be alone: a token of each for every call of `draw`."""

    def __init__(self, model: SegmentModel, readings: Sequence[Reading], sampling: Sampling) -> None:
        self.model, self.sampling = model, sampling
        self.texts = list(range(len(readings)))  # the number of the text in each row
        self._last = [reading.last for reading in readings]  # the token to read next, by text
        self._begun = [reading.begun for reading in readings]  # how many of its segment come before it, by text
        self._state = model.concatenate([reading.state for reading in readings])
        self._generators = [torch.Generator().manual_seed(sampling.draw) for _ in readings]
        with use_evaluation_mode(model):
            self._positions = model.positions()

    def draw(self) -> dict[int, int]:
        """Draw the next token of each text, by the text's number."""
        with use_evaluation_mode(self.model):  # not longer: between tokens the caller's mode applies
            logits = self._read_on()
            drawn = {
                text: draw_token(row, self.sampling, self._generators[text])
                for text, row in zip(self.texts, logits, strict=True)
            }
        for text, token in drawn.items():
            self._last[text] = token
        return drawn

    def end(self, text: int) -> None:
        """Leave out a text that has come to its end."""
        kept = [row for row, other in enumerate(self.texts) if other != text]
        self.texts = [self.texts[row] for row in kept]
        self._state = take_rows(self._state, kept)

    def _read_on(self) -> Float[Tensor, "texts vocab"]:
        """Read the last token of each text, those alike in one call, and return the logits of what follows."""
        # What leaves the short-term memory as a segment begins depends on how much is in there.
        length, near = self.model.config.segment_length, self._state[0].short_term
        own, groups = visible(near.hidden, near.filled).tolist(), dict[tuple[Part, int], list[int]]()
        for row, text in enumerate(self.texts):
            part = Part(begins=self._begun[text] == 0, ends=self._begun[text] + 1 == length)
            groups.setdefault((part, own[row] if part.begins else 0), []).append(row)
            self._begun[text] = (self._begun[text] + 1) % length
        if len(groups) == 1:
            [(part, _)] = groups
            output = self._read_last(self.texts, self._state, part)
            self._state = output.state
            return output.logits[:, -1]

        # Rows of a group are taken out, read, and put together with the others in another order.
        taken = [[self.texts[row] for row in rows] for rows in groups.values()]
        outputs = [
            self._read_last(texts, take_rows(self._state, rows), part)
            for texts, ((part, _), rows) in zip(taken, groups.items(), strict=True)
        ]
        self.texts = [text for texts in taken for text in texts]
        self._state = self.model.concatenate([output.state for output in outputs])
        return torch.cat([output.logits[:, -1] for output in outputs])

    def _read_last(self, texts: Sequence[int], state: State, part: Part) -> Output:
        tokens = torch.tensor([[self._last[text]] for text in texts], device=self.model.device)
        return self.model(tokens, state, self._positions, 1, part)


def draw_token(logits: Float[Tensor, " vocab"], sampling: Sampling, generator: torch.Generator) -> int:
    """Draw one token, on the CPU whatever device the logits are on. generator: the CPU's."""
    if sampling.temperature == 0:
        return int(logits.argmax())
    best, tokens = logits.cpu().double().topk(min(sampling.top_k, len(logits)))
    chances = ((best - best[0]) / sampling.temperature).softmax(0)  # the largest is 0: no temperature is too low
    return int(tokens[torch.multinomial(chances, 1, generator=generator)])

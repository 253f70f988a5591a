"""Contestants that continue a text by one token after the other: seconds per token."""

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64
from numpy import ndarray

from infty.commands.bench.timing import time_run
from infty.config.definition import CellKey, open_experiment
from infty.evaluation.continuation import Reading, Sampling, generate_tokens, read_text
from infty.experiment import resolve
from infty.model.config import Gpt2ModelConfig
from infty.model.gpt2 import END_OF_TEXT, build_gpt2
from infty.model.interface import SegmentModel

Seconds = Callable[[], dict[str, float]]
MOST_LIKELY = Sampling(temperature=0)
TOKENS = 16  # generated in a turn
WORDS = 267_735  # of WikiText-103
SMALL = {
    "dropout": 0.0,
    "hidden_size": 768,
    "num_layers": 12,
    "num_heads": 12,
    "num_positions": 1024,
    "segment_length": 512,
}
MEMORY = {"kind": "long_term", "num_basis": 512, "num_samples": 512}


def make_gpt2(begun: int) -> Seconds:
    """Make GPT-2 small, with random weights and a memory, go on in a segment of which `begun` tokens are there."""
    model = build_gpt2(Gpt2ModelConfig.model_validate({"kind": "gpt2", **SMALL, "long_range": MEMORY}), END_OF_TEXT + 1)
    return _make_ours(model.eval(), begun)


def make_hugging_face(begun: int) -> Seconds:
    """Make the same decoder without a memory go on after so many tokens, by `generate` with its cache."""
    model = build_gpt2(Gpt2ModelConfig.model_validate({"kind": "gpt2", **SMALL, "long_range": None}), END_OF_TEXT + 1)
    base, tokens = model.eval().base, torch.from_numpy(_draw(begun, END_OF_TEXT))[None]

    def generate(count: int) -> None:
        options = {"do_sample": False, "pad_token_id": END_OF_TEXT, "eos_token_id": None}
        base.generate(tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=count, **options)

    @torch.no_grad()
    def run() -> dict[str, float]:
        few, many = time_run(lambda: generate(1)), time_run(lambda: generate(1 + TOKENS))
        return {"seconds": (many - few) / TOKENS}

    return run


def make_decoder(begun: int, *, again: bool) -> Seconds:
    """Make our decoder of WikiText's published sizes, with all words of it, go on in a segment.

    again: the segment is read anew for every token, as by a model that keeps no keys and values.
    """
    key = CellKey("wikitext", "paper", "infty", "main", 0)
    model = resolve(open_experiment("wikitext", Path()), key).experiment.model.build(WORDS, seed=0).eval()
    if not again:
        return _make_ours(model, begun)
    state, text, positions = _read(model, 0).state, _draw(begun, WORDS).tolist(), model.positions()

    @torch.no_grad()
    def read_again() -> None:
        tokens = list(text)
        for _ in range(TOKENS):
            output = model(torch.tensor([tokens]), state, positions, 1)
            tokens.append(int(output.logits[0, -1].argmax()))

    return lambda: {"seconds": time_run(read_again) / TOKENS}


def _make_ours(model: SegmentModel, begun: int) -> Seconds:
    reading = _read(model, begun)

    def run() -> dict[str, float]:
        tokens = generate_tokens(model, reading, MOST_LIKELY)
        next(tokens)  # what reading makes of the memory alone is made once a segment
        return {"seconds": time_run(lambda: list(islice(tokens, TOKENS))) / TOKENS}

    return run


def _read(model: SegmentModel, begun: int) -> Reading:
    """Read as many segments as fill the memory once, and the beginning of another one."""
    length, near = model.config.segment_length, model.memory_layers[0].short_term_length
    whole = 1 + near // length
    text = _draw(whole * length + begun + 1, END_OF_TEXT)
    return read_text(model, [text[number * length :][: length + 1] for number in range(whole + 1)])


def _draw(count: int, below: int) -> Int64[ndarray, " n"]:
    return np.random.default_rng(0).integers(below, size=count)

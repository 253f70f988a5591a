"""Continuing a text: as if all of it were run anew for every token, drawn as asked, shown as it is made."""

import io
import json
import math
import os
import subprocess
import sys
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from infty.base.batch import Batch
from infty.base.errors import InftyError, MissingError, UsageError
from infty.commands.generate import (
    BROKEN,
    Writer,
    continue_lines,
    continue_text,
    decode_stream,
    open_writer,
    take_until_end,
)
from infty.commands.load import load_run, load_with_task
from infty.config.definition import CellKey, open_experiment
from infty.config.settings import load_settings
from infty.corpora.tokenizers import BpeTokenizer, Tokenizer, WordTokenizer
from infty.evaluation.continuation import Sampling, draw_token, generate_tokens, read_text
from infty.experiment import resolve
from infty.model.interface import SegmentModel, unroll
from infty.model.memory_layer import Part
from infty.model.tensors import state_tensors
from infty.runs.folder import RunFolder
from infty.tasks.corpus import CorpusTask
from infty.tasks.segmentation import cut_windows
from tests.conftest import Infty, clean_environment
from tests.model.test_decoder import MEMORIES, SEGMENT, VOCAB, make
from tests.reliability.runs import finish

CELL = ("wikitext", "--scale", "smoke")
RUN = "wikitext/smoke/infty@main/seed-0"
TEXT = "the cat sat on the mat .\n" * 3 + "naïve 漢字 😀"
BPE = BpeTokenizer.learn([[TEXT]], 270)
WORDS = WordTokenizer(["the", "cat", "<eos>", "sat", "<unk>"])


def as_windows(tokens: list[int]) -> list[np.ndarray]:
    """As a task gives them: full segments with the token that follows, then what is left."""
    last = (len(tokens) - 1) // SEGMENT * SEGMENT
    full = [tokens[i : i + SEGMENT + 1] for i in range(0, last, SEGMENT)]
    return [np.array(window) for window in [*full, tokens[last:]]]


def from_scratch(model: SegmentModel, tokens: list[int], count: int, sampling: Sampling) -> list[int]:
    """Two loops and no state kept: the whole text again for every token."""
    made, generator = [], torch.Generator().manual_seed(sampling.draw)
    for _ in range(count):
        state, whole, logits = model.initial_state(torch.zeros(1, dtype=torch.int64)), tokens + made, torch.empty(0)
        for i in range(0, len(whole), SEGMENT):
            output = model(torch.tensor([whole[i : i + SEGMENT]]), state)
            state, logits = output.state, output.logits[0, -1]
        made.append(draw_token(logits, sampling, generator))
    return made


@pytest.mark.parametrize(
    ("length", "sampling"),
    [
        (1, Sampling(temperature=0)),
        (4 * SEGMENT + 2, Sampling(temperature=0)),
        (4 * SEGMENT, Sampling(temperature=1.3, top_k=VOCAB, draw=3)),
    ],
)
@pytest.mark.parametrize("memory", MEMORIES)
def test_what_is_kept_changes_nothing(float64: None, memory: str, length: int, sampling: Sampling) -> None:
    model, tokens, count = make(memory, dropout=0.4), torch.randint(VOCAB, (length,)).tolist(), 3 * SEGMENT + 1
    made = list(islice(generate_tokens(model, read_text(model, as_windows(tokens)), sampling), count))
    assert model.training  # as it was; dropout was off all the same
    assert made == from_scratch(model.eval(), tokens, count, sampling)


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("left", [1, SEGMENT])
def test_a_long_prompt_fills_the_memory_as_unroll_does(float64: None, memory: str, left: int) -> None:
    model, length = make(memory), 4 * SEGMENT
    tokens = torch.randint(VOCAB, (length + left,))
    one, goes_on = torch.zeros(1, dtype=torch.int64), torch.tensor([False])
    segments = Batch(tokens[None, :length], tokens[None, 1 : length + 1], one, goes_on).segments(SEGMENT)
    with torch.no_grad():
        *_, (last, _) = unroll(model.eval(), segments)
        if left > 1:
            last = model(tokens[None, length:-1], last.state, None, 1, Part(ends=False))
    reading = read_text(model, as_windows(tokens.tolist()))
    found, wanted = state_tensors(reading.state), state_tensors(last.state)
    assert found.keys() == wanted.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, wanted[name], rtol=1e-12, atol=1e-12)
    assert (reading.last, reading.begun, reading.tokens) == (int(tokens[-1]), left - 1, length + left - 1)


@pytest.mark.parametrize("memory", MEMORIES)
def test_a_token_out_of_attention_s_reach_is_remembered_where_there_is_a_memory(float64: None, memory: str) -> None:
    model, tokens = make(memory, num_layers=1), torch.randint(VOCAB, (4 * SEGMENT + 2,)).tolist()
    said = []
    for first in (1, 2):
        reading = read_text(model, as_windows([first, *tokens[1:]]))
        with torch.no_grad():
            part = Part(begins=reading.begun == 0, ends=False)
            said.append(model.eval()(torch.tensor([[reading.last]]), reading.state, None, 1, part).logits)
    assert torch.equal(*said) == (memory in ("transformer-xl", "cache")), "the 13 vectors of a cache are newer"


@pytest.mark.parametrize(("temperature", "top_k"), [(0.7, 5), (1.0, 100), (2.5, 3)])
def test_tokens_come_as_often_as_the_softmax_says(temperature: float, top_k: int) -> None:
    logits, count = torch.randn(11), 20_000
    generator, sampling = torch.Generator().manual_seed(1), Sampling(temperature, top_k)
    came = Counter(draw_token(logits, sampling, generator) for _ in range(count))
    best = logits.argsort(descending=True)[:top_k].tolist()
    weights = np.exp(logits.double().numpy()[best] / temperature)
    assert set(came) <= set(best)
    assert chisquare([came[token] for token in best], weights / weights.sum() * count).pvalue > 0.01


@pytest.mark.parametrize("sampling", [Sampling(0), Sampling(0, 1), Sampling(1e-310, 5), Sampling(9.0, 1)])
def test_the_most_likely_token_is_taken_where_nothing_is_left_to_chance(sampling: Sampling) -> None:
    logits = 1000 * torch.randn(11)
    assert draw_token(logits, sampling, torch.Generator()) == logits.argmax()


def test_the_seed_of_the_draws_decides() -> None:
    model = make("infty")
    reading = read_text(model, as_windows([3, 1, 4]))

    def made(seed: int) -> list[int]:
        torch.rand(seed + 1)  # the global generator has no say
        return list(islice(generate_tokens(model, reading, Sampling(draw=seed)), 30))

    assert made(0) == made(0) != made(1)


@given(st.text(max_size=20), st.lists(st.integers(0, 269), max_size=30))
def test_pieces_are_the_text_of_all(text: str, random: list[int]) -> None:
    """Of a text, in which characters span tokens, and of any tokens, which may be no text at all."""
    whole = [int(token) for part in BPE.encode([text]) for token in part]
    pieces = list(decode_stream(whole, BPE, BPE.separator))
    assert "".join(pieces) == text
    assert BROKEN in text or not any(BROKEN in piece for piece in pieces)
    assert "".join(decode_stream(random, BPE, BPE.separator)) == BPE.decode(random)


def test_a_piece_comes_as_soon_as_it_is_whole() -> None:
    asked: list[int] = []
    (tokens,) = BPE.encode(["a😎b"])  # a, four bytes, b
    pieces = decode_stream((asked.append(token) or token for token in tokens.tolist()), BPE, BPE.separator)
    assert [(piece, len(asked)) for piece in pieces] == [("a", 1), ("😎", 5), ("b", 6)]


@given(st.integers(0, 4), st.lists(st.integers(0, 4), max_size=9))
def test_words_have_spaces_between(before: int, tokens: list[int]) -> None:
    text = WORDS.decode([before]) + "".join(decode_stream(tokens, WORDS, before))
    assert text == WORDS.decode([before, *tokens])
    assert len(list(decode_stream(tokens, WORDS, before))) == len(tokens)


@pytest.mark.parametrize(("tokenizer", "kept"), [(BPE, 2), (WORDS, 4)])
def test_an_end_of_text_ends_and_a_line_end_does_not(tokenizer: Tokenizer, kept: int) -> None:
    tokens = [3, 1, tokenizer.separator, 1]
    assert list(take_until_end(tokens, tokenizer)) == tokens[:kept]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One trained run of the smoke cell, for all that follows."""
    folder = tmp_path_factory.mktemp("trained")
    assert finish(folder, "train", *CELL).returncode == 0
    return folder


def places(folder: Path) -> dict[str, str]:
    return {"INFTY_RUNS": str(folder / "runs"), "INFTY_DATA": str(folder / "corpora")}


def open_trained(trained: Path, count: int, **sampling: Any) -> Writer:
    settings = load_settings(runs=trained / "runs", data=trained / "corpora", device="cpu")
    cell = CellKey("wikitext", "smoke", "infty", "main", 0)
    resolved = resolve(open_experiment("wikitext", settings.experiments), cell)
    return open_writer(resolved, settings, count, Sampling(**sampling))


def generated(trained: Path, prompt: str | Path, count: int = 20, **sampling: Any) -> dict[str, Any]:
    return continue_text(open_trained(trained, count, **sampling), prompt, lambda _: None)


@pytest.mark.parametrize("batch", [1, 2, 9])
def test_lines_of_a_file_are_continued_each_as_if_alone(trained: Path, tmp_path: Path, batch: int) -> None:
    lines = ["the river", "the cat sat on the mat . " * 9, "a", "and so the road was long and"]
    (tmp_path / "prompts.txt").write_text("\n\n".join(lines), encoding="utf-8")
    made = list(continue_lines(open_trained(trained, 40), tmp_path / "prompts.txt", batch))
    assert made == [generated(trained, line, 40) for line in lines]
    (tmp_path / "blank.txt").write_text(" \n\n")
    with pytest.raises(MissingError, match="has no line that is not blank"):
        next(continue_lines(open_trained(trained, 40), tmp_path / "blank.txt", batch))


def test_the_windows_of_a_text_are_its_stream(trained: Path) -> None:
    _, task = load_with_task(RunFolder(trained / "runs" / RUN), trained / "corpora")
    assert isinstance(task, CorpusTask)
    text = "the river was wide and the road was long .\n" * 9
    tokens = [task.tokens.tokenizer.separator, *np.concatenate(list(task.tokens.tokenizer.encode([text]))).tolist()]
    for size in (1, 7, (len(tokens) - 1) // 2, len(tokens) - 1, len(tokens), 10**6):
        cuts = list(cut_windows(task.tokens.tokenizer, [text[:100], text[100:]], size))
        assert all(len(cut) == size + 1 for cut in cuts[:-1])
        assert 1 <= len(cuts[-1]) <= size
        assert [*np.concatenate([cut[:size] for cut in cuts])] == tokens
        segments = list(task.cut_stream(io.StringIO(text), size))
        assert torch.cat([segment.tokens for segment in segments], 1)[0].tolist() == tokens[:-1]
        assert torch.cat([segment.targets for segment in segments], 1)[0].tolist() == tokens[1:]
        assert max(segment.tokens.shape[1] for segment in segments) <= size


def test_a_file_and_stdin_are_continued_like_a_prompt(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = trained / "corpora/generated/test.txt"
    text = file.read_text(encoding="utf-8")
    outcome = generated(trained, text)
    assert outcome["prompt_tokens"] > 100 * 16  # a hundred segments
    assert generated(trained, file) == outcome
    with io.TextIOWrapper(io.BytesIO(text.encode())) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert generated(trained, Path("-")) == outcome
    with io.TextIOWrapper(io.BytesIO(b"words \xff")) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        with pytest.raises(MissingError, match="stdin is no UTF-8 text"):
            generated(trained, Path("-"))
    monkeypatch.setattr(sys, "stdin", None)  # as `<&-` makes it
    with pytest.raises(MissingError, match="stdin can't be read: it is closed"):
        generated(trained, Path("-"))


def test_a_document_begins_where_there_is_no_prompt(trained: Path) -> None:
    run = load_run(trained / "runs" / RUN)
    tokenizer = run.tokenizer
    assert tokenizer is not None
    tokens = islice(
        generate_tokens(run.model, read_text(run.model, [np.array([tokenizer.separator])]), Sampling(draw=5)), 20
    )
    outcome = generated(trained, "", draw=5)
    assert outcome["text"] == tokenizer.decode(take_until_end(tokens, tokenizer))
    assert outcome["prompt_tokens"] == 0


def test_the_command_shows_what_json_holds(infty: Infty, trained: Path) -> None:
    words = ("generate", *CELL, "--prompt", "the river", "--tokens", "30", "--draw", "2")
    shown, told = infty(*words, **places(trained)), infty(*words, "--json", **places(trained))
    assert (shown.returncode, told.returncode, told.stderr) == (0, 0, ""), shown.stderr + told.stderr
    outcome = json.loads(told.stdout)
    assert shown.stdout == outcome["text"] + "\n"
    ended = outcome["generated_tokens"] < 30
    assert shown.stderr == (f"the text ended after {outcome['generated_tokens']} tokens\n" if ended else "")
    assert outcome.pop("text") == generated(trained, "the river", 30, draw=2)["text"]
    assert outcome == {
        "schema": 1,
        "run": RUN,
        "cell": {"experiment": "wikitext", "scale": "smoke", "model": "infty", "case": "main", "seed": 0},
        "step": outcome["step"],
        "settings": {"tokens": 30, "temperature": 0.8, "top_k": 40, "draw": 2},
        "prompt_tokens": outcome["prompt_tokens"],
        "generated_tokens": outcome["generated_tokens"],
    }


def test_a_reader_that_goes_away_has_enough(trained: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "infty", "generate", *CELL, "--tokens", "30"]
    environment = clean_environment(tmp_path, **places(trained))
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, env=environment, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("sort", "--scale", "smoke"), 2, "infty: sort has no text to continue: "),
        ((*CELL, "--model", "compressive"), 3, "infty: nothing trained yet in "),
        ((*CELL, "--prompt", "a", "--file", "b"), 2, "infty: --prompt and --file are two texts to go on from"),
        ((*CELL, "--file", "bytes.txt"), 3, "infty: bytes.txt is no UTF-8 text: "),
    ],
)
def test_what_can_not_be_continued_is_one_clear_line(
    infty: Infty, trained: Path, tmp_path: Path, words: tuple[str, ...], code: int, message: str
) -> None:
    (tmp_path / "bytes.txt").write_bytes(b"one \xff")
    done = infty("generate", *words, **places(trained))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1), done.stderr
    assert done.stderr.startswith(message)


@pytest.mark.parametrize(
    ("prompt", "temperature", "kind", "message"),
    [
        (Path("none.txt"), 1.0, MissingError, "none.txt can't be read: No such file or directory"),
        (b"a\xff".decode(errors="surrogateescape"), 1.0, MissingError, "the prompt is no UTF-8 text: byte 1 "),
        ("a", math.inf, UsageError, "--temperature inf: wanted a number"),
        ("a", math.nan, UsageError, "--temperature nan: wanted a number"),
    ],
)
def test_faults_are_of_the_kind_that_their_exit_code_tells(
    trained: Path, prompt: str | Path, temperature: float, kind: type[InftyError], message: str
) -> None:
    with pytest.raises(kind, match="^" + message):
        generated(trained, prompt, temperature=temperature)


def test_no_tokens_are_refused(infty: Infty) -> None:
    assert infty("generate", *CELL, "--tokens", "0").returncode == 2

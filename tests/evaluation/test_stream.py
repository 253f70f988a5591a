"""One long text: the same tokens, answer and figures as a sequence of the task, at constant memory."""

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from infty.base.batch import UNSCORED, Batch
from infty.base.errors import MissingError
from infty.evaluation.evaluate import LATE, evaluate, read_stream
from infty.memory.longterm import LongTermMemoryConfig
from infty.model.config import DecoderConfig
from infty.model.decoder import Decoder
from infty.tasks.sort import SortConfig, SortTask
from tests.conftest import Infty, clean_environment

VOCABULARY, SEGMENT = 7, 19
SMOKE = ("sort", "--scale", "smoke")


def task(length: int) -> SortTask:
    return SortTask(
        SortConfig(vocabulary=VOCABULARY, length=length, train_sequences=3, validation_sequences=3, test_sequences=3)
    )


def text_of(batch: Batch, length: int) -> str:
    return "\n".join(" ".join(map(str, line)) for line in np.array_split(batch.tokens[0, :length].numpy(), 11))


def decoder() -> Decoder:
    memory = LongTermMemoryConfig(
        hidden_size=22, num_heads=2, segment_length=SEGMENT, num_basis=14, num_samples=13, widths=(0.05, 0.2)
    )
    return Decoder(
        DecoderConfig(
            num_layers=2, num_heads=2, hidden_size=22, feed_forward_size=23, dropout=0.3, initial_std=0.3,
            segment_length=SEGMENT, short_term_length=SEGMENT, long_range=memory,
        ),
        VOCABULARY + 1,
    )  # fmt: skip


@pytest.mark.parametrize("length", [5, 12, SEGMENT, 10 * SEGMENT - 3, 60_001])
def test_a_stream_is_the_sequence_with_separator_and_answer(length: int) -> None:
    """60,001 symbols are more than one read of the file; 10 segments less 3 let the answer straddle two."""
    sort = task(length)
    batch = sort.make_batch("test", np.array([1]))
    segments = list(sort.cut_stream(io.StringIO(text_of(batch, length)), SEGMENT))
    assert all(segment.tokens.shape[1] == SEGMENT for segment in segments[:-1])
    assert torch.equal(torch.cat([segment.tokens for segment in segments], 1), batch.tokens)
    assert torch.equal(torch.cat([segment.targets for segment in segments], 1), batch.targets)


def test_symbols_that_never_came_are_last() -> None:
    *_, last = task(5).cut_stream(io.StringIO("3 1 1 3 6"), SEGMENT)
    assert last.targets[last.targets != UNSCORED].tolist() == [3, 1, 6, 0, 2, 4, 5]


def test_reading_a_stream_scores_as_evaluating_the_sequence() -> None:
    model, sort = decoder(), task(200)
    batch = sort.make_batch("test", np.array([2]))
    segments = sort.cut_stream(io.StringIO(text_of(batch, 200)), SEGMENT)
    totals, answers, pace = read_stream(model, segments, lambda: 0, choices=True)
    whole = evaluate(model, [batch], choices=True)
    assert totals.nats == pytest.approx(whole.nats, rel=1e-6)  # an evaluation reads several segments at once
    assert replace(totals, nats=whole.nats) == whole
    assert [wanted for wanted, _ in answers] == batch.targets[batch.targets != UNSCORED].tolist()
    assert sum(wanted == chosen for wanted, chosen in answers) == totals.correct
    assert (pace["tokens"], pace["segments"]) == (207, 11)
    assert pace["early_segment_seconds"] is None  # too short to tell
    assert model.training


def test_memory_is_asked_at_the_20th_segment_and_at_the_end() -> None:
    asked: list[int] = []
    length = (20 + LATE) * SEGMENT
    numbers = " ".join(map(str, torch.randint(VOCABULARY, (length,)).tolist()))

    def peak() -> int:
        asked.append(len(asked))
        return 1000 * len(asked)

    _, _, pace = read_stream(decoder(), task(5).cut_stream(io.StringIO(numbers), SEGMENT), peak, choices=True)
    assert len(asked) == 2
    assert pace["growth_bytes"] == 1000
    assert pace["late_to_early"] > 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the stream is empty"),
        (" \n\t ", "the stream is empty"),
        ("1 2 7", "word 3 of the stream is '7': wanted a symbol, 0 to 6"),
        ("\n 1  x", "word 2 of the stream is 'x'"),
        ("1 -1", "word 2 of the stream is '-1'"),
        ("1 ²", "word 2 of the stream is '²'"),
        ("1" * 300_000, "word 1 of the stream is '111111111111111111…'"),
        ("0 " * 50_000 + "9", "word 50001 of the stream is '9'"),
    ],
)
def test_a_text_that_holds_other_things_is_refused(text: str, message: str) -> None:
    with pytest.raises(MissingError, match="^" + message.replace("…", ".")):
        list(task(5).cut_stream(io.StringIO(text), SEGMENT))


def test_the_command_reads_a_file(infty: Infty, tmp_path: Path) -> None:
    infty("train", *SMOKE)
    (tmp_path / "symbols.txt").write_text(" ".join(map(str, torch.randint(5, (3001,)).tolist())))
    done = infty("eval", *SMOKE, "--stream", "symbols.txt", "--json")
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert outcome["pace"]["tokens"] == 3001 + 5
    assert sorted(outcome["answer"]) == [0, 1, 2, 3, 4]
    assert outcome["pace"]["growth_bytes"] < 20e6
    assert "time of a late segment: " in infty("eval", *SMOKE, "--stream", "symbols.txt").stdout
    command = [sys.executable, "-m", "infty", "eval", *SMOKE, "--stream", "-", "--json"]
    with (tmp_path / "symbols.txt").open("rb") as stdin:
        piped = subprocess.run(command, cwd=tmp_path, env=clean_environment(tmp_path), stdin=stdin, capture_output=True)
    assert piped.returncode == 0, piped.stderr
    assert json.loads(piped.stdout)["answer"] == outcome["answer"]
    assert json.loads(piped.stdout)["totals"] == outcome["totals"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--stream", "none.txt"), 3, "infty: none.txt can't be read: No such file or directory\n"),
        (("--stream", "bytes.txt"), 3, "infty: bytes.txt is no UTF-8 text"),
        (("--stream", "."), 3, "infty: . can't be read: Is a directory\n"),
        (("--stream", "-"), 3, "infty: the stream is empty"),
        (("--stream", "bytes.txt", "--batch", "2"), 2, "infty: --stream reads one text as one stream: --batch 2 has "),
    ],
)
def test_a_stream_that_can_not_be_read_is_one_clear_line(
    infty: Infty, tmp_path: Path, words: tuple[str, ...], code: int, message: str
) -> None:
    infty("train", *SMOKE)
    (tmp_path / "bytes.txt").write_bytes(b"1 2 \xff")
    done = infty("eval", *SMOKE, *words)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(message)

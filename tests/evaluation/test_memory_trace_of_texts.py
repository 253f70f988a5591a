"""What memories keep of a text: which document is read, whose phrases are shown, and what an evaluation writes."""

import json
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest

from infty.corpora.layouts import Source
from infty.corpora.store import write_corpus
from infty.evaluation.memory_trace import inspect_memory
from infty.model.config import DecoderConfig
from infty.model.decoder import Decoder
from infty.runs.schemas import MemoryTrace, Stream
from infty.tasks.corpus import CorpusTask
from tests.conftest import Infty
from tests.model.test_decoder import BASE, MEMORIES, SEGMENT
from tests.tasks.test_corpus import task as open_task

TAU = 0.75


def texts(folder: Path, documents: list[str], **changes: Any) -> CorpusTask:
    sources = {split: Source(zip(repeat(True), documents), 1) for split in ("train", "validation", "test")}
    write_corpus(folder, "tiny", sources, "a test", replace=False)
    own = {"tokenizer": {"kind": "word", "vocab_size": 400}, "protocol": "text-as-trained-v1", **changes}
    return open_task(folder, SEGMENT, **own)


def model(memory: str, task: CorpusTask) -> Decoder:
    return Decoder(DecoderConfig(**{**BASE, "long_range": MEMORIES[memory]}), task.vocab_size)


def words(first: int, count: int) -> str:
    return "".join(f"w{i}\u2028" if i % 10 == 9 else f"w{i} " for i in range(first, first + count))


@pytest.mark.parametrize("memory", ["infty", "infty-sticky"])
def test_phrases_are_the_text_s_own_and_share_the_room(tmp_path: Path, memory: str) -> None:
    task = texts(tmp_path, [words(0, 49), words(100, 57), words(200, 60)])
    found = inspect_memory(model(memory, task), task, "test", 1)
    assert found is not None
    assert found.stream == Stream(kind="document", index=1, segments=11, tokens=55)
    whole, room = words(100, 57).split(), found.room or []
    assert {phrase.token for phrase in room} == {0, 8, 16, 24, 32, 40}  # 9 updates: 45 vectors, one the separator's
    for phrase in room:
        assert phrase.text.split() == whole[phrase.token : min(phrase.token + 8, 44)]
        assert phrase.text.isprintable()
    attention = [phrase.attention for phrase in room]
    assert attention == sorted(attention, reverse=True)
    assert 0.8 < sum(phrase.room for phrase in room) < 1
    assert sum(attention) < 1
    by_age = [phrase.room for phrase in sorted(room, key=lambda phrase: phrase.token)]
    if memory == "infty":
        assert by_age[1:5] == sorted(by_age[1:5])
        assert sum(by_age) == pytest.approx(1 - TAU**8 / SEGMENT, rel=1e-5)  # all but the separator's


def test_a_document_is_read_no_further_than_a_memory_lives(tmp_path: Path) -> None:
    task = texts(tmp_path, [words(0, 49), words(100, 48)], memory_reset={"tokens": 31})
    found = inspect_memory(model("infty", task), task, "test", 1)
    assert found is not None
    assert found.stream == Stream(kind="document", index=0, segments=6, tokens=30)  # the longest: none is long


def test_an_evaluation_keeps_it_beside_and_its_error_as_a_metric(infty: Infty, tmp_path: Path) -> None:
    done = infty("train", "sort", "--scale", "smoke", "--case", "x8", "--json")
    folder = tmp_path / "runs/sort/smoke/infty@x8/seed-0/eval"
    file = folder / "sort-accuracy-v1-test-memory.json"
    kept = MemoryTrace.check(json.loads(file.read_text()), file)
    result = json.loads(done.stdout)
    assert (kept.protocol, kept.step) == ("sort-accuracy-v1", result["best_step"])
    assert result["metrics"]["test/regression_error"] == kept.regression_error_mean
    file.unlink()
    for more in (("--split", "validation"), ("--knock-out", "zero")):
        assert infty("eval", "sort", "--scale", "smoke", "--case", "x8", *more).returncode == 0
        assert not file.exists()

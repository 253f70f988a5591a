"""Facts in a text: where they stand, what is asked, and that all else is the corpus's own text."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infty.base.batch import UNSCORED
from infty.base.errors import MissingError, UsageError
from infty.config.definition import CellKey, open_experiment
from infty.corpora.store import write_corpus
from infty.corpora.synthetic import make_sources
from infty.corpora.tokenizers import Tokenizer
from infty.corpora.tokens import open_tokens
from infty.experiment import resolve
from infty.tasks.recall import RecallTask
from infty.tasks.recall_text import RecallTextConfig

SEGMENT = 32


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_corpus(folder, "generated", make_sources(), "made by infty", replace=False)
    return folder


def configure(**changes: Any) -> RecallTextConfig:
    key = CellKey("recall-text", "smoke", "delta", "graph4")
    config = resolve(open_experiment("recall-text", Path()), key).experiment.task
    assert isinstance(config, RecallTextConfig)
    return RecallTextConfig.model_validate({**config.model_dump(), "curriculum": (), **changes})


def open_both(config: RecallTextConfig, data: Path) -> tuple[RecallTask, Tokenizer]:
    task = config.open(data, SEGMENT)
    return task, open_tokens(data, config.corpus, config.tokenizer, config.portions).tokenizer


def test_facts_stand_in_a_text_at_their_distances_and_each_is_asked_for(data: Path) -> None:
    config = configure(distances=(0, 1, 3), question=" {key} : the {value}")
    task, tokenizer = open_both(config, data)
    text = open_tokens(data, config.corpus, config.tokenizer, config.portions).part(config.test).tokens
    (batch,) = task.evaluation_batches("test", 6)
    for row, targets in zip(batch.tokens.tolist(), batch.targets.tolist(), strict=True):
        facts, left = {}, list(row[: task.start])
        for place in range(task.start):
            for key in config.keys:
                for value in config.values:
                    [fact] = tokenizer.encode([f" the {key} of the {value} ."])
                    if row[place : place + len(fact)] == fact.tolist():
                        facts[key] = (place, value)
                        left[place : place + len(fact)] = [-1] * len(fact)
        segments = sorted(3 - place // SEGMENT for place, _ in facts.values())
        assert segments == [0, 1, 3]

        # The questions are those of the facts, and all that is scored are their answers.
        written = tokenizer.decode([*row[task.start :], targets[-1]])
        scored = [target for target in targets if target != UNSCORED]
        assert len(scored) == 3
        words = written.split()  # key : the value
        pairs = dict(zip(words[::4], words[3::4], strict=True))
        assert pairs == {key: value for key, (_, value) in facts.items()}
        assert tokenizer.decode(scored).split() == list(pairs.values())

        # All else is a passage of the corpus.
        known = np.array(left[: task.last])
        windows = np.lib.stride_tricks.sliding_window_view(np.array(text), len(known))
        assert ((windows == known) | (known == -1)).all(1).any()


def test_passages_and_facts_differ_by_sequence_and_split(data: Path) -> None:
    task, _ = open_both(configure(), data)
    rows = [tuple(row) for split in ("validation", "test") for batch in task.evaluation_batches(split, 6)
            for row in batch.tokens.tolist()]  # fmt: skip
    assert len(set(rows)) == 12
    assert task.digest is not None
    assert task.describe_data("test")["name"] == "facts in generated"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keys": ("bread", "farmer", "sailor")}, "task.keys: more than one token, to be left out: farmer, sailor"),
        ({"values": ("road", "farmer")}, "task.values: more than one token, to be left out: farmer"),
        ({"keys": ("bread", "bread")}, "task.keys: wanted words that are one token each, known, and no two the same"),
        ({"keys": ("farmer", "sailor")}, "task.keys: wanted words that are one token each, known, and no two the same"),
        (
            {"keys": ("b", "t"), "fact": " ({key} {value}", "distances": (1,)},
            "task.keys: some have another token in task.fact",
        ),
        ({"keys": ("bread", "bridge"), "distances": (1, 2, 3)}, "task.keys: 2 are fewer than the 3 pairs"),
        ({"pairs": 2}, "task.pairs: 4 pairs do not fit into a segment of 32; at most 1 at each distance do"),
        (
            {
                "fact": " it rained for most of the week and then it rained again , the {key} of the {value} .",
                "distances": (1,),
                "pairs": 2,
            },
            "task.pairs: 2 pairs do not fit into a segment of 32; at most 1 at each distance do",
        ),
        (
            {"tokenizer": {"kind": "word", "vocab_size": 300}, "keys": ("bread", "zebra", "bridge"), "distances": (1,)},
            "task.keys: wanted words that are one token each, known, and no two the same",
        ),
    ],
)
def test_words_that_are_not_what_is_wanted_are_refused(data: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as refused:
        configure(**changes).open(data, SEGMENT)
    assert message in str(refused.value)


@pytest.mark.parametrize("sentence", ["{key} is here", " {key} {key} {value}", "{value} has {key}"])
def test_a_sentence_without_a_key_and_a_value_is_refused(sentence: str) -> None:
    with pytest.raises(ValueError, match=r"wanted a text with \{key\} and \{value\} once each"):
        configure(fact=sentence)


def test_a_question_that_answers_before_it_asks_is_refused() -> None:
    with pytest.raises(ValueError, match=r"wanted \{key\} before \{value\}"):
        configure(question=" the {value} : the {key}")


def test_the_run_s_tokeniser_is_the_text_s(data: Path) -> None:
    task, tokenizer = open_both(configure(), data)
    assert task.tokenizer is not None
    assert task.tokenizer.decode([260, 361]) == tokenizer.decode([260, 361])
    assert task.vocab_size == tokenizer.vocab_size


def test_a_text_that_is_too_short_or_absent_is_told(data: Path) -> None:
    task, _ = open_both(configure(distances=(0, 300)), data)
    with pytest.raises(MissingError, match=r"test has [\d,]+ tokens here, and 9,6\d\d are wanted"):
        next(task.evaluation_batches("test", 1))
    with pytest.raises(MissingError, match="no corpus 'pg19'"):
        configure(corpus="pg19").open(data, SEGMENT)

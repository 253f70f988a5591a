"""Language modelling on a small text: who is asked what, what a score is of, and what hand and loop say of it."""

import math
import re
from collections import Counter
from itertools import pairwise, repeat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from infty.base.batch import UNSCORED, Totals
from infty.base.errors import UsageError
from infty.corpora.layouts import Source
from infty.corpora.store import write_corpus
from infty.corpora.tokens import open_tokens
from infty.evaluation.evaluate import evaluate
from infty.model.decoder import Decoder
from infty.model.interface import Output
from infty.model.memory_layer import WHOLE, Part
from infty.model.softmax import Softmax
from infty.tasks.corpus import CorpusConfig, CorpusTask
from infty.tasks.loss_breakdown import NEW, NO_WORD, break_down_losses, measure_distances
from infty.tasks.segmentation import TokenReset
from infty.training.config import TrainingConfig
from tests.model.test_decoder import MEMORIES, make

LENGTH = 5
DOCUMENTS = ["a b a\nc a b\n", "b b c\n", "c\na a a b c a b a c b a\n"]


def text(documents: list[str]) -> Source:
    return Source(zip(repeat(True), documents), 1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    sources = {"train": text(DOCUMENTS), "validation": text(DOCUMENTS[:1]), "test": text(DOCUMENTS)}
    write_corpus(tmp_path, "tiny", sources, "a test", replace=False)
    return tmp_path


def task(folder: Path, length: int = LENGTH, **changes: Any) -> CorpusTask:
    given = {
        "corpus": "tiny",
        "tokenizer": {"kind": "word", "vocab_size": 100},
        **{split: {"split": split} for split in ("train", "validation", "test")},
        "memory_reset": "document",
        "protocol": "text-documents-v1",
        "far": 4,
        **changes,
    }
    config = CorpusConfig.model_validate(given)
    return CorpusTask(config, open_tokens(folder, "tiny", config.tokenizer, config.portions), length)


def words_of(source: CorpusTask, tokens: Tensor) -> list[str]:
    return [source.tokens.tokenizer.decode([token]).replace("\n", "$") for token in tokens.tolist() if token >= 0]


def test_the_example_of_the_docstring(folder: Path) -> None:
    """Every token is a target once; its input is the one before it, and before a document's first the separator."""
    source = task(folder, length=7, protocol="text-stream-v1")
    batches = list(source.evaluation_batches("test", 1))
    inputs = [word for b in batches for word in words_of(source, b.tokens[b.targets != UNSCORED])]
    targets = [word for b in batches for word in words_of(source, b.targets[b.targets != UNSCORED])]
    tokens = [list(document.replace(" ", "").replace("\n", "$")) for document in DOCUMENTS]
    assert targets == [token for document in tokens for token in document]
    assert inputs == [token for document in tokens for token in ["$", *document[:-1]]]
    assert [bool(b.fresh[0]) for b in batches if b.fresh is not None] == [True] + [False] * (len(batches) - 1)


@pytest.mark.parametrize("batch", [1, 2, 3, 7])
@pytest.mark.parametrize("protocol", ["text-documents-v1", "text-stream-v1", "text-as-trained-v1"])
def test_evaluation_asks_for_every_token_once_at_its_place(folder: Path, batch: int, protocol: str) -> None:
    source = task(folder, protocol=protocol, memory_reset={"tokens": 6})
    whole = source.parts["test"].tokens
    seen = np.zeros(len(whole), dtype=int)
    batches = list(source.evaluation_batches("test", batch))
    assert len(batches) == source.count_evaluation_steps("test", batch)
    for b in batches:
        assert b.places is not None
        for row, place in enumerate(b.places.tolist()):
            for i in (b.targets[row] != UNSCORED).nonzero()[:, 0].tolist():
                assert b.targets[row, i] == whole[place + i]
                seen[place + i] += 1
    assert (seen == 1).all()


def test_training_reads_every_token_once_a_pass_in_contiguous_streams(folder: Path) -> None:
    source = task(folder)
    for batch in (1, 2, 3):
        seen, steps = np.zeros(len(source.parts["train"].tokens), dtype=int), 0
        last: list[int | None] = [None] * batch
        while not (seen >= 1).all():
            b = source.training_batch(steps, batch, seed=0)
            assert b.places is not None
            assert b.fresh is not None
            for row, place in enumerate(b.places.tolist()):
                count = int((b.targets[row] != UNSCORED).sum())
                seen[place : place + count] += 1
                if not b.fresh[row]:
                    assert last[row] == place
                last[row] = place + count
            steps += 1
            assert source.count_tokens_seen(steps, batch) == seen.sum()
        assert seen.max() <= 2  # a shorter row has begun again


@pytest.mark.parametrize("reset", ["never", "document", {"tokens": 6}])
def test_memory_is_reset_where_it_should_be(folder: Path, reset: Any) -> None:
    source = task(folder, memory_reset=reset)
    starts = source.parts["train"].starts
    wanted = {"never": {0}, "document": set(starts[:-1].tolist())}.get(str(reset), set(range(0, starts[-1], 6)))
    row = source._rows(1)[0]
    assert {int(s) for s, fresh in zip(row.start, row.fresh, strict=True) if fresh} == wanted
    assert isinstance(source.config.memory_reset, TokenReset) == isinstance(reset, dict)


def test_too_little_text_for_so_many_streams_is_said(folder: Path) -> None:
    with pytest.raises(UsageError, match="too few for 99 streams"):
        task(folder).training_batch(0, 99, 0)


class _Table(Decoder):
    """A model that looks at the last token only: row i holds the logits after token i."""

    def __init__(self, logits: Tensor) -> None:
        torch.nn.Module.__init__(self)
        self.table, self.content_bias = Softmax(logits.T), torch.nn.Parameter(torch.zeros(1))
        self.config, self.blocks = make("transformer-xl").config, []  # it keeps nothing

    def positions(self) -> tuple[()]:
        return ()

    def initial_state(self, seeds: Tensor) -> tuple[()]:
        return ()

    def reset(self, state: Any, rows: Tensor, seeds: Tensor) -> tuple[()]:
        return ()

    def forward(
        self, tokens: Tensor, state: Any, positions: Any = None, wanted: int | None = None, part: Part = WHOLE
    ) -> Output:
        last = F.one_hot(tokens, len(self.table.weight)).float()
        return Output(last[:, tokens.shape[1] - (wanted or 0) :], self.table, (), {})


def totals(source: CorpusTask, table: Tensor, split: str = "test", batch: int = 2) -> Totals:
    return evaluate(_Table(table), source.evaluation_batches(split, batch), choices=False)


def test_a_uniform_model_has_the_vocabulary_size_as_perplexity(folder: Path) -> None:
    source = task(folder)
    found = source.compute_metrics("test", totals(source, torch.zeros(source.vocab_size, source.vocab_size)))
    assert found["test/token_perplexity"] == pytest.approx(source.vocab_size, rel=1e-6)


def test_a_bigram_counted_by_hand_has_the_perplexity_computed_by_hand(folder: Path) -> None:
    """`a b a $ c a b $` from a separator `$`: counts of pairs, and the mean of their logarithms."""
    source = task(folder)
    tokens = ["$", "a", "b", "a", "$", "c", "a", "b", "$"]
    pairs = Counter(pairwise(tokens))
    firsts = Counter(tokens[:-1])
    nats = -sum(count * math.log(count / firsts[a]) for (a, _), count in pairs.items())
    # by hand: after $ (2) a, c; after a (3) b twice, $ once; after b (2) a, $; after c (1) a
    assert nats == pytest.approx(2 * math.log(2) + 2 * math.log(3 / 2) + math.log(3) + 2 * math.log(2))
    numbers = {word: i for i, word in enumerate(source.tokens.tokenizer.types)}  # pyright: ignore
    numbers["$"] = numbers["<eos>"]
    table = torch.full((source.vocab_size, source.vocab_size), -1e9)
    for (a, b), count in pairs.items():
        table[numbers[a], numbers[b]] = math.log(count / firsts[a])
    found = source.compute_metrics("validation", totals(source, table, "validation"))
    assert found["validation/token_perplexity"] == pytest.approx(math.exp(nats / 8), rel=1e-6)
    assert found["validation/word_perplexity"] == pytest.approx(math.exp(nats / 6), rel=1e-6)  # six words
    assert found["validation/bits_per_byte"] == pytest.approx(nats / math.log(2) / len(DOCUMENTS[0]), rel=1e-6)


@pytest.mark.parametrize("reset", ["never", "document", {"tokens": 6}, {"tokens": 6, "documents": True}])
def test_a_block_s_first_token_is_told_but_not_scored(folder: Path, reset: Any) -> None:
    """Against a plain loop: the text with a separator before it (before each document), in blocks, as rows of a table.

    Blocks `$abc defg`: b, c and e, f, g are scored as in the paper; d, the first of its block, counts for words only.
    """
    source = task(folder, memory_reset=reset).use_protocol("gpt2-blocks-v1")
    table = torch.randn(source.vocab_size, source.vocab_size)
    part, separator, length = source.parts["test"], source.tokens.tokenizer.separator, source.segment_length
    starts, end, scored, aside = part.starts.tolist(), int(part.starts[-1]), [], []
    whole_documents = reset == "document" or (isinstance(reset, dict) and "documents" in reset)
    edges = starts if whole_documents else [0, end]
    if isinstance(reset, dict):  # a wipe loses the memory, never the token before
        edges = [place for low, high in pairwise(edges) for place in range(low, high, 6)] + [end]
    for low, high in pairwise(edges):
        for place in range(low, high):
            last = separator if place in starts else part.tokens[place - 1]  # a document's first follows a separator
            nats = -table[last].log_softmax(0)[part.tokens[place]].item()
            (scored if (place - low + 1) % length else aside).append(nats)
    assert aside
    for batch in (1, 3):
        found = totals(source, table, batch=batch)
        assert (found.scored, found.aside) == (len(scored), len(aside))
        assert found.nats == pytest.approx(sum(scored), rel=1e-5)
        assert found.aside_nats == pytest.approx(sum(aside), rel=1e-5)
    m, sizes, whole = (
        source.compute_metrics("test", found),
        source.count_words_and_bytes("test"),
        sum(scored) + sum(aside),
    )
    assert m["test/token_perplexity"] == pytest.approx(math.exp(sum(scored) / len(scored)), rel=1e-5)
    assert m["test/word_perplexity"] == pytest.approx(math.exp(whole / sizes["words"]), rel=1e-5)
    assert m["test/bits_per_byte"] == pytest.approx(whole / math.log(2) / sizes["bytes"], rel=1e-5)


def test_an_epoch_reads_everything_once(folder: Path) -> None:
    source = task(folder)
    for batch in (1, 2, 3):
        steps = source.count_steps_per_epoch(batch)
        seen = np.zeros(len(source.parts["train"].tokens), dtype=int)
        for step in range(steps):
            b = source.training_batch(step, batch, 0)
            assert b.places is not None
            for row, place in enumerate(b.places.tolist()):
                seen[place : place + int((b.targets[row] != UNSCORED).sum())] += 1
        assert seen.min() == 1


def test_a_step_may_read_several_segments_of_each_stream(folder: Path) -> None:
    """With `training.gradient_segments`: the same batches, so many a step; an epoch has fewer steps."""
    source = task(folder)
    config = TrainingConfig(epochs=2, batch_size=2, learning_rate=1.0, evaluate_every=1, gradient_segments=3)
    steps, batches = config.count_steps(source).total_steps, 2 * source.count_steps_per_epoch(2)
    assert 3 * (steps - 1) < batches <= 3 * steps
    for step in range(steps):
        for number, batch in enumerate(source.training_batches(step, 2, 7, segments=3)):
            one = source.training_batch(3 * step + number, 2, 7)
            assert all(
                torch.equal(vars(batch)[name], tensor) for name, tensor in vars(one).items() if tensor is not None
            )


def test_one_total_has_three_views(folder: Path) -> None:
    source = task(folder, tokenizer={"kind": "bpe", "vocab_size": 300})
    found = totals(source, torch.randn(source.vocab_size, source.vocab_size))
    m = {name: value or 0.0 for name, value in source.compute_metrics("test", found).items()}
    sizes = source.count_words_and_bytes("test")
    assert sizes == {"words": sum(len(d.split()) for d in DOCUMENTS), "bytes": sum(map(len, DOCUMENTS))}
    assert math.log(m["test/word_perplexity"]) * sizes["words"] == pytest.approx(found.nats)
    assert math.log(m["test/token_perplexity"]) * found.scored == pytest.approx(found.nats)
    assert m["test/bits_per_byte"] * math.log(2) * sizes["bytes"] == pytest.approx(found.nats)


@pytest.mark.parametrize("memory", MEMORIES)
def test_a_batch_of_any_size_gives_the_same_nats(folder: Path, memory: str) -> None:
    """Documents of odd lengths, through the real model, side by side and alone."""
    source, model = task(folder), make(memory)
    alone = np.zeros(len(source.parts["test"].tokens), dtype=np.float32)
    first = evaluate(model, source.evaluation_batches("test", 1), choices=False, record=alone)
    for size in (2, 7):
        losses = np.zeros_like(alone)
        found = evaluate(model, source.evaluation_batches("test", size), choices=False, record=losses)
        assert found.nats == pytest.approx(first.nats, rel=1e-6)
        np.testing.assert_allclose(losses, alone, rtol=1e-4)
    assert alone.sum() == pytest.approx(first.nats, rel=1e-5)


def test_distances_equal_a_double_loop() -> None:
    random = np.random.default_rng(0)
    text_of = " ".join(random.choice(["the", "cat", "a", "dog", "sat"], 60).tolist()) + " ."
    tokens, lengths, pieces = [], [], {}
    for word in [text_of[0:0], *text_of.split(" ")]:
        for piece in ([" " + word[:2], word[2:]] if tokens else [word[:2], word[2:]]) if word else []:
            if piece:
                tokens.append(pieces.setdefault(piece, len(pieces)))
    lengths = np.array([len(piece) for piece in pieces])
    assert "".join(list(pieces)[t] for t in tokens) == text_of
    found = measure_distances(np.array(tokens), text_of.encode(), lengths)
    words = text_of.split()
    first_token, place = [], 0
    for word in words:
        first_token.append(place)
        place += 1 + (len(word) > 2)
    for i, word in enumerate(words):
        earlier = [j for j in range(i) if words[j] == word]
        wanted = first_token[i] - first_token[earlier[-1]] if earlier else NEW
        stop = first_token[i + 1] if i + 1 < len(words) else len(tokens)
        assert found[first_token[i] : stop].tolist() == [wanted] * (stop - first_token[i])


def test_the_example_of_recurrence_and_tokens_without_a_word() -> None:
    words = ["the", "cat", "sat", ".", "the", "dog", "saw", "the", "cat"]
    numbers = {word: i for i, word in enumerate(dict.fromkeys(words))}
    tokens = np.array([numbers[word] for word in words])
    assert measure_distances(tokens, b"", None, [numbers["."]]).tolist() == [0, 0, 0, NO_WORD, 4, 0, 0, 3, 7]
    blank = measure_distances(np.array([0, 1, 0]), b"a \n a", np.array([1, 3]))
    assert blank.tolist() == [NEW, NO_WORD, 2]


def test_details_add_up_to_the_totals(folder: Path) -> None:
    source = task(folder)
    losses = np.random.default_rng(0).random(len(source.parts["test"].tokens), dtype=np.float32)
    starts, away = source.parts["test"].starts, source.measure_distances("test")
    found = break_down_losses(losses, starts, away, far=4)
    whole = losses.astype(np.float64).sum()
    for pieces in ("chunks", "documents", "by_position"):
        assert sum(found[pieces]["nats"]) == pytest.approx(whole, abs=1e-3)
        assert sum(found[pieces]["tokens"]) == len(losses)
    by = found["by_distance"]
    assert sum(by["nats"]) + by["new_word"]["nats"] + by["no_word"]["nats"] == pytest.approx(whole, abs=1e-3)
    assert found["far"]["tokens"] == sum(1 for d in away if d > 4)
    position = np.concatenate([np.arange(n) for n in np.diff(starts)]) + 1
    for low, nats, tokens in zip(*(found["by_position"][key] for key in ("from", "nats", "tokens")), strict=True):
        inside = [loss for p, loss in zip(position, losses, strict=True) if low <= p < 2 * low]
        assert (len(inside), pytest.approx(sum(inside), abs=1e-3)) == (tokens, nats)
    assert found["documents"]["tokens"] == np.diff(starts).tolist()


def test_a_protocol_for_a_whole_corpus_is_not_lent_to_a_part(folder: Path) -> None:
    for name in ("wikitext103-word-v1", "pg19-word-v1"):
        why = task(folder).use_protocol(name).explain_unfit("test") or ""
        assert re.match(f"{name} is for the whole test split of .*use --protocol text-documents-v1", why)
    assert task(folder).explain_unfit("test") is None


def test_a_portion_is_named_a_subset_only_where_the_whole_is_known(folder: Path) -> None:
    assert task(folder).describe_data("test")["title"] == "tiny"
    assert task(folder, test={"split": "test", "first": 1}).describe_data("test")["documents"] == 2
    assert task(folder, test={"split": "test"}).describe_data("test")["documents"] == 3

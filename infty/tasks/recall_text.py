"""Recall facts that are hidden in the text of a corpus, and asked for at its end, in the manner of BABILong.

Between sentences of real text stand facts of the user's words, in the segments that `recall` has its pairs in; the last
segment asks for each (Kuratov et al. 2024, arXiv 2406.10149):

    … the wind had risen The boy is in the wood. and with it the sea … Where is the boy? In the wood
                                                                                                ^ scored
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Int64
from numpy import ndarray
from pydantic import Field, field_validator

from infty.base.errors import MissingError, UsageError
from infty.corpora.tokenizers import Tokenizer
from infty.corpora.tokens import TokenPart, TokenSet, open_tokens
from infty.tasks.generated import scale
from infty.tasks.kept import Rows
from infty.tasks.recall import Language, PairsConfig, Random, RecallTask, Sentence, find_misfits
from infty.tasks.task import Source
from infty.tasks.text import TextConfig

Tokens = Int64[ndarray, "..."]


class RecallTextConfig(PairsConfig, TextConfig):
    """The settings of facts in a text: the text, and the words and sentences of facts and questions."""

    kind: Literal["recall-text"] = Field(default="recall-text", description="facts recalled from a text, by distance")
    keys: tuple[str, ...] = Field(strict=False, min_length=2, description="words asked about, each one token")
    values: tuple[str, ...] = Field(strict=False, min_length=2, description="words that answer, each one token")
    fact: str = Field(default=" The {key} is in the {value}.", description="a fact: text with {key} and {value}")
    question: str = Field(default=" Where is the {key}? In the {value}", description="a question, and its answer")

    @field_validator("question")
    @classmethod
    def _asks_first(cls, sentence: str) -> str:
        if sentence.find("{key}") > sentence.find("{value}"):
            raise ValueError("wanted {key} before {value}: what is asked for stands before the answer")
        return sentence

    @field_validator("fact", "question")
    @classmethod
    def _has_both(cls, sentence: str) -> str:
        if sentence.count("{key}") != 1 or sentence.count("{value}") != 1 or sentence.startswith("{value}"):
            raise ValueError("wanted a text with {key} and {value} once each, and something before {value}")
        return sentence

    def open(
        self, data: Path, segment_length: int, learnt_from: Source | None = None, *, make: bool = True
    ) -> RecallTask:
        """Open the tokenised text, and find the words' tokens. UsageError if they are not what is wanted of them."""
        tokens = open_tokens(data, self.corpus, self.tokenizer, self.portions, learnt_from=learnt_from, make=make)
        language = _make_language(self, tokens)
        if faults := find_misfits(self, language, segment_length):
            raise UsageError("; ".join(f"{name}: {why}" for name, why in faults))
        return RecallTask(self, language, segment_length)


def _make_language(config: RecallTextConfig, tokens: TokenSet) -> Language:
    """Make the language of a tokenised text."""
    facts, questions = (_read_sentence(tokens.tokenizer, config, text) for text in (config.fact, config.question))
    for name, ours, theirs in zip(("keys", "values"), facts[1:], questions[1:], strict=True):
        if not np.array_equal(ours, theirs):
            why = "some have another token in task.fact than in task.question"
            raise UsageError(f"task.{name}: {why}: let the same stand before and after them")
    parts = {split: tokens.part(portion) for split, portion in config.portions.items()}
    return Language(
        name=f"facts in {config.corpus}",
        vocab_size=tokens.tokenizer.vocab_size,
        keys=facts[1],
        values=facts[2],
        fact=facts[0],
        question=questions[0],
        fill=partial(_cut_passages, parts),
        draws=1,
        digest=tokens.digest,
        tokenizer=tokens.tokenizer,
    )


def _read_sentence(tokenizer: Tokenizer, config: RecallTextConfig, text: str) -> tuple[Sentence, Tokens, Tokens]:
    """Find the tokens of a sentence, and of the keys and values that stand in it. UsageError if one has several."""

    def find(name: str, words: Sequence[str]) -> tuple[Tokens, int, Tokens]:
        """Find the tokens of the sentence, the place at which they differ by word, and the words' tokens there."""
        texts = [text.replace(f"{{{name}}}", word) for word in words]
        texts = [one.replace("{key}", config.keys[0]).replace("{value}", config.values[0]) for one in texts]
        written = [np.concatenate([*tokenizer.encode([one])]) for one in texts]
        shortest = min(map(len, written))
        if long := [word for word, found in zip(words, written, strict=True) if len(found) > shortest]:
            raise UsageError(f"task.{name}s: more than one token, to be left out: {', '.join(long)}")
        places = np.flatnonzero((np.stack(written) != written[0]).any(0))
        tokens = np.stack(written)[:, places[:1]].ravel()
        if len(places) != 1 or len({*tokens.tolist()} - {*tokenizer.no_words}) < len(words):
            raise UsageError(f"task.{name}s: wanted words that are one token each, known, and no two the same")
        return written[0], int(places[0]), tokens

    (whole, key, keys), (_, value, values) = find("key", config.keys), find("value", config.values)
    return Sentence(tuple(whole.tolist()), key, value), keys, values


def _cut_passages(parts: Mapping[str, TokenPart], split: str, random: Random, length: int) -> Rows:
    """Cut a passage out of a portion for each random number. MissingError if the portion is shorter."""
    text = parts[split].tokens
    if len(text) < length:
        raise MissingError(f"{split} has {len(text):,} tokens here, and {length:,} are wanted: ask for more documents")
    first = scale(random >> np.uint64(32), len(text) - length + 1)
    return text[first + np.arange(length)].astype(np.int64)

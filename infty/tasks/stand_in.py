"""Random tokens in place of a text that is not here (section 4.2): a model does the same work for any tokens."""

from collections.abc import Iterator

import numpy as np
import torch

from infty.base.batch import Batch
from infty.base.errors import MissingError
from infty.corpora.registry import KNOWN
from infty.corpora.tokenizers import TokenizerConfig
from infty.corpora.tokens import Portion

TOKENS_A_WORD = 1.3  # of a byte-level BPE, about: GPT-2's has 1.15 on WikiText, 1.5 on books with their line ends


class RandomTokens:
    """Tokens to measure the cost of training on. why: the text is not here. tokens: about how many it has, if known."""

    continues, has_answers = True, False

    def __init__(self, vocab_size: int, segment_length: int, why: str, tokens: float | None = None) -> None:
        self.vocab_size, self.segment_length, self.why, self.tokens = vocab_size, segment_length, why, tokens

    def training_batch(self, step: int, batch_size: int, seed: int, rows: range | None = None) -> Batch:
        """Draw tokens in the proportions of a text: the n-th most frequent 1/n times as often (Zipf)."""
        own = range(batch_size) if rows is None else rows
        random = [np.random.Generator(np.random.Philox(key=[step, row])).random(self.segment_length + 1) for row in own]
        tokens = torch.from_numpy(np.exp(np.stack(random) * np.log(self.vocab_size)).astype(np.int64) - 1)
        return Batch(tokens[:, :-1], tokens[:, 1:], torch.tensor(own), torch.full((len(own),), step == 0))

    def evaluation_batches(self, split: str, batch_size: int) -> Iterator[Batch]:
        """Hand out nothing: a text that is not here is not validated."""
        return iter(())

    def count_steps_per_epoch(self, batch_size: int) -> int:
        """Estimate the steps in which the text is read through. MissingError if nobody knows its length."""
        if self.tokens is None:
            raise MissingError(f"how long an epoch takes is known once the text is here: {self.why}")
        return -int(-self.tokens // (batch_size * self.segment_length))

    def count_tokens_seen(self, steps: int, batch_size: int) -> int:
        """Count the tokens of the first `steps` batches, in which every segment is full."""
        return steps * batch_size * self.segment_length

    def count_tokens_per_epoch(self) -> int | None:
        """Return None: the tokens of one pass are counted once the text is here."""
        return None


def estimate_tokens(corpus: str, part: Portion, tokenizer: TokenizerConfig) -> float | None:
    """Estimate the tokens in a part of a corpus from its published words and documents; None if they are not known."""
    known = KNOWN.get(corpus)
    words = known.words.get(part.split) if known else None
    if known is None or words is None or (part.last is not None and part.split not in known.documents):
        return None
    share = 1.0 if part.last is None else (part.last - part.first) / known.documents[part.split]
    return words * share * (1.0 if tokenizer.kind == "word" else TOKENS_A_WORD)

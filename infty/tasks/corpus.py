"""Language modelling (section 4.2): streams of a corpus's tokens, each to be told from all before it.

A target is a token of the text, its input the token before it; before a document's first token stands a separator,
which is context only. So every token is scored once, and scores add up to those of the text (| begins a document):

    tokens    s a b c s d e       s: the separator
    targets   a b c d|e f         wanted: a b c | d e f
"""

import math
from collections.abc import Iterable, Iterator
from copy import copy
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Int64
from numpy import ndarray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from infty.base.batch import ALL, UNSCORED, Batch, Share, Totals
from infty.base.errors import MissingError, UsageError
from infty.corpora.registry import KNOWN, Known
from infty.corpora.text_pieces import PIECE, CountedText, Text
from infty.corpora.tokenizers import Tokenizer, TokenizerConfig, WordTokenizer
from infty.corpora.tokens import Portion, TokenPart, TokenSet
from infty.tasks.protocols import TEXT_PROTOCOLS, EvaluationProtocol
from infty.tasks.segmentation import Spans, cut, even_rows, packed_rows, parts_of
from infty.tasks.word_distances import distances

NAMES = "^[a-z0-9][a-z0-9_.-]*$"  # of corpora
LARGEST = 700.0  # exponent of a perplexity that a float still holds


class TokenReset(BaseModel):
    """Memory is emptied every so many tokens (the released GPT-2 code: 2,048)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    tokens: int = Field(gt=0, description="tokens between two resets")
    documents: bool = Field(
        default=False,
        exclude_if=lambda on: not on,
        description="where a document begins as well, and counted from there",
    )


class CorpusConfig(BaseModel):
    """Which text is learnt, in which tokens, and what is forgotten when."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: Literal["corpus"] = Field(default="corpus", description="language modelling (section 4.2)")
    corpus: str = Field(pattern=NAMES, description="name of a corpus that `infty data list` shows")
    tokenizer: TokenizerConfig = Field(description="what makes tokens of the text")
    train: Portion = Field(description="documents to train on")
    validation: Portion = Field(description="documents to validate on")
    test: Portion = Field(description="documents to test on")
    memory_reset: Literal["never", "document"] | TokenReset = Field(
        description="where training empties the memory: never (section 4.2), document, or every {tokens: n}"
    )
    protocol: str = Field(description="how it is evaluated: one of infty/tasks/protocols.py")
    far: int = Field(gt=0, description="a word that last came more tokens ago counts as far-seen")

    @property
    def portions(self) -> dict[str, Portion]:
        """The three parts by split."""
        return {"train": self.train, "validation": self.validation, "test": self.test}


class CorpusTask:
    """A corpus in tokens, for a model that reads `segment_length` of them at a time."""

    continues = True
    has_answers = False

    def __init__(self, config: CorpusConfig, tokens: TokenSet, segment_length: int) -> None:
        self.config, self.tokens, self.segment_length = config, tokens, segment_length
        self.vocab_size = tokens.tokenizer.vocab_size
        self.protocol = TEXT_PROTOCOLS[config.protocol]
        self.parts = {split: tokens.part(portion) for split, portion in config.portions.items()}
        tokens.corpus.check(f"{config.test.split}.txt")  # read again for `distances`: now or never
        self._rows = lru_cache(maxsize=2)(self._make_rows)

    def under(self, protocol: EvaluationProtocol) -> "CorpusTask":
        """This task, evaluated under another protocol."""
        other = copy(self)
        other.config = self.config.model_copy(update={"protocol": protocol.name})
        other.protocol = protocol
        return other

    def training_batch(self, step: int, batch_size: int, seed: int, rows: range | None = None) -> Batch:
        """The next segment of each of `batch_size` contiguous streams; a stream that is read through begins again."""
        own = range(batch_size) if rows is None else rows
        streams = [self._rows(batch_size)[row] for row in own]
        names = seed * 2**31 + step * batch_size + np.array(own)
        return self._batch("train", [(stream, step % len(stream)) for stream in streams], names)

    def steps_an_epoch(self, batch_size: int) -> int:
        """Steps until the longest of the streams has been read through; shorter ones begin again meanwhile."""
        return max(map(len, self._rows(batch_size)))

    def tokens_seen(self, steps: int, batch_size: int) -> int:
        """Targets of the first `steps` training batches."""
        seen = 0
        for row in self._rows(batch_size):
            sizes = row.stop - row.start
            seen += int(steps // len(row) * sizes.sum() + sizes[: steps % len(row)].sum())
        return seen

    def evaluation_batches(self, split: str, batch_size: int, share: Share = ALL) -> Iterator[Batch]:
        """Every token of a split once; what shares no memory is read side by side, so results do not depend on how."""
        rows = self._evaluation_rows(split, batch_size, share)
        for step in range(max(map(len, rows), default=0)):
            names = np.array([row.start[min(step, len(row) - 1)] for row in rows])
            batch = self._batch(split, [(row, step) for row in rows], names)
            yield replace(batch, aside=_block_starts(batch)) if self.protocol.by_blocks else batch

    @property
    def one_stream(self) -> bool:
        """Whether a split is evaluated as one stream from beginning to end."""
        return (self.protocol.memory_reset or self.config.memory_reset) == "never"

    def evaluation_steps(self, split: str, batch_size: int, share: Share = ALL) -> int:
        """How many batches `evaluation_batches` gives."""
        return max(map(len, self._evaluation_rows(split, batch_size, share)), default=0)

    def pairs(self, split: str, batch_size: int, share: Share = ALL) -> Iterator[Batch]:
        """Each document, and in a second row, unscored, the one after it: for reading another's memory.

        Two rows at a time, whatever the batch size. Of the other whole segments are read, again from its beginning
        where it is shorter.
        """
        rows = [cut(edge[None], self.segment_length) for edge in self._memories(split, "document")]
        for place in share.places(len(rows)):
            own, other = rows[place], rows[(place + 1) % len(rows)]
            whole = max(1, int((other.stop - other.start == self.segment_length).sum()))
            for step in range(len(own)):
                names = np.array([own.start[0], other.start[0]])
                batch = self._batch(split, [(own, step), (other, step % whole)], names)
                batch.targets[1] = UNSCORED
                yield replace(batch, fresh=torch.full((2,), step == 0))

    def metrics(self, split: str, totals: Totals) -> dict[str, float]:
        """Loss in nats a token; perplexity a token and a word; bits a byte: three views of one total."""
        return text_figures(split, totals, self.sizes(split))

    def stream(self, file: Text, segment_length: int) -> Iterator[Batch]:
        """One text of any length as one stream, in segments, every token scored. MissingError where it is empty."""
        one, goes_on = torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.bool)
        for window in windows(self.tokens.tokenizer, iter(lambda: file.read(PIECE), ""), segment_length):
            if len(window) > 1:
                tokens = torch.from_numpy(window)[None]
                yield Batch(tokens[:, :-1], tokens[:, 1:], one, goes_on)

    def stream_metrics(self, text: CountedText, totals: Totals) -> dict[str, float]:
        """What `metrics` gives, for a text that was read as a stream. MissingError where it held no word."""
        if not text.words:
            raise MissingError("the stream holds no word: wanted a text")
        ends = text.lines if self.tokens.corpus.counts_line_ends else 0
        return text_figures("stream", totals, {"words": text.words + ends, "bytes": text.bytes})

    def sizes(self, split: str) -> dict[str, int]:
        """How many words and bytes the figures of a split are a share of."""
        part = self.parts[split]
        words = KNOWN[self.protocol.whole].words[split] if self.protocol.whole else part.words
        return {"words": words, "bytes": part.bytes}

    def data(self, split: str) -> dict[str, Any]:
        """Which text a result is of."""
        corpus, portion = self.tokens.corpus, self.config.portions[split]
        known, documents = corpus.known, len(self.parts[split].documents)
        whole = known is not None and portion.split == split and self._is_whole(known, split)
        kind = known.title if known else corpus.name
        return {
            "name": corpus.name,
            "title": kind if whole or not (known and known.words) else f"{kind}, subset",
            "split": portion.split,
            "documents": documents,
            "sha256": corpus.splits[portion.split]["sha256"],
            "tokens_sha256": self.parts[split].sha256,
            "tokenizer": {**self.config.tokenizer.model_dump(), "vocab_size": self.vocab_size},
        }

    def refuse_misnamed(self, split: str) -> None:
        """UsageError where the protocol is for the whole of a corpus or for other tokens, and this is not that."""
        whole, wanted, block = self.protocol.whole, self.protocol.tokenizer, self.protocol.block
        kind, portion = self.config.tokenizer.kind, self.config.portions[split]
        if not self.protocol.has_blocks_of(self.segment_length, kind):
            raise UsageError(
                f"{self.protocol.name} is for blocks of {block} {wanted} tokens; these are of {self.segment_length} "
                f"{kind} tokens: use --protocol gpt2-blocks-v1"
            )
        if whole is None:
            return
        named = self.config.corpus == whole and portion.split == split and wanted in (None, kind)
        if not (named and self._is_whole(KNOWN[whole], split)):
            raise UsageError(
                f"{self.protocol.name} is for the whole {split} split of {KNOWN[whole].title}"
                f"{f' in {wanted} tokens' if wanted else ''}; this is {len(self.parts[split].documents)} documents of "
                f"{self.config.corpus} {portion.split} in {kind} tokens: use --protocol text-documents-v1 "
                "or text-stream-v1"
            )

    def _is_whole(self, known: Known, split: str) -> bool:
        """Whether a portion holds as many documents and words as the whole split is known to have.

        Words within 1 %: PG-19's published counts are not of white space alone.
        """
        part = self.parts[split]
        documents, words = known.documents.get(split, len(part.documents)), known.words.get(split, 0)
        return len(part.documents) == documents and abs(part.words - words) <= 0.01 * words

    def distances(self, split: str) -> Int64[ndarray, " tokens"]:
        """How long ago each token's word last came in its document (see recurrence)."""
        part, tokenizer = self.parts[split], self.tokens.tokenizer
        ignored = (tokenizer.separator, tokenizer.unknown) if isinstance(tokenizer, WordTokenizer) else ()
        lengths, found = tokenizer.lengths(), []
        for i, document in enumerate(part.documents):
            text = "".join(self.tokens.corpus.text(document, self.config.portions[split].split)).encode()
            tokens = part.tokens[part.starts[i] : part.starts[i + 1]].astype(np.int64)
            found.append(distances(tokens, text, lengths, ignored))
        return np.concatenate(found)

    def _make_rows(self, batch_size: int) -> list[Spans]:
        part = self.parts["train"]
        if len(part.tokens) < batch_size:
            raise UsageError(f"{len(part.tokens)} tokens to train on are too few for {batch_size} streams")
        return even_rows(
            len(part.tokens), batch_size, self._resets(part, self.config.memory_reset), self.segment_length
        )

    def _evaluation_rows(self, split: str, batch_size: int, share: Share) -> list[Spans]:
        """One process's rows, of as many as all processes read side by side."""
        parts = self._memories(split, self.protocol.memory_reset)
        rows = packed_rows(parts, batch_size * share.of, self.segment_length)
        return [rows[place] for place in share.places(len(rows))]

    def _memories(self, split: str, reset: str | None) -> Int64[ndarray, "parts 2"]:
        part = self.parts[split]
        return parts_of(len(part.tokens), self._resets(part, reset or self.config.memory_reset))

    def _resets(self, part: TokenPart, reset: str | TokenReset) -> Int64[ndarray, " n"]:
        if isinstance(reset, TokenReset):
            edges = part.starts.tolist() if reset.documents else [0, len(part.tokens)]
            return np.concatenate([np.arange(low, high, reset.tokens) for low, high in pairwise(edges)])
        return part.starts if reset == "document" else part.starts[:0]

    def _batch(self, split: str, places: list[tuple[Spans, int]], names: Int64[ndarray, " batch"]) -> Batch:
        """The spans at these indices, padded; a row that has no more spans scores nothing."""
        part, separator = self.parts[split], self.tokens.tokenizer.separator
        tokens = np.full((len(places), self.segment_length), separator, dtype=np.int64)
        targets = np.full_like(tokens, UNSCORED)
        fresh, firsts = np.zeros(len(places), dtype=bool), np.zeros(len(places), dtype=np.int64)
        for row, (spans, index) in enumerate(places):
            if index < len(spans):
                start, stop = int(spans.start[index]), int(spans.stop[index])
                fresh[row], firsts[row] = spans.fresh[index], start
                targets[row, : stop - start] = part.tokens[start:stop]
                tokens[row, 1 : stop - start] = part.tokens[start : stop - 1]
                if start and not (index == 0 and split == "train"):  # which begins like a document, wherever it is
                    tokens[row, 0] = part.tokens[start - 1]
                begins = part.starts[np.searchsorted(part.starts, start) : np.searchsorted(part.starts, stop)]
                tokens[row, begins - start] = separator
        return Batch(*map(torch.from_numpy, (tokens, targets, names, fresh, firsts)))


def windows(tokenizer: Tokenizer, pieces: Iterable[str], segment_length: int) -> Iterator[Int64[ndarray, " n"]]:
    """A separator and the tokens of a text in pieces: segments, each with the token that begins the next one.

    The last window is what is left: 1 to `segment_length` tokens. Only a piece of the text is held.
    """
    left = np.array([tokenizer.separator], dtype=np.int64)
    for tokens in tokenizer.encode(pieces):
        left = np.concatenate([left, tokens])
        while len(left) > segment_length:
            yield left[: segment_length + 1]
            left = left[segment_length:]
    yield left


def _block_starts(batch: Batch) -> Bool[Tensor, "batch length"]:
    """The target after a full segment's last token: it begins the next block, with nothing before it there."""
    aside = torch.zeros_like(batch.targets, dtype=torch.bool)
    aside[:, -1] = batch.targets[:, -1] != UNSCORED
    return aside


def text_figures(split: str, totals: Totals, sizes: dict[str, int]) -> dict[str, float]:
    """ln(word perplexity) · words = bits a byte · ln 2 · bytes = nats of every token.

    ln(token perplexity) · tokens = nats of the tokens that the protocol scores: the same, unless it leaves some aside.
    """
    whole = totals.nats + totals.aside_nats
    return {
        f"{split}/loss": totals.nats / totals.scored,
        f"{split}/token_perplexity": math.exp(min(totals.nats / totals.scored, LARGEST)),
        f"{split}/word_perplexity": math.exp(min(whole / sizes["words"], LARGEST)),
        f"{split}/bits_per_byte": whole / math.log(2) / sizes["bytes"],
    }

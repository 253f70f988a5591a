"""Language modelling (section 4.2): predict each token of a corpus from all tokens before it.

The input of a target is the token before it, and that of a document's first token is a separator, which is no target.
So every token is scored once, and scores add up to those of the text (| begins a document):

    inputs    s a b   s d e       s: the separator
    targets   a b c | d e f
"""

from collections.abc import Iterator
from copy import copy
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Int64
from numpy import ndarray
from pydantic import Field

from infty.base.batch import ALL, UNSCORED, Batch, Share, Totals
from infty.base.errors import MissingError, UsageError, suggest
from infty.corpora.registry import KNOWN
from infty.corpora.text_pieces import PIECE, CountedText, Text
from infty.corpora.tokens import TokenPart, TokenSet, open_tokens
from infty.tasks.loss_breakdown import break_down_losses, compute_text_metrics, measure_distances
from infty.tasks.protocols import TEXT_PROTOCOLS, KnockOut, Metrics
from infty.tasks.segmentation import Spans, TokenReset, cut_at_resets, cut_rows, cut_segments, cut_windows, pack_rows
from infty.tasks.task import PerTarget, RandomTokens, Sample, Source, Task, Values
from infty.tasks.text import TextConfig

TOKENS_A_WORD = 1.3  # of a byte-level BPE, about: GPT-2's makes 1.15 on WikiText, 1.5 on books with their line ends
LONG_SAMPLE, LONGEST_SAMPLE = 10, 24  # segments that an inspected document should have, and the most that are read


class CorpusConfig(TextConfig):
    """The settings of language modelling: text, tokeniser, resets of the memory, protocol."""

    has_text = True
    kind: Literal["corpus"] = Field(default="corpus", description="language modelling (section 4.2)")
    memory_reset: Literal["never", "document"] | TokenReset = Field(
        description="where training empties the memory: never (section 4.2), document, or every {tokens: n}"
    )
    protocol: str = Field(description="how it is evaluated: one of infty/tasks/protocols.py")
    far: int = Field(gt=0, description="a word that last came more tokens ago counts as far-seen")

    def open(
        self, data: Path, segment_length: int, learnt_from: Source | None = None, *, make: bool = True
    ) -> "CorpusTask":
        """Open the tokenised text. make: tokenise it if that is not done yet."""
        tokens = open_tokens(data, self.corpus, self.tokenizer, self.portions, learnt_from=learnt_from, make=make)
        return CorpusTask(self, tokens, segment_length)

    def stand_in(self, segment_length: int, why: str) -> RandomTokens:
        """Make random tokens, about as many as the text has by its published words and documents, if they are known."""
        known, part, tokens = KNOWN.get(self.corpus), self.train, None
        if known and part.split in known.words and (part.last is None or part.split in known.documents):
            share = 1.0 if part.last is None else (part.last - part.first) / known.documents[part.split]
            tokens = known.words[part.split] * share * (1.0 if self.tokenizer.kind == "word" else TOKENS_A_WORD)
        return RandomTokens(self.vocab_size, segment_length, why, tokens)

    def find_faults(self, segment_length: int) -> list[tuple[str, str]]:
        """Find a protocol that does not exist, or that requires other blocks."""
        protocol = TEXT_PROTOCOLS.get(self.protocol)
        if protocol is None:
            return [("task.protocol", f"no {self.protocol!r}; {suggest(self.protocol, TEXT_PROTOCOLS)}")]
        if protocol.has_blocks_of(segment_length, self.tokenizer.kind):
            return []
        wanted = f"is for model.segment_length {protocol.block} and {protocol.tokenizer} tokens"
        return [("task.protocol", f"{self.protocol} {wanted}; gpt2-blocks-v1 is for others")]


class CorpusTask(Task):
    """A tokenised corpus, for a model that reads `segment_length` tokens at a time."""

    continues = True

    def __init__(self, config: CorpusConfig, tokens: TokenSet, segment_length: int) -> None:
        self.config, self.tokens, self.segment_length = config, tokens, segment_length
        self.name, self.digest = config.corpus, tokens.digest
        self.tokenizer, self.vocab_size = tokens.tokenizer, tokens.tokenizer.vocab_size
        self.protocol = TEXT_PROTOCOLS[config.protocol]
        self.parts = {split: tokens.part(portion) for split, portion in config.portions.items()}
        self.tokens_per_epoch: int | None = len(self.parts["train"].tokens)
        tokens.corpus.check(f"{config.test.split}.txt")  # `measure_distances` reads it after training
        self._rows = lru_cache(maxsize=2)(self._make_rows)

    def use_protocol(self, protocol: str | None) -> "CorpusTask":
        """Return this task with another protocol; None: its own. UsageError if there is no such protocol."""
        if protocol is None:
            return self
        if protocol not in TEXT_PROTOCOLS:
            raise UsageError(f"--protocol {protocol}: there is {', '.join(TEXT_PROTOCOLS)}")
        other = copy(self)
        other.config, other.protocol = self.config.model_copy(update={"protocol": protocol}), TEXT_PROTOCOLS[protocol]
        return other

    def training_batch(self, step: int, batch_size: int, seed: int, rows: range | None = None) -> Batch:
        """Make a batch of the next segment of each contiguous stream; a stream that has ended begins again."""
        own = range(batch_size) if rows is None else rows
        streams = [self._rows(batch_size)[row] for row in own]
        names = seed * 2**31 + step * batch_size + np.array(own)
        return self._make_batch("train", [(stream, step % len(stream)) for stream in streams], names)

    def count_steps_per_epoch(self, batch_size: int) -> int:
        """Count the steps until the longest stream has ended; shorter ones begin again meanwhile."""
        return max(map(len, self._rows(batch_size)))

    def count_tokens_seen(self, steps: int, batch_size: int) -> int:
        """Count the target tokens of the first `steps` training batches."""
        rows = [(row.stop - row.start, *divmod(steps, len(row))) for row in self._rows(batch_size)]
        return sum(int(times * sizes.sum() + sizes[:more].sum()) for sizes, times, more in rows)

    def evaluation_batches(self, split: str, batch_size: int, share: Share = ALL) -> Iterator[Batch]:
        """Yield every token of a split once; the batch size changes no result, since each row has its own memory."""
        rows = self._pack_evaluation_rows(split, batch_size, share)
        for step in range(max(map(len, rows), default=0)):
            names = np.array([row.start[min(step, len(row) - 1)] for row in rows])
            batch = self._make_batch(split, [(row, step) for row in rows], names)
            if self.protocol.by_blocks:  # a full segment's last target begins the next block: nothing precedes it
                aside = torch.zeros_like(batch.targets, dtype=torch.bool)
                aside[:, -1] = batch.targets[:, -1] != UNSCORED
                batch = replace(batch, aside=aside)
            yield batch

    @property
    def memory_reset(self) -> str | TokenReset:
        """The places at which an evaluation empties the memory: the protocol's, or those of training."""
        return self.protocol.memory_reset or self.config.memory_reset

    @property
    def one_stream(self) -> bool:
        """True if a split is evaluated as one stream from beginning to end."""
        return self.memory_reset == "never"

    def count_evaluation_steps(self, split: str, batch_size: int, share: Share = ALL) -> int:
        """Count the batches of `evaluation_batches`, which are its steps."""
        return max(map(len, self._pack_evaluation_rows(split, batch_size, share)), default=0)

    def pair_samples(self, split: str, batch_size: int, share: Share = ALL) -> Iterator[Batch]:
        """Yield each document and, in a second, unscored row, the next one, whose memory can be read instead.

        A batch has two rows, whatever `batch_size` is. The next document comes in whole segments, again if shorter.
        """
        rows = [cut_segments(edge[None], self.segment_length) for edge in self._cut_memories(split, "document")]
        for place in share.select_indices(len(rows)):
            own, other = rows[place], rows[(place + 1) % len(rows)]
            whole = max(1, int((other.stop - other.start == self.segment_length).sum()))
            for step in range(len(own)):
                names = np.array([own.start[0], other.start[0]])
                batch = self._make_batch(split, [(own, step), (other, step % whole)], names)
                batch.targets[1] = UNSCORED
                yield replace(batch, fresh=torch.full((2,), step == 0))

    def compute_metrics(self, split: str, totals: Totals) -> Metrics:
        """Compute loss in nats per token, perplexity per token and per word, and bits per byte."""
        return compute_text_metrics(split, totals, self.count_words_and_bytes(split))

    def make_record(self, split: str) -> PerTarget:
        """Make an array for the nats of each token."""
        return np.zeros(len(self.parts[split].tokens), dtype=np.float32)

    def score(self, split: str, totals: Totals, record: PerTarget, memory_slots: int, segment_length: int) -> Values:
        """Compute the score of all tokens, and the loss of those whose word last occurred far back."""
        found = break_down_losses(record, self.parts[split].starts, self.measure_distances(split), self.config.far)
        metrics = self.compute_metrics(split, totals)
        if found["far"]["tokens"]:
            metrics[f"{split}/far_loss"] = found["far"]["nats"] / found["far"]["tokens"]
        sums = {**vars(totals), **self.count_words_and_bytes(split)}
        return {"metrics": metrics, "totals": sums, "details": found, "calibration": {}}

    def choose_sample(self, split: str, segment_length: int) -> Sample:
        """Choose the first long document: whole segments of it, after a separator, up to a reset of the memory."""
        part, reset = self.parts[split], self.memory_reset
        sizes, most = np.diff(part.starts), LONGEST_SAMPLE * segment_length
        index = int(np.argmax(sizes >= min(LONG_SAMPLE * segment_length, sizes.max())))
        count = min(int(sizes[index]), most, reset.tokens if isinstance(reset, TokenReset) else most)
        start = part.starts[index]
        count = max(count // segment_length * segment_length, min(count, segment_length))
        targets = part.tokens[start : start + count].astype(np.int64)
        tokens = np.concatenate([[self.tokens.tokenizer.separator], targets[:-1]])
        return "document", index, Batch(*map(torch.from_numpy, (tokens[None], targets[None], np.array([start]))))

    def cut_stream(self, file: Text, segment_length: int) -> Iterator[Batch]:
        """Cut one text of any length into segments of one stream; every token is scored."""
        for window in cut_windows(self.tokens.tokenizer, iter(lambda: file.read(PIECE), ""), segment_length):
            if len(window) > 1:
                yield Batch.of_stream(window[:-1], window[1:])

    def compute_stream_metrics(self, text: CountedText, totals: Totals) -> Metrics:
        """Compute the metrics of a text that was read as a stream. MissingError if it has no word."""
        if not text.words:
            raise MissingError("the stream holds no word: wanted a text")
        words = self.tokens.corpus.words([text])
        return compute_text_metrics("stream", totals, {"words": words, "bytes": text.bytes})

    def count_words_and_bytes(self, split: str) -> dict[str, int]:
        """Count the words and bytes that the metrics of a split divide by."""
        part = self.parts[split]
        words = KNOWN[self.protocol.whole].words[split] if self.protocol.whole else part.words
        return {"words": words, "bytes": part.bytes}

    def describe_data(self, split: str) -> dict[str, Any]:
        """Describe the text of a result: corpus, split, sums and tokeniser."""
        corpus, portion = self.tokens.corpus, self.config.portions[split]
        part, known = self.parts[split], corpus.known
        whole = portion.split == split and known.is_whole(split, len(part.documents), part.words)
        return {
            "name": corpus.name,
            "title": known.title if whole or not known.words else f"{known.title}, subset",
            "split": portion.split,
            "documents": len(part.documents),
            "sha256": corpus.splits[portion.split]["sha256"],
            "tokens_sha256": part.sha256,
            "tokenizer": {**self.config.tokenizer.model_dump(), "vocab_size": self.vocab_size},
        }

    def describe_protocol(self) -> dict[str, Any]:
        """Describe the protocol with the resets of the memory, and the origin of the number of words."""
        reset = self.protocol.memory_reset or self.config.model_dump()["memory_reset"]
        words = "published" if self.protocol.whole else "counted here"
        return {**super().describe_protocol(), "memory_reset": reset, "words": words}

    def explain_unfit(self, split: str, batch_size: int | None = None, knock_out: KnockOut | None = None) -> str | None:
        """Explain why a split can't be evaluated in this way: other text or blocks, one stream, no other document."""
        # The protocol may be for blocks of other tokens, or for a whole corpus.
        p, kind, portion, part = (
            self.protocol,
            self.config.tokenizer.kind,
            self.config.portions[split],
            self.parts[split],
        )
        if not p.has_blocks_of(self.segment_length, kind):
            return (
                f"{p.name} is for blocks of {p.block} {p.tokenizer} tokens; these are of {self.segment_length} {kind} "
                "tokens: use --protocol gpt2-blocks-v1"
            )
        named = self.config.corpus == p.whole and portion.split == split and p.tokenizer in (None, kind)
        if p.whole and not (named and KNOWN[p.whole].is_whole(split, len(part.documents), part.words)):
            return (
                f"{p.name} is for the whole {split} split of {KNOWN[p.whole].title}"
                f"{f' in {p.tokenizer} tokens' if p.tokenizer else ''}; this is {len(part.documents)} documents of "
                f"{self.config.corpus} {portion.split} in {kind} tokens: use --protocol text-documents-v1 or "
                "text-stream-v1"
            )

        # A stream is read alone, and a knock-out by another memory needs another document.
        if self.one_stream and (batch_size or 1) > 1:
            return (
                f"--batch {batch_size}: {p.name} is one stream whose memory is never reset, read alone; "
                "--protocol text-documents-v1 reads documents side by side"
            )
        if knock_out == "other" and p.memory_reset != "document":
            return "--knock-out other reads another document's memory: --protocol text-documents-v1"
        if knock_out == "other" and len(part.documents) < 2:
            return f"--knock-out other: the {split} part has one document only"
        return None

    def measure_distances(self, split: str) -> Int64[ndarray, " tokens"]:
        """Measure the distance from each token to its word's previous occurrence in the document, in tokens."""
        part, tokenizer = self.parts[split], self.tokens.tokenizer
        lengths, found = tokenizer.lengths(), []
        for document, tokens in zip(part.documents, np.split(part.tokens, part.starts[1:-1]), strict=True):
            text = "".join(self.tokens.corpus.text(document, self.config.portions[split].split)).encode()
            found.append(measure_distances(tokens.astype(np.int64), text, lengths, tokenizer.no_words))
        return np.concatenate(found)

    def _make_rows(self, batch_size: int) -> list[Spans]:
        part = self.parts["train"]
        if len(part.tokens) < batch_size:
            raise UsageError(f"{len(part.tokens)} tokens to train on are too few for {batch_size} streams")
        resets = _find_resets(part, self.config.memory_reset)
        return cut_rows(len(part.tokens), batch_size, resets, self.segment_length)

    def _pack_evaluation_rows(self, split: str, batch_size: int, share: Share) -> list[Spans]:
        """Pack a split into rows for all processes, and return those of one."""
        parts = self._cut_memories(split, self.memory_reset)
        rows = pack_rows(parts, batch_size * share.of, self.segment_length)
        return [rows[place] for place in share.select_indices(len(rows))]

    def _cut_memories(self, split: str, reset: str | TokenReset) -> Int64[ndarray, "parts 2"]:
        return cut_at_resets(len(self.parts[split].tokens), _find_resets(self.parts[split], reset))

    def _make_batch(self, split: str, places: list[tuple[Spans, int]], names: Int64[ndarray, " batch"]) -> Batch:
        """Make a batch of the spans at these indices, padded to segments; a row without a span scores nothing.

        A training row may begin at any token of the text; its first input is the separator, as in a document.
        """
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
                if start and not (index == 0 and split == "train"):
                    tokens[row, 0] = part.tokens[start - 1]
                begins = part.starts[np.searchsorted(part.starts, start) : np.searchsorted(part.starts, stop)]
                tokens[row, begins - start] = separator
        return Batch(*map(torch.from_numpy, (tokens, targets, names, fresh, firsts)))


def _find_resets(part: TokenPart, reset: str | TokenReset) -> Int64[ndarray, " n"]:
    """Find the places at which memory is emptied: document starts, every so many tokens, or none."""
    if isinstance(reset, TokenReset):
        edges = part.starts.tolist() if reset.documents else [0, len(part.tokens)]
        return np.concatenate([np.arange(low, high, reset.tokens) for low, high in pairwise(edges)])
    return part.starts if reset == "document" else part.starts[:0]

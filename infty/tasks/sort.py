"""Sort symbols by their frequency in a sequence, while the distribution drifts (section 4.1).

The input is the sequence, a separator and the answer's first V − 1 symbols; the V symbols of the answer are scored
(V = 3, length = 8):

    tokens   c a a c b a a b  SEP  a  c
    targets  · · · · · · · ·   a   c  b

a occurs four times, b and c twice each; c occurred first, so c is before b. Early tokens follow one distribution, late
ones another, so the last few tokens alone give the wrong order.
"""

import re
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Int64
from numpy import ndarray
from pydantic import Field

from infty.base.batch import UNSCORED, Batch, Totals
from infty.base.errors import MissingError
from infty.corpora.text_pieces import Text
from infty.tasks.generated import FIRST_SEED, GeneratedTask, scale
from infty.tasks.kept import Rows
from infty.tasks.protocols import SORT
from infty.tasks.task import PerTarget, TaskConfig, Values

LOW = np.uint64(2**32 - 1)
LONGEST_WORD = 18  # digits of a number in a stream
_WHITE_SPACE = re.compile(r"\s+")


class SortConfig(TaskConfig):
    """The sizes of the sorting task."""

    kind: Literal["sort"] = Field(default="sort", description="the sorting task (section 4.1)")
    vocabulary: int = Field(gt=1, description="symbols V to sort (section 4.1: 20)")
    length: int = Field(gt=0, description="symbols in a sequence (section 4.1: 4,000, 8,000, 16,000)")
    train_sequences: int = Field(gt=0, le=2**40, description="different sequences to train on (section 4.1: 8,000)")
    validation_sequences: int = Field(gt=0, le=2**40, description="sequences to validate on (section 4.1: 800)")
    test_sequences: int = Field(gt=0, le=2**40, description="sequences to test on (section 4.1: 800)")

    @property
    def vocab_size(self) -> int:
        """The size of the vocabulary: the symbols and the separator."""
        return self.vocabulary + 1

    @property
    def drift(self) -> Int64[ndarray, " length"]:
        """How far, of `length`, each symbol's distribution has gone from the first to the second."""
        return np.arange(self.length)

    @property
    def counted(self) -> slice:
        """The places of the symbols that the answer is about: all."""
        return slice(0, self.length)

    def open(self, *_: Any, **__: Any) -> "SortTask":
        """Open the task; sequences are generated, so no corpus is read."""
        return SortTask(self)

    def find_faults(self, segment_length: int) -> list[tuple[str, str]]:
        """Find a length whose targets would straddle two segments, and suggest lengths that work."""
        fitting = find_nearest_lengths(self.length, self.vocabulary, segment_length)
        if fitting == [self.length]:
            return []
        if not fitting:
            return [("model.segment_length", f"{segment_length} is too short for the {self.vocabulary} targets")]
        fault = f"at {self.length} the separator and the {self.vocabulary} targets would straddle two segments of "
        return [("task.length", f"{fault}{segment_length}; the nearest that work: {' and '.join(map(str, fitting))}")]


def find_nearest_lengths(length: int, vocabulary: int, segment_length: int) -> list[int]:
    """Find the lengths nearest to `length` whose V targets fall into one segment: `[length]` itself if they do.

    Otherwise the next below (if there is one) and above; none if a segment is too short for the targets.
    """
    if vocabulary > segment_length:
        return []
    start, last = length % segment_length, segment_length - vocabulary
    if start <= last:
        return [length]
    return [n for n in (length - start + last, length - start + segment_length) if n > 0]


def make_sequences(
    seeds: Int64[ndarray, " batch"], vocabulary: int, drift: Int64[ndarray, " length"]
) -> Int64[ndarray, "batch length"]:
    """Generate one sequence per seed, in integer arithmetic, so that it is the same on every machine.

    Token j is drawn from (1 − r)·p0 + r·p1 with r = drift_j/length; the paper's drift_j is j. p0 and p1: V integers,
    uniform on 1..9, normalised.
    """
    length = len(drift)
    batch = len(seeds)
    random = np.stack([np.random.Philox(key=int(seed)).random_raw(2 * vocabulary + length) for seed in seeds])
    high, low = random >> np.uint64(32), random & LOW
    weights = scale(high[:, : 2 * vocabulary], 9).reshape(batch, 2, vocabulary) + 1
    upper = weights.cumsum(-1)  # batch 2 vocabulary
    late = high[:, 2 * vocabulary :] * np.uint64(length) < drift.astype(np.uint64) << np.uint64(32)
    table = 2 * np.arange(batch)[:, None] + late  # index of each token's distribution in the batch
    place = scale(low[:, 2 * vocabulary :], upper[..., -1].reshape(-1)[table])
    stacked = upper + 9 * vocabulary * np.arange(2 * batch).reshape(batch, 2, 1)  # one ascending list of all
    return np.searchsorted(stacked.reshape(-1), place + 9 * vocabulary * table, side="right") - vocabulary * table


def tally(
    symbols: Int64[ndarray, "batch length"], vocabulary: int
) -> tuple[Int64[ndarray, "batch vocabulary"], Int64[ndarray, "batch vocabulary"]]:
    """Count the occurrences of each symbol, and find the place of the first one; `length` if there is none."""
    batch, length = symbols.shape
    cells = symbols + vocabulary * np.arange(batch)[:, None]
    counts = np.bincount(cells.reshape(-1), minlength=batch * vocabulary).reshape(batch, vocabulary)
    first = np.full(batch * vocabulary, length)
    np.minimum.at(first, cells, np.broadcast_to(np.arange(length), symbols.shape))
    return counts, first.reshape(batch, vocabulary)


class SortTask(GeneratedTask):
    """The sequences of a `SortConfig` as batches of tokens and targets."""

    protocol = SORT

    def __init__(self, config: SortConfig) -> None:
        self.config = config
        sizes = config.train_sequences, config.validation_sequences, config.test_sequences
        super().__init__(config.vocab_size, config.kind, sizes, config.length + config.vocabulary)

    def order_symbols(
        self, counts: Int64[ndarray, "batch vocabulary"], first: Int64[ndarray, "batch vocabulary"]
    ) -> Int64[ndarray, "batch vocabulary"]:
        """Order all symbols by falling frequency; ties by first occurrence; those that never occur last, ascending."""
        return np.lexsort((first, -counts))  # stable: symbols equal in both ascend

    def score(self, split: str, totals: Totals, record: PerTarget, memory_slots: int, segment_length: int) -> Values:
        """Compute loss and accuracy, chance and the window oracle to compare with, and right symbols by sequence."""
        right = record.reshape(-1, self.sequence_length).sum(1).tolist()
        details = {"answers": {"right": right, "symbols": self.config.vocabulary}}
        calibration = self.calibrate(split, memory_slots, segment_length)
        metrics = self.compute_metrics(split, totals)
        return {"metrics": metrics, "totals": vars(totals), "details": details, "calibration": calibration}

    def make_rows(self, split: str, indices: Int64[ndarray, " n"]) -> Rows:
        """Make sequences: symbols, separator, answer."""
        vocabulary = self.config.vocabulary
        symbols = make_sequences(FIRST_SEED[split] + indices, vocabulary, self.config.drift)
        separator = np.full((len(indices), 1), vocabulary)
        answer = self.order_symbols(*tally(symbols[:, self.config.counted], vocabulary))
        return np.concatenate([symbols, separator, answer], 1)

    def mark_scored(self, rows: Rows) -> Bool[ndarray, "n targets"]:
        """Mark the answer: what comes after the separator."""
        return np.broadcast_to(np.arange(self.sequence_length) >= self.config.length, rows[:, 1:].shape)

    def cut_stream(self, file: Text, segment_length: int) -> Iterator[Batch]:
        """Cut one sequence of any length into segments, followed by separator and answer, as in training.

        The text holds symbols 0 … V − 1 with white space between. Only a segment and the counts are held at a time.

        Raises:
            MissingError: It holds anything else, or nothing.
        """
        # Yield whole segments as they fill; the answer needs only how often and where first each symbol occurred.
        vocabulary = self.config.vocabulary
        counts, first, read = np.zeros(vocabulary, dtype=np.int64), np.full(vocabulary, 2**62, dtype=np.int64), 0
        buffer = np.empty(0, dtype=np.int64)
        for symbols in _read_symbols(file, vocabulary):
            new, places = np.unique(symbols, return_index=True)
            first[new] = np.where(counts[new] == 0, read + places, first[new])
            counts += np.bincount(symbols, minlength=vocabulary)
            read += len(symbols)
            buffer = np.concatenate([buffer, symbols])
            whole = len(buffer) // segment_length * segment_length
            yield from Batch.of_stream(buffer[:whole], np.full(whole, UNSCORED)).segments(segment_length)
            buffer = buffer[whole:]

        # The rest of the sequence, the separator and the answer are the last segment or two.
        if not read:
            raise MissingError(f"the stream is empty: wanted symbols 0 to {vocabulary - 1}, with white space between")
        answer = self.order_symbols(counts[None], first[None])[0]
        tokens = np.concatenate([buffer, [vocabulary], answer[:-1]])
        targets = np.concatenate([np.full(len(buffer), UNSCORED), answer])
        yield from Batch.of_stream(tokens, targets).segments(segment_length)

    def calibrate(self, split: str, memory_slots: int, segment_length: int) -> dict[str, float]:
        """Compute what accuracy is compared with: chance, and the oracle over the window of one layer's attention.

        Chance, H_V / V (H_V: harmonic number), guesses among the symbols not named yet. The window has as many symbols
        as a layer has slots, and those in the same segment as the answer.
        """
        window = memory_slots + self.config.length % segment_length
        chance = float(np.mean(1 / np.arange(1, self.config.vocabulary + 1)))
        return {"chance": chance, "oracle_window": window, "oracle": self.compute_window_oracle(split, window)}

    def compute_window_oracle(self, split: str, window: int) -> float:
        """Compute the accuracy, from 0 to 1, of naming the symbol left that is most frequent in the last `window`."""
        right = 0
        for batch in self.evaluation_batches(split, 100):
            symbols, answer = batch.tokens[:, : self.config.length].numpy(), batch.targets[:, self.config.length :]
            counted = self.config.counted
            seen = symbols[:, max(self.config.length - window, counted.start) : counted.stop]
            ranks = self.order_symbols(*tally(seen, self.config.vocabulary)).argsort(-1)
            wanted = np.take_along_axis(ranks, answer.numpy(), -1)
            best_left = np.minimum.accumulate(wanted[:, ::-1], -1)[:, ::-1]
            right += int((wanted == best_left).sum())
        return right / (self.sizes[split] * self.config.vocabulary)


def _read_symbols(file: Text, vocabulary: int) -> Iterator[Int64[ndarray, " n"]]:
    """Read the numbers in a text, some at a time. MissingError, with its place, if a word is not a symbol."""
    rest, read = "", 0
    while chunk := file.read(2**16):
        *words, rest = _WHITE_SPACE.split(rest + chunk)
        words = [word for word in words if word]
        if words:
            yield _parse_symbols(words, vocabulary, read)
        read += len(words)
        if len(rest) > LONGEST_WORD:
            break
    if rest:
        yield _parse_symbols([rest], vocabulary, read)


def _parse_symbols(words: list[str], vocabulary: int, read: int) -> Int64[ndarray, " n"]:
    """Parse words as symbols; `read` words came before them. MissingError if one is not a symbol."""
    for place, word in enumerate(words, read + 1):
        if not (word.isascii() and word.isdigit() and len(word) <= LONGEST_WORD and int(word) < vocabulary):
            shown = repr(word if len(word) <= LONGEST_WORD else f"{word[:LONGEST_WORD]}…")
            raise MissingError(f"word {place} of the stream is {shown}: wanted a symbol, 0 to {vocabulary - 1}")
    return np.array([int(word) for word in words], dtype=np.int64)

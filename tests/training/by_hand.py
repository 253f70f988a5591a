"""Count a step's multiplications and additions by hand, product by product, as the equations have them.

A forward pass makes each product once; a backward pass makes one for each of its factors that has a gradient. So a
product counts `1 + gradients`: 3 with two factors to learn, 2 if one is a constant. All is for one row of the batch,
but for what the rows share.
"""

from typing import Any

from infty.memory.compressive import CompressiveMemoryConfig
from infty.memory.longterm import LongTermMemory, LongTermMemoryConfig
from infty.model.config import DecoderConfig, Gpt2ModelConfig


def product(rows: int, inner: int, columns: int) -> int:
    """Of a matrix of rows × inner and one of inner × columns."""
    return 2 * rows * inner * columns


def count_map(linear: Any, hidden: int) -> int:
    """Of a fixed linear map, which is one matrix or two thin ones, on vectors of the hidden size."""
    return sum(product(rows, columns, hidden) for rows, columns in (part.shape for part in linear._exact.values()))


class Signal:
    """The ∞-former's memory (M6 to M9)."""

    def __init__(self, config: LongTermMemoryConfig) -> None:
        self.config, self.memory = config, LongTermMemory(config)
        self.chosen = len(self.memory.reduced.centers)

    def update(self, first: bool, learns: bool) -> int:
        """The gate learns, and what it lets in is learnt through; the past is a constant."""
        e, length = self.config.hidden_size, self.config.segment_length
        gate = product(length, 3 * e, e) * (1 + learns)
        if first:
            return gate + count_map(self.memory.first, e) * (1 + learns)
        append = count_map(self.memory.append, e) * (1 + learns)
        if self.config.sticky:
            n, m = self.config.num_basis, self.config.num_samples
            return gate + append + product(m, n, e) + count_map(self.memory.contract, e)
        return gate + append + count_map(self.memory.carry, e)

    def read(self, length: int, wanted: int, learns: bool, projects: bool) -> int:
        """Where all positions look, if somebody asks; and what the wanted ones read. projects: W_Q is folded in."""
        c, times = self.config, 1 + 2 * learns
        e, n, k = c.hidden_size, c.num_basis, self.chosen
        found = 0
        if wanted or learns or c.sticky:
            found += times * (product(2, n, e) + product(2, e, e))  # (w B) W_K, for μ and for σ²
            if projects and wanted < length and (learns or c.sticky):
                found += times * (product(2, e, e) + product(length, e, 2 * c.num_heads))
            else:
                found += times * product(wanted, e, 2)
        if wanted:
            found += product(k, n, e) * (1 + learns)  # of the chosen basis functions, a constant
            found += times * (product(k, e, e) + product(wanted, k, e) + product(wanted, e, e))  # W_V, E_p[ψ], W_O
        return found


def count_decoder(config: DecoderConfig, vocab: int, length: int, scored: int, batch: int) -> int:
    """Of a decoder's step on sequences of this length, scored at their end, within one segment."""
    e, segment, memory = config.hidden_size, config.segment_length, config.long_range
    signal = Signal(memory) if isinstance(memory, LongTermMemoryConfig) else None
    shared = config.num_layers * 2 * product(config.attended_length, e, e)  # W_R R, of which W_R learns
    total, count = 0, -(-length // segment)
    for index in range(count):
        t, learns = min(segment, length - index * segment), index == count - 1
        times, cached = 1 + 2 * learns, min(index * segment, config.short_term_length)
        updates = max(0, index - config.short_term_length // segment)
        for layer in range(config.num_layers):
            wanted = t if layer < config.num_layers - 1 else scored * learns
            extra = 0
            if updates and signal:
                total += signal.update(updates == 1, learns) + signal.read(t, wanted, learns, projects=True)
            if updates and isinstance(memory, CompressiveMemoryConfig):
                slots = -(-segment // memory.compression_rate)
                extra = min(updates * slots, memory.num_slots)
                total += product(slots, memory.compression_rate * e, e) * (1 + learns)
                total += count_reconstruction(t, segment, slots, e) * learns
            if wanted:
                total += times * product(t, e, 2 * e)  # keys and values
                total += product(cached, e, 2 * e) * 2 * learns  # made again, of hidden states that are constants
                total += times * product(extra, e, 2 * e)
                total += times * 3 * product(wanted, cached + extra + t, e)  # by content, by position; what is read
            total += times * (2 * product(wanted, e, e) + 2 * product(wanted, e, config.feed_forward_size))
        total += times * product(scored, e, vocab) * learns
    return total * batch + shared


def count_reconstruction(queries: int, evicted: int, slots: int, e: int) -> int:
    """Of attention to what left and to its slots: the slots learn, all else is constant (M12)."""
    left = product(queries, e, e) + product(evicted, e, 2 * e) + 2 * product(queries, e, evicted)
    read = product(queries, e, e) + 2 * product(slots, e, 2 * e) + 5 * product(queries, e, slots)
    return left + read


def count_graft(config: Gpt2ModelConfig, vocab: int, batch: int) -> int:
    """Of a GPT-2's step on one segment, all of it scored, with a memory that was written before."""
    e, t, memory = config.hidden_size, config.segment_length, config.long_range
    layer = product(t, e, 3 * e) + 2 * product(t, e, t) + product(t, e, e) + 2 * product(t, e, 4 * e)
    total = 3 * (config.num_layers * layer + product(t, e, vocab))
    if isinstance(memory, LongTermMemoryConfig):
        signal = Signal(memory)
        total += config.num_layers * (signal.update(False, True) + signal.read(t, t, True, projects=False))
    return total * batch

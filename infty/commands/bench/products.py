"""Count what a training step of the sorting task can't do without, to hold its speed against that of plain products."""

from infty.model.config import DecoderConfig

# Multiplications and additions, in matrix products alone: visible query-key pairs; each projection once per token (keys
# and values are kept) and R's once per step; a forward pass for every segment, and twice as much again for the one that
# carries a gradient. They are those of the plain equations: gate, refit and reading make fewer (`memory.fast`), which
# counts as speed. Sizes as everywhere: E hidden, F feed-forward, L segment, N basis functions, V vocabulary; t tokens
# of a segment.


def count_step_products(config: DecoderConfig, vocab: int, length: int, scored: int, batch: int) -> tuple[int, int]:
    """Count the floating-point operations of a step on `length` tokens, of which the last `scored` are scored.

    Returns two counts: of whole layers, and without what the last layer skips at tokens that are not scored.
    """
    full = done = 0
    starts = range(0, length, config.segment_length)
    for index, start in enumerate(starts):
        tokens = min(config.segment_length, length - start)
        is_last = index == len(starts) - 1
        passes = 3 if is_last else 1
        whole = _count_layer(config, tokens, start, tokens, is_last)
        needed = _count_layer(config, tokens, start, scored if is_last else 0, is_last)
        logits = 2 * config.hidden_size * vocab * (scored if is_last else 0)
        full += passes * (config.num_layers * whole + logits)
        done += passes * ((config.num_layers - 1) * whole + needed + logits)
    positions = config.num_layers * 2 * config.hidden_size**2 * config.attended_length * 3
    return batch * full + positions, batch * done + positions


def _count_layer(config: DecoderConfig, tokens: int, past: int, wanted: int, with_gradient: bool) -> int:
    """Count the forward pass of a layer over a segment after `past` tokens, with output for its last `wanted` ones."""
    e = config.hidden_size
    cached = min(past, config.short_term_length)
    pairs = wanted * cached + wanted * (wanted + 1) // 2 + wanted * (tokens - wanted)
    attention = 4 * e * e * wanted + 4 * e * e * tokens + 6 * e * pairs  # query, output; key, value; scores, values
    feed_forward = 4 * e * config.feed_forward_size * wanted
    return attention + feed_forward + _count_memory(config, past, tokens if with_gradient else wanted, wanted)


def _count_memory(config: DecoderConfig, past: int, looking: int, reading: int) -> int:
    """Count an update with one segment, the density of `looking` queries and the read of `reading` ones."""
    e, n, length = config.hidden_size, config.long_range.slots if config.long_range else 0, config.segment_length
    updates = max(past // length - 1, 0)  # segments that have left a short-term memory of one
    if not (n and updates):  # no memory, or nothing in it yet
        return 0
    update = 6 * e * e * length + 2 * n * length * e + (2 * n * n * e if updates > 1 else 0)  # gate, C x̃, A B
    density = 4 * n * e + 4 * e * e + 4 * e * looking + 2 * e * e * (looking - reading)  # w B, (w B) W_K, ·q; its q
    read = 2 * n * e * e * (reading > 0) + 2 * n * e * reading + 2 * e * e * reading  # B W_V, E_p[ψ] V, W_O
    return update + density + read

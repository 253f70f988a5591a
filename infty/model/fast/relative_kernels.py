"""Kernels of relative attention (Dai et al. 2019) for GPUs, in Triton: imported only if they are run.

A program holds one block: n queries of one item (a row of the batch, and a head), or n keys, or n distances. Vectors
are rows of `width` numbers, of which those beyond `size`, the head size, are zeros. Query i of t stands at place
k − t + i of k, so that its distance to key j stands in row t − 1 − i + j of r, the greatest distance first.

Position scores are made within the block. Its queries meet 2n distances to its keys: the products with the first n of
them are `low`, those with the others `high`. Of each column a query needs one of the two, so that turning the rows of
what is needed is the shift (here n = 2; low are 0 1, high are 2 3):

    query 0   2 1   turned by 1   1 2
    query 1   0 1   turned by 0   0 1
"""

import triton
import triton.language as tl

SIZES = ["heads", "t", "k", "size"]  # compiled once for all of them


@triton.jit
def find_place(count, block: tl.constexpr):
    """Find the first row of this program's block, of `count` rows of each item; and the item."""
    blocks = tl.cdiv(count, block)
    return tl.program_id(0) % blocks * block, (tl.program_id(0) // blocks).to(tl.int64)


@triton.jit
def count_unseen(unseen, row, hides: tl.constexpr):
    """Count the oldest keys that a row of the batch does not see."""
    return tl.load(unseen + row).to(tl.int32) if hides else 0


@triton.jit
def load(start, first, count, block: tl.constexpr, width: tl.constexpr):
    """Load rows `first` to `first + block` of `count`; zeros beyond."""
    rows = first + tl.arange(0, block)[:, None]
    return tl.load(start + rows * width + tl.arange(0, width)[None], mask=(rows >= 0) & (rows < count), other=0.0)


@triton.jit
def load_numbers(start, first, count, other, block: tl.constexpr):
    """Load a number for each of n queries; `other` beyond."""
    places = first + tl.arange(0, block)
    return tl.load(start + places, mask=places < count, other=other)


@triton.jit
def store(start, first, count, size, rows, block: tl.constexpr, width: tl.constexpr):
    """Store rows `first` to `first + block` of `count`, without the numbers beyond `size`."""
    places, columns = first + tl.arange(0, block)[:, None], tl.arange(0, width)[None]
    tl.store(start + places * size + columns, rows, mask=(places < count) & (columns < size))


@triton.jit
def multiply(a, b, how: tl.constexpr):
    """Multiply the rows of a by those of b: a bᵀ."""
    return tl.dot(a, tl.trans(b), input_precision=how)


@triton.jit
def turn(rows, by, block: tl.constexpr):
    """Turn each row, so that its column b gets what stood `by` places further on; what is beyond begins anew."""
    return tl.gather(rows, (tl.arange(0, block)[None] + by) & (block - 1), 1)


@triton.jit
def shift(low, high, block: tl.constexpr):
    """Shift position scores of queries by distance to those by key."""
    query, column = tl.arange(0, block)[:, None], tl.arange(0, block)[None]
    return turn(tl.where(column >= block - 1 - query, low, high), block - 1 - query, block)


@triton.jit
def mask(scores, first, start, hidden, t, k, block: tl.constexpr):
    """Set scores of queries from `first` and keys from `start` on to −∞ if a key is later, or another text's."""
    keys = start + tl.arange(0, block)[None]
    seen = (keys <= k - t + first + tl.arange(0, block)[:, None]) & (keys >= hidden)
    return tl.where(seen, scores, float("-inf"))


@triton.jit(do_not_specialize=SIZES)
def attend(
    content, position, key, value, encoding, unseen, read, log_sums, heads, t, k, size,
    hides: tl.constexpr, how: tl.constexpr, block: tl.constexpr, width: tl.constexpr,
):  # fmt: skip
    """Read the values for a block of queries; log_sums: ln Σ exp of each query's scores, from which to go back."""
    first, item = find_place(t, block)
    content, position = content + item * t * width, position + item * t * width
    key, value, encoding = key + item * k * width, value + item * k * width, encoding + item % heads * k * width
    hidden = count_unseen(unseen, item // heads, hides)
    c, p = load(content, first, t, block, width), load(position, first, t, block, width)
    begin, distance = hidden // block * block, t - first - block

    # What is read is summed relative to the greatest score so far.
    greatest = tl.full([block], float("-inf"), tl.float32)
    total, sums = tl.zeros([block], tl.float32), tl.zeros([block, width], tl.float32)
    low = multiply(p, load(encoding, distance + begin, k, block, width), how)
    for start in range(begin, tl.minimum(k - t + first + block, k), block):
        high = multiply(p, load(encoding, distance + start + block, k, block, width), how)
        scores = multiply(c, load(key, start, k, block, width), how) + shift(low, high, block)
        scores = mask(scores, first, start, hidden, t, k, block)
        now = tl.maximum(greatest, tl.max(scores, 1))
        base = tl.where(now == float("-inf"), 0.0, now)
        weights, before = tl.exp(scores - base[:, None]), tl.exp(greatest - base)
        v = load(value, start, k, block, width)
        sums = tl.dot(weights.to(v.dtype), v, sums * before[:, None], input_precision=how)
        total, greatest, low = total * before + tl.sum(weights, 1), now, high

    store(read + item * t * size, first, t, size, sums / total[:, None], block, width)
    rows = first + tl.arange(0, block)
    tl.store(log_sums + item * t + rows, greatest + tl.log(total), mask=rows < t)


@triton.jit(do_not_specialize=SIZES)
def go_back_to_queries(
    content, position, key, value, encoding, unseen, gradient, log_sums, means, to_content, to_position,
    heads, t, k, size,
    hides: tl.constexpr, how: tl.constexpr, block: tl.constexpr, width: tl.constexpr,
):  # fmt: skip
    """Compute the gradients of a block of queries, by content and by position."""
    first, item = find_place(t, block)
    content, position = content + item * t * width, position + item * t * width
    key, value, encoding = key + item * k * width, value + item * k * width, encoding + item % heads * k * width
    hidden = count_unseen(unseen, item // heads, hides)
    c, p, g = (
        load(content, first, t, block, width),
        load(position, first, t, block, width),
        load(gradient + item * t * width, first, t, block, width),
    )
    log_sum = load_numbers(log_sums + item * t, first, t, float("inf"), block)
    mean = load_numbers(means + item * t, first, t, 0.0, block)
    begin, distance = hidden // block * block, t - first - block
    query, is_low = tl.arange(0, block)[:, None], tl.arange(0, block)[None] >= block - 1 - tl.arange(0, block)[:, None]

    # The gradient of a product with n distances comes from two blocks of keys: `left` is that of the one before.
    by_content, by_position = tl.zeros([block, width], tl.float32), tl.zeros([block, width], tl.float32)
    left = tl.zeros([block, block], tl.float32)
    r = load(encoding, distance + begin, k, block, width)
    low = multiply(p, r, how)
    for start in range(begin, tl.minimum(k - t + first + block, k), block):
        keys, after = load(key, start, k, block, width), load(encoding, distance + start + block, k, block, width)
        high = multiply(p, after, how)
        scores = mask(multiply(c, keys, how) + shift(low, high, block), first, start, hidden, t, k, block)
        weights = tl.exp(scores - log_sum[:, None])
        to_scores = weights * (multiply(g, load(value, start, k, block, width), how) - mean[:, None])
        by_content = tl.dot(to_scores.to(c.dtype), keys, by_content, input_precision=how)
        to_both = turn(to_scores, query + 1, block)  # what `shift` did, undone
        to_low, left = tl.where(is_low, to_both, left), tl.where(is_low, 0.0, to_both)
        by_position = tl.dot(to_low.to(c.dtype), r, by_position, input_precision=how)
        low, r = high, after
    by_position = tl.dot(left.to(c.dtype), r, by_position, input_precision=how)

    store(to_content + item * t * size, first, t, size, by_content, block, width)
    store(to_position + item * t * size, first, t, size, by_position, block, width)


@triton.jit(do_not_specialize=SIZES)
def go_back_to_keys(
    content, position, key, value, encoding, unseen, gradient, log_sums, means, to_key, to_value,
    heads, t, k, size,
    hides: tl.constexpr, how: tl.constexpr, block: tl.constexpr, width: tl.constexpr,
):  # fmt: skip
    """Compute the gradients of a block of keys and values, from all queries that see them."""
    start, item = find_place(k, block)
    content, position, gradient = content + item * t * width, position + item * t * width, gradient + item * t * width
    encoding += item % heads * k * width
    hidden = count_unseen(unseen, item // heads, hides)
    keys, v = (
        load(key + item * k * width, start, k, block, width),
        load(value + item * k * width, start, k, block, width),
    )

    by_key, by_value = tl.zeros([block, width], tl.float32), tl.zeros([block, width], tl.float32)
    for first in range(tl.maximum(start - k + t, 0) // block * block, t, block):
        c, p, g = (
            load(content, first, t, block, width),
            load(position, first, t, block, width),
            load(gradient, first, t, block, width),
        )
        low = multiply(p, load(encoding, t - first - block + start, k, block, width), how)
        high = multiply(p, load(encoding, t - first + start, k, block, width), how)
        scores = mask(multiply(c, keys, how) + shift(low, high, block), first, start, hidden, t, k, block)
        weights = tl.exp(scores - load_numbers(log_sums + item * t, first, t, float("inf"), block)[:, None])
        by_value = tl.dot(tl.trans(weights.to(g.dtype)), g, by_value, input_precision=how)
        mean = load_numbers(means + item * t, first, t, 0.0, block)
        to_scores = weights * (multiply(g, v, how) - mean[:, None])
        by_key = tl.dot(tl.trans(to_scores.to(c.dtype)), c, by_key, input_precision=how)

    store(to_key + item * k * size, start, k, size, by_key, block, width)
    store(to_value + item * k * size, start, k, size, by_value, block, width)


@triton.jit(do_not_specialize=SIZES)
def go_back_to_distances(
    content, position, key, value, encoding, unseen, gradient, log_sums, means, to_encoding,
    heads, t, k, size,
    hides: tl.constexpr, how: tl.constexpr, block: tl.constexpr, width: tl.constexpr,
):  # fmt: skip
    """Compute one item's part of the gradient of a block of distances: in order, so that it repeats to the byte.

    A block is n queries by n distances here: position scores stand as they are made, and content's are shifted.
    """
    distance, item = find_place(k, block)
    content, position, gradient = content + item * t * width, position + item * t * width, gradient + item * t * width
    key, value = key + item * k * width, value + item * k * width
    hidden = count_unseen(unseen, item // heads, hides)
    r = load(encoding + item % heads * k * width, distance, k, block, width)
    query, column = tl.arange(0, block)[:, None], tl.arange(0, block)[None]

    sums = tl.zeros([block, width], tl.float32)
    for first in range(tl.maximum(t - distance - block, 0) // block * block, t, block):
        start = distance - t + 1 + first
        c, p, g = (
            load(content, first, t, block, width),
            load(position, first, t, block, width),
            load(gradient, first, t, block, width),
        )
        low, high = (
            multiply(c, load(key, start, k, block, width), how),
            multiply(c, load(key, start + block, k, block, width), how),
        )
        scores = turn(tl.where(column >= query, low, high), query, block) + multiply(p, r, how)
        seen = (start + query + column >= tl.maximum(hidden, 0)) & (distance + column < k)
        log_sum = load_numbers(log_sums + item * t, first, t, float("inf"), block)
        weights = tl.where(seen, tl.exp(scores - log_sum[:, None]), 0.0)
        low, high = (
            multiply(g, load(value, start, k, block, width), how),
            multiply(g, load(value, start + block, k, block, width), how),
        )
        mean = load_numbers(means + item * t, first, t, 0.0, block)
        to_scores = weights * (turn(tl.where(column >= query, low, high), query, block) - mean[:, None])
        sums = tl.dot(tl.trans(to_scores.to(p.dtype)), p, sums, input_precision=how)

    store(to_encoding + item * k * size, distance, k, size, sums, block, width)

"""Append to a tensor without copying what is there, in a segment that is read token by token (not in the paper).

A tensor that was made here lies at the beginning of a larger one. What is appended goes behind it, unless another
continuation of the same text has already gone on there: then, as for any other tensor, there is a copy with room of its
own. Equal to torch.cat: tests/model/fast/test_growing.py.
"""

from jaxtyping import Shaped
from torch import Tensor

Tensors = Shaped[Tensor, "..."]


def append(before: Tensors, new: Tensors, dim: int, room: int) -> Tensors:
    """Append `new` to `before` along a dimension (not in the paper). room: for a length of so many at least."""
    count, more = before.shape[dim], new.shape[dim]
    whole = before._base  # what it is a view of
    goes_on = whole is not None and getattr(whole, "used", None) == count and whole.data_ptr() == before.data_ptr()
    if whole is None or not goes_on or whole.shape[dim] < count + more:
        sizes = list(before.shape)
        sizes[dim] = max(room, count + more)
        whole = before.new_empty(sizes)
        whole.narrow(dim, 0, count).copy_(before)
    whole.narrow(dim, count, more).copy_(new)
    whole.used = count + more  # pyright: ignore[reportAttributeAccessIssue]
    return whole.narrow(dim, 0, count + more)

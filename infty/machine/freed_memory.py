"""Keep the memory of freed tensors for the next ones. By itself a CPU's step gives it back and takes it again.

torch takes and frees a CPU's tensors one by one, by `malloc`. GNU's returns to the system what is free at the heap's
end, as soon as it is more than twice the largest block so far, so the next tensors get it anew, page by page, filled
with zeros by the kernel: thousands of page faults a step. Where a step's sizes are those of the step before, what is
kept here was needed at its peak. No result depends on it.
"""

import contextlib
import ctypes
import os

CHOICES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")  # a user who sets one has chosen
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of mallopt(3)
KEPT = 2**31 - 1  # bytes at the heap's end that are kept
LARGEST = 2**25  # bytes of a block that lies in the heap: what malloc itself comes to; older versions refuse more


def keep_freed_memory() -> bool:
    """Let this process keep what it frees. False if its C library is not GNU's, or the user chose otherwise."""
    if any(choice in os.environ for choice in CHOICES):
        return False
    with contextlib.suppress(OSError, AttributeError):
        set_option = ctypes.CDLL("libc.so.6").mallopt
        # Either ends malloc's own choice of both, so what lies in the heap comes first.
        return bool(set_option(MMAP_THRESHOLD, LARGEST) and set_option(TRIM_THRESHOLD, KEPT))
    return False

"""Keep the memory of freed tensors for the next ones. By itself a CPU's step gives it back and takes it again.

torch takes and frees a CPU's tensors one by one, by `malloc`. GNU's returns to the system what is free at the heap's
end, and every block above 32 MB, so the next tensors get it anew, page by page, filled with zeros by the kernel:
thousands of page faults a step. What is kept here was needed at the step's peak, so the peak hardly grows. No result
depends on it.
"""

import contextlib
import ctypes
import os

CHOICES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")  # a user who sets one has chosen
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of mallopt(3)
KEPT, LARGEST = 2**31 - 1, 2**30  # bytes at the heap's end that are kept, and of the largest block that lies in it


def keep_freed_memory() -> bool:
    """Let this process keep what it frees. False if its C library is not GNU's, or the user chose otherwise."""
    if any(choice in os.environ for choice in CHOICES):
        return False
    with contextlib.suppress(OSError, AttributeError):
        set_option = ctypes.CDLL("libc.so.6").mallopt
        return bool(set_option(TRIM_THRESHOLD, KEPT) and set_option(MMAP_THRESHOLD, LARGEST))
    return False

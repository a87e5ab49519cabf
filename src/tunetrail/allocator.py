"""Let the C library keep memory that a training frees and takes again in every step."""

from __future__ import annotations

import ctypes

# Numbers of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def keep_freed_memory() -> None:
    """Keep freed memory for the rest of this process, where the C library is glibc.

    It gives large blocks back at once, and the system clears every page of them when they are taken
    again: gradients and activations, in every step. Peak memory stays about the same; ``python -m
    benchmarks.allocator`` measures both.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library
        return
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, 2**31 - 1)

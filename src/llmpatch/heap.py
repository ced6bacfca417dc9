"""Memory that a training step frees stays with the process, for the next step to use.

    keep_pages()

glibc takes blocks of megabytes from the system one by one and gives them back when they are freed: each step of training then
waits for tens of thousands of new pages, cleared one by one. The peak of the official recipe's steps did not grow by it.
"""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h


def keep_pages() -> None:
    """From now on this process gives no freed memory back. Only on Linux with glibc; elsewhere nothing is done."""
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, -1)  # never

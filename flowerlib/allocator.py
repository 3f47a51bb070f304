"""How a process that computes networks on the CPU keeps its memory.

A step frees and allocates hundreds of megabytes of activations. By default glibc returns large blocks to the system,
and every page of the next ones is mapped and zeroed anew. With these environment variables it keeps them. They take
effect when a process starts. A Jupyter kernel that the user starts is left alone: it should return what it frees. C
libraries other than glibc ignore them.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

ALLOCATOR_ENVIRONMENT = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1)}


def restart_with_allocator() -> None:
    """Begin this command line anew, in the same process, unless it was begun with the variables."""
    if sys.platform == "linux" and not ALLOCATOR_ENVIRONMENT.items() <= os.environ.items():
        with suppress(OSError):  # it is only slower without
            os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | ALLOCATOR_ENVIRONMENT)

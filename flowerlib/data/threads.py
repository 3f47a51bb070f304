"""`in_threads`: map a function over items in threads, ahead of time and in order."""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item, Result = TypeVar("Item"), TypeVar("Result")

WORKERS = min(8, os.cpu_count() or 1)


def in_threads(function: Callable[[Item], Result], items: Iterable[Item], workers: int = WORKERS) -> Iterator[Result]:
    """Yield ``function(item)`` for each item, in order; a few results are computed before they are asked for.

    Threads, not processes: Pillow, OpenCV and numpy release Python's lock while they work, and threads start at
    once, in a notebook and on any system. Few results wait at a time, so that memory stays bounded.
    """
    pool = ThreadPoolExecutor(workers, initializer=_lower_priority)
    rest = iter(items)
    try:
        waiting = deque(pool.submit(function, item) for item in islice(rest, 2 * workers))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(function, item) for item in islice(rest, 1))
            yield result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)  # an interrupt waits only for the items in progress


def _lower_priority() -> None:
    """Use a core only when nothing else needs it.

    The network's threads wait for each other at the end of every operation: taking one of their cores for a
    millisecond holds them all up.
    """
    if sys.platform == "linux":  # elsewhere a priority belongs to a whole process
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)

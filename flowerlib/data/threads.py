"""`in_threads`: map a function over items in threads, made ahead, results in order."""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item, Made = TypeVar("Item"), TypeVar("Made")

WORKERS = min(8, os.cpu_count() or 1)


def in_threads(make: Callable[[Item], Made], items: Iterable[Item], workers: int = WORKERS) -> Iterator[Made]:
    """Yield ``make(item)`` for each item, in order; a few are made before they are asked for.

    Threads, not processes: Pillow, OpenCV and numpy let go of Python's lock where they work, and threads start
    at once in a notebook on any system. What is made ahead is bounded, so that memory is.
    """
    pool = ThreadPoolExecutor(workers, initializer=_let_others_go_first)
    rest = iter(items)
    try:
        waiting = deque(pool.submit(make, item) for item in islice(rest, 2 * workers))
        while waiting:
            made = waiting.popleft().result()
            waiting.extend(pool.submit(make, item) for item in islice(rest, 1))
            yield made
    finally:
        pool.shutdown(wait=True, cancel_futures=True)  # an interrupt ends with the items in hand


def _let_others_go_first() -> None:
    """Take a core only when nobody else wants it.

    The network's threads wait for each other at the end of every operation: whoever takes one of their cores
    for a millisecond holds up all of them.
    """
    if sys.platform == "linux":  # elsewhere priorities belong to whole processes
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)

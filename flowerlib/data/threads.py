"""`in_threads`: map a function over items in threads, some items ahead, with the results in order."""

from __future__ import annotations

import math
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TypeVar

Item, Result = TypeVar("Item"), TypeVar("Result")

CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")  # of a container, or of a batch system's job: control groups, version 2
LOWEST_PRIORITY = 19


def usable_cores() -> int:
    """How many cores this process may use.

    Fewer than the machine has under an affinity, a container's limit, or OMP_NUM_THREADS, by which sessions that run
    at the same time, and batch systems, share them.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if (share := os.environ.get("OMP_NUM_THREADS", "")).isdecimal():
        cores = max(1, min(cores, int(share)))
    try:
        quota, period = CPU_LIMIT.read_text(encoding="ascii").split()
        return max(1, min(cores, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # there is no such file, or no limit: the quota is then "max"
        return cores


WORKERS = min(8, usable_cores())


def in_threads(
    function: Callable[[Item], Result], items: Iterable[Item], *, give_way: bool = False
) -> Iterator[Result]:
    """Yield ``function(item)`` for each item, in order; a few are computed before they are asked for.

    Threads rather than processes: Pillow, OpenCV and NumPy release Python's lock while they work, and threads start
    at once, in a notebook as well, on every system. The number of results computed ahead is bounded, and with it
    the memory they take.

    Args:
        function: what to compute.
        items: its arguments.
        give_way: run at the lowest priority, beside a network that computes on the same cores. Its threads wait for
            each other at the end of every operation, so that a loading thread that takes one of their cores for a
            millisecond holds up all of them.
    """
    pool = ThreadPoolExecutor(WORKERS, initializer=_lower_priority if give_way else None)
    rest = iter(items)
    try:
        waiting = deque(pool.submit(function, item) for item in islice(rest, 2 * WORKERS))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(function, item) for item in islice(rest, 1))
            yield result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)  # after an interrupt, only the items in hand are finished


def _lower_priority() -> None:
    if sys.platform == "linux":  # elsewhere a priority belongs to a whole process
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST_PRIORITY)

"""Threads of the Numba backend: a kernel's work is cut into calls that are short enough for Ctrl-C, and shared out."""

from __future__ import annotations

import math
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import numba
import numpy as np

BLOCK_ROWS = 128  # samples that go through the network together: their units stay in the cache
CALL_SECONDS = 0.05  # compiled code cannot be interrupted: Ctrl-C waits for one call of this length
PRODUCTS_PER_SECOND = 1e10  # multiply-adds of one thread, roughly: the first guess of what such a call holds
UNIT_PRODUCTS = 50  # multiply-adds that take as long as one unit's activation, roughly

_most_threads: int = vars(numba.config)["NUMBA_NUM_THREADS"]
_num_threads = _most_threads
_one_call = threading.Lock()  # Numba's "workqueue" threads end the process when two calls meet


def get_num_threads() -> int:
    return _num_threads


def set_num_threads(count: int) -> None:
    global _num_threads
    _num_threads = min(count, _most_threads)


def _after_fork() -> None:
    """Keep to one thread: others do not survive a fork, and Numba's OpenMP layer ends a child that asks."""
    global _most_threads, _num_threads
    _most_threads = _num_threads = 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def share(one: Any, parts: Any, job: Any, size: int, products: float, multiple: int) -> None:
    """Run the kernel ``one(begin, end, job)`` on all of ``range(size)``, shared out by the kernel `parts`.

    Where that is None, threads of Python's share it out. One element takes about `products` multiply-adds; cuts are at
    multiples of `multiple`.
    """
    threads, done = _num_threads, 0
    elements = int(CALL_SECONDS * PRODUCTS_PER_SECOND / (products + 1)) * threads
    while done < size:
        groups = max(elements // (multiple * threads), 1) * threads
        groups = min(groups, math.ceil((size - done) / multiple))
        blocks = threads * math.ceil(groups * multiple / (threads * BLOCK_ROWS))
        bounds = done + multiple * (groups * np.arange(blocks + 1, dtype=np.int64) // blocks)
        bounds = np.minimum(bounds, size)
        started = time.perf_counter()
        if threads == 1:  # Numba's threads are not even started
            for part in range(blocks):
                one(bounds[part], bounds[part + 1], job)
        elif parts is None:
            _in_python_threads(one, bounds, job, threads)
        else:
            with _one_call:
                before = numba.get_num_threads()  # belongs to the calling thread, ours to the process
                numba.set_num_threads(threads)
                try:
                    parts(bounds, job)
                finally:
                    numba.set_num_threads(before)
        done += groups * multiple
        seconds = max(time.perf_counter() - started, 1e-9)
        elements = int(groups * multiple * min(max(CALL_SECONDS / seconds, 0.5), 2.0))


_pool: ThreadPoolExecutor | None = None


def _in_python_threads(one: Any, bounds: Any, job: Any, threads: int) -> None:
    """Run ``one(begin, end, job)`` between all bounds, in threads of Python's, which a kernel without the GIL allows.

    A kernel of many arrays takes as long again to compile for Numba's threads as for one.
    """
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(_most_threads - 1, "fastnet")

    def work(thread: int) -> None:
        for part in range(thread, len(bounds) - 1, threads):
            one(bounds[part], bounds[part + 1], job)

    others = [_pool.submit(work, thread) for thread in range(1, threads)]
    try:
        work(0)
    finally:
        wait(others)
    for other in others:
        other.result()

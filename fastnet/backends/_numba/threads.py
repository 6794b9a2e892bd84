"""Threads of the Numba backend: a kernel's work is cut into calls that are short enough for Ctrl-C, and shared out."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Any

import numba
import numpy as np

BLOCK_ROWS = 128  # samples that go through the network together: their units stay in the cache
CALL_SECONDS = 0.05  # compiled code cannot be interrupted: Ctrl-C waits for one call of this length
PRODUCTS_PER_SECOND = 1e10  # multiply-adds of one thread, roughly: the first guess of what such a call holds
SHORT_PRODUCTS = 4e5  # work that is done before another thread has begun
UNIT_PRODUCTS = 50  # multiply-adds that take as long as one unit's activation, roughly

_most_threads: int = vars(numba.config)["NUMBA_NUM_THREADS"]
_num_threads = _most_threads


def get_num_threads() -> int:
    return _num_threads


def set_num_threads(count: int) -> None:
    global _num_threads
    _num_threads = min(count, _most_threads)


def _after_fork() -> None:
    """Keep to one thread: others do not survive a fork."""
    global _most_threads, _num_threads
    _most_threads = _num_threads = 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def share(kernel: Any, job: Any, size: int, products: float, multiple: int = 1) -> None:
    """Run ``kernel(begin, end, job)`` on all of ``range(size)``, in threads, which a kernel without the GIL allows.

    One element takes about `products` multiply-adds; cuts are at multiples of `multiple`.

    The threads are Python's: for Numba's, a kernel of many arrays takes as long again to compile, and OpenMP's wait for
    each other without a pause, for milliseconds where other processes have the processors.
    """
    threads, done = 1 if products * size < SHORT_PRODUCTS else _num_threads, 0
    elements = int(CALL_SECONDS * PRODUCTS_PER_SECOND / (products + 1)) * threads
    while done < size:
        groups = max(elements // (multiple * threads), 1) * threads
        groups = min(groups, math.ceil((size - done) / multiple))
        blocks = threads * math.ceil(groups * multiple / (threads * BLOCK_ROWS))
        bounds = done + multiple * (groups * np.arange(blocks + 1, dtype=np.int64) // blocks)
        bounds = np.minimum(bounds, size)
        started = time.perf_counter()
        if threads == 1:
            for part in range(blocks):
                kernel(bounds[part], bounds[part + 1], job)
        else:
            _in_threads(kernel, bounds, job, threads)
        done += groups * multiple
        seconds = max(time.perf_counter() - started, 1e-9)
        elements = int(groups * multiple * min(max(CALL_SECONDS / seconds, 0.5), 2.0))


_tasks: SimpleQueue[Callable[[], None]] = SimpleQueue()
_helpers: list[threading.Thread] = []


def _help() -> None:
    while True:
        _tasks.get()()


def _in_threads(kernel: Any, bounds: Any, job: Any, threads: int) -> None:
    """Run ``kernel(begin, end, job)`` between all bounds.

    Whoever is ready takes the next part, since another thread may begin late: after some 50 microseconds, or when other
    processes let it. An executor of `concurrent.futures` would take three times as long, which short kernels feel.
    """
    parts, errors = iter(range(len(bounds) - 1)), []

    def work() -> None:
        for part in parts:
            kernel(bounds[part], bounds[part + 1], job)

    def help_until(done: threading.Lock) -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)
        finally:
            done.release()

    while len(_helpers) < threads - 1:
        _helpers.append(threading.Thread(target=_help, name="fastnet", daemon=True))
        _helpers[-1].start()
    dones = []
    try:
        for _ in range(1, threads):
            dones.append(threading.Lock())
            dones[-1].acquire()
            _tasks.put(partial(help_until, dones[-1]))
        work()
    finally:
        for _ in parts:  # after Ctrl-C nobody begins another one
            pass
        for done in dones:
            done.acquire()
    if errors:
        raise errors[0]

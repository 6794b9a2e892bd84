"""Threads: a kernel's work is cut into calls short enough for Ctrl-C, which a pool of Python threads shares.

``cpp/core/pool.hpp`` is the pool of the C++ backend. Both let whoever is ready take the next part of the work, since a
thread may begin late on a busy machine. That pool's caller does not wait for a thread that has not come; here it waits
for each, although a late one finds no part left.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from queue import SimpleQueue
from typing import Any

import numba
import numpy as np

from fastnet._tools.interrupts import HeldInterrupts
from fastnet.backends import thread_limit
from fastnet.backends._numba.compiling import NotCompiled, leave_to_others

BLOCK_ROWS = 128  # Rows that go through the network together, so that their units stay in the cache.
CALL_SECONDS = 0.05  # Compiled code cannot be interrupted: Ctrl-C waits for a call of about this length.
PRODUCTS_PER_SECOND = 1e10  # A rough guess for one thread, from which the size of the first call follows.
SHORT_PRODUCTS = 4e5  # Less work than this is done before another thread has begun.
UNIT_PRODUCTS = 50  # An activation takes about as long as so many multiply-adds.


_most_threads: int = vars(numba.config)["NUMBA_NUM_THREADS"]
_by_default = thread_limit.from_openmp() or _most_threads
thread_limit.follow_threadpoolctl()


def get_num_threads() -> int:
    return min(thread_limit.wanted() or _by_default, _most_threads)


def set_num_threads(count: int) -> None:
    thread_limit.want(count)


def _after_fork() -> None:
    """Use one thread in a forked child: others do not survive the fork."""
    global _most_threads
    _most_threads = 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def share(kernel: Any, arguments: tuple[Any, ...], size: int, products: float, multiple: int = 1) -> None:
    """Run ``kernel(begin, end, *arguments)`` over all of ``range(size)`` on several threads.

    Kernels release the GIL, so Python threads suffice. Numba's own parallel loops would double the time to compile a
    kernel with many arrays. OpenMP's threads would spin while they wait for each other: for milliseconds where other
    processes hold the processors.

    Parameters
    ----------
    kernel : callable
        Compiled by `jit`; calls with disjoint ranges must not depend on each other.
    arguments : tuple
        What every call gets.
    size : int
    products : float
        Roughly the number of multiply-adds for one element of the range.
    multiple : int
        Ranges begin at multiples of this.
    """
    threads, done = 1 if products * size < SHORT_PRODUCTS else get_num_threads(), 0
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
                kernel(bounds[part], bounds[part + 1], *arguments)
        else:
            _in_threads(kernel, arguments, bounds, threads)
        done += groups * multiple
        seconds = max(time.perf_counter() - started, 1e-9)
        elements = int(groups * multiple * min(max(CALL_SECONDS / seconds, 0.5), 2.0))


_tasks: SimpleQueue[Callable[[], None]] = SimpleQueue()
_helpers: list[threading.Thread] = []


def _help() -> None:
    leave_to_others()
    while True:
        _tasks.get()()


def _start_helpers(count: int) -> int:
    """Let there be so many helpers, or as many as the system allows, and return how many there are."""
    while len(_helpers) < count:
        helper = threading.Thread(target=_help, name="fastnet", daemon=True)
        try:
            helper.start()
        except RuntimeError:  # "can't start new thread"
            break
        _helpers.append(helper)
    return len(_helpers)


def _in_threads(kernel: Any, arguments: tuple[Any, ...], bounds: Any, threads: int) -> None:
    """Run ``kernel(begin, end, *arguments)`` between all bounds.

    Whoever is ready takes the next part, since a helper begins late: after some 50 microseconds, or whenever other
    processes let it. An executor of `concurrent.futures` takes three times as long, which matters for short kernels.
    """
    parts = iter(range(len(bounds) - 1))
    left: list[int] = []  # by helpers, for want of a compiled kernel
    errors: list[BaseException] = []

    def work(parts: Iterable[int]) -> None:
        for part in parts:
            kernel(bounds[part], bounds[part + 1], *arguments)

    def help_until(done: threading.Lock) -> None:
        part = 0
        try:
            for part in parts:
                work([part])
        except NotCompiled:
            left.append(part)
        except BaseException as error:
            errors.append(error)
        finally:
            done.release()

    dones: list[threading.Lock] = []
    try:
        with HeldInterrupts():  # Whoever is waited for below has something to do, and is there.
            for _ in range(min(threads - 1, _start_helpers(threads - 1))):
                done = threading.Lock()
                done.acquire()
                _tasks.put(partial(help_until, done))
                dones.append(done)
        work(parts)
    finally:
        for _ in parts:  # After Ctrl-C nobody begins another part.
            pass
        for done in dones:
            done.acquire()
    if errors:
        raise errors[0]
    work(left)

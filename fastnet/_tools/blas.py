"""The threads of NumPy's matrix products, which threadpoolctl can set where it is installed."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
from collections.abc import Iterator
from typing import Any

from fastnet._tools.importing import import_whole
from fastnet._tools.interrupts import HeldInterrupts


@functools.cache
def can_be_limited() -> bool:
    """Whether threadpoolctl is installed."""
    return importlib.util.find_spec("threadpoolctl") is not None


@contextlib.contextmanager
def limited(count: int | None) -> Iterator[None]:
    """Limit NumPy's matrix products to `count` threads within a ``with`` block.

    Nothing is limited if `count` is None or threadpoolctl is not installed.
    """
    if count is None or not can_be_limited():
        yield
        return
    with _pools().limit(limits=count, user_api="blas"):
        yield


@functools.cache
def _pools() -> Any:
    """Return the libraries that are loaded, found once: to look for them takes a millisecond."""
    threadpoolctl = import_whole("threadpoolctl")
    with HeldInterrupts():  # C calls functions of Python to list the libraries.
        controller: Any = threadpoolctl.ThreadpoolController()
    return controller

"""What a part of `python -m tests.stress` is."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

Outcome = tuple[int, list[str]]  # how many were tried, and a line for each that failed


class Part(NamedTuple):
    run: Callable[[int], Outcome]
    count: int  # how many are tried where nothing else is asked for

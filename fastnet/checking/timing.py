"""How methods are timed: in turns, on all entries or on a sample of them."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from fastnet import backends
from fastnet._tools.types import FloatArray, IntArray
from fastnet.backends.spec import Diagnostics
from fastnet.checking.methods import Evaluation, Method, Problem
from fastnet.checking.result import GradientCheck
from fastnet.checking.verdict import (
    Layout,
    SecondOpinion,
    compare,
    default_rtol,
    kinked_entries,
    network_floor,
    rounding_error,
)

BUDGET_SECONDS = 3.0  # a method that needs longer for one gradient is timed on as many entries as fit in
CHUNK_SECONDS = 0.2  # how often a progress bar moves
BLINK_SECONDS = 0.02  # what a measurement takes at least, so that the clock's resolution does not matter
LEAST_OF_ARRAY = 10  # entries of each array in a sample, where it has as many


class Run:
    """One method at work on one problem, its time shared out over several turns.

    Attributes
    ----------
    entries : ndarray of int
        The flat parameter numbers at which it computes: all, or a sample.
    values : ndarray
        The gradient there.
    diagnostics : Diagnostics or None
        What the last call met on its way, if the method tells.
    """

    def __init__(self, method: Method, problem: Problem, layout: Layout, turns: int) -> None:
        self.method = method
        self.problem = problem
        self.layout = layout
        self.turns = turns
        self.backend = backends.active() if method.backend is None else backends.get(method.backend)
        self.diagnostics: Diagnostics | None = None
        self._times: list[float] = []  # of a whole gradient, as every call has it

    def prepare(self, least: int, full: bool) -> None:
        """Have everything compiled, and decide which entries to compute, and in how many calls.

        Those are all if `full`, or if they take no longer than the budget; else a sample of `least` or more.
        """
        size, self._per_entry = self.layout.size, self._try_out()
        seconds = self._per_entry * size
        count = size
        if self.method.by_entry and not full and seconds > BUDGET_SECONDS:
            count = min(size, max(least, int(BUDGET_SECONDS / self._per_entry)))
        self.entries = np.arange(size) if count == size else spread(self.layout.sizes, count)
        self.values = np.empty(len(self.entries))
        # Every turn computes the whole gradient if that is quick, else another part of it.
        self._whole = not self.method.by_entry or (count == size and seconds * self.turns <= BUDGET_SECONDS)
        self._calls = min(100, math.ceil(BLINK_SECONDS / seconds))
        self._slow = seconds > BUDGET_SECONDS

    def _try_out(self) -> float:
        """Return about what an entry takes, once everything is compiled and loaded."""
        size, count = self.layout.size, 1 if self.method.by_entry else self.layout.size
        self._evaluate(np.arange(count))
        while True:
            entries = np.arange(count) * size // count
            seconds = min(self._times_of(entries))
            if seconds >= BLINK_SECONDS or count == size:
                return seconds / count
            count = min(2 * count, size)

    def _times_of(self, entries: IntArray) -> list[float]:
        """Return what a few calls take, one of which may be held up by other programs, or a slow one."""
        times: list[float] = []
        while len(times) < 3 and sum(times) < CHUNK_SECONDS:
            times.append(self._time(entries)[0])
        return times

    def shares(self, turn: int) -> list[IntArray]:
        """Return the calls of a turn: which of `entries` each is for, by position."""
        positions = np.arange(len(self.entries))
        if self._whole:
            return [] if self._slow and turn > 0 else [positions] * self._calls
        part = positions[turn :: self.turns]
        chunks = math.ceil(len(part) * min(1.0, self._per_entry / CHUNK_SECONDS))
        return np.array_split(part, chunks) if chunks else []

    def take_turn(self, turn: int) -> Iterator[None]:
        """Compute and time one share after the other."""
        for share in self.shares(turn):
            asked = self.entries[share]
            seconds, evaluation = self._time(asked)
            self._times.append(seconds / len(share) * self.layout.size)
            self.values[share] = _at(evaluation.values, asked)
            self.diagnostics = evaluation.diagnostics
            yield

    def seconds(self) -> float:
        """Return the time of one whole gradient, the median over all calls."""
        return statistics.median(self._times)

    def check(self, reference: FloatArray) -> GradientCheck:
        """Compare what was computed with `reference`, the whole gradient by flat number."""
        spec, h = self.problem.spec, self.problem.h
        kinked = None if self.diagnostics is None else kinked_entries(spec, self.diagnostics)
        return compare(
            self.layout,
            reference[self.entries],
            self.values,
            h=h,
            rtol=default_rtol(spec.dtype),
            entries=self.entries,
            kinked=None if kinked is None else kinked[self.entries],
            second=SecondOpinion(
                doubled=lambda entries: _at(self._evaluate(entries, 2 * h).values, entries),
                rounding=lambda: rounding_error(spec.dtype, self._loss(), h),
                floor=network_floor(spec.dtype),
            ),
        )

    def _time(self, entries: IntArray) -> tuple[float, Evaluation]:
        start = time.perf_counter()
        evaluation = self._evaluate(entries)
        return max(time.perf_counter() - start, 1e-9), evaluation

    def _evaluate(self, entries: IntArray, h: float | None = None) -> Evaluation:
        problem = self.problem if h is None else replace(self.problem, h=h)
        return self.method.evaluate(self.backend, problem, entries)

    def _loss(self) -> float:
        return self.backend.loss(self.problem.spec, self.problem.x, self.problem.t)


def _at(values: FloatArray | list[FloatArray], entries: IntArray) -> FloatArray:
    if isinstance(values, list):
        return np.concatenate([array.ravel() for array in values])[entries]
    return values


def spread(sizes: Iterable[int], count: int) -> IntArray:
    """Return the flat numbers, ascending, of `count` entries or a few more, each array's share of them.

    An array's entries are cut into equal strips, and one of each is drawn: in step with no row or column.
    """
    sizes = list(sizes)
    rng = np.random.default_rng(0)
    parts, start = [], 0
    for size in sizes:
        share = min(size, max(LEAST_OF_ARRAY, math.ceil(count * size / sum(sizes))))
        strips = np.arange(share + 1) * size // share
        parts.append(start + rng.integers(strips[:-1], strips[1:]))
        start += size
    return np.concatenate(parts)

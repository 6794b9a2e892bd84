"""How methods are timed: in turns, on all entries or on a sample of them."""

from __future__ import annotations

import math
import statistics
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from fastnet import backends
from fastnet._tools import blas
from fastnet._tools.types import FloatArray, IntArray
from fastnet.backends.spec import Diagnostics
from fastnet.checking.methods import Evaluation, Method, Problem
from fastnet.checking.opinions import DoubledStep, rounding_error, rounding_floor
from fastnet.checking.result import GradientCheck
from fastnet.checking.verdict import Comparison, default_rtol, judge
from fastnet.differentiation.layout import Layout

BUDGET_SECONDS = 3.0  # a method that takes longer for one gradient is timed on as many entries as fit in
CHUNK_SECONDS = 0.2  # the time between two movements of a progress bar
BLINK_SECONDS = 0.02  # the shortest measurement, so that the resolution of the clock does not matter
LEAST_TRIALS = 3  # with each number of threads, before one is chosen
LEAST_OF_ARRAY = 10  # entries of each array in a sample, if it has as many


class Task:
    """One method at one problem: what is timed.

    Attributes
    ----------
    method : Method
    problem : Problem
    layout : Layout
        The flat numbers of the problem's parameters.
    blas_threads : int or None
        The threads of NumPy's matrix products, if the method is NumPy's and they can be limited.
    """

    def __init__(self, method: Method, problem: Problem, layout: Layout) -> None:
        self.method, self.problem, self.layout = method, problem, layout
        self._backend = backends.active() if method.backend is None else backends.get(method.backend)
        self.blas_threads = 1 if self._backend.name == "numpy" and blas.can_be_limited() else None

    def evaluate(self, entries: IntArray, h: float | None = None) -> Evaluation:
        """Compute the gradient at these entries, with the problem's step or another one."""
        problem = self.problem if h is None else self.problem.with_step(h)
        return self.method.evaluate(problem, self._backend, entries)

    def time(self, entries: IntArray) -> tuple[float, Evaluation]:
        """Compute the gradient at these entries; return the seconds that it took, too."""
        with blas.limited(self.blas_threads):
            start = time.perf_counter()
            evaluation = self.evaluate(entries)
            return max(time.perf_counter() - start, 1e-9), evaluation

    def loss(self) -> float:
        """Return the loss of the problem."""
        return self.problem.loss(self._backend)

    def seconds_per_entry(self) -> float:
        """Return about how long an entry takes, once everything is compiled and loaded.

        NumPy's matrix products have one thread or as many as fastnet, from then on: whichever is faster.
        """
        size, count = self.layout.size, 1 if self.method.by_entry else self.layout.size
        self.evaluate(np.arange(count))
        while True:
            entries = np.arange(count) * size // count
            seconds = min(self._times(entries))
            if seconds >= BLINK_SECONDS or count == size:
                break
            count = min(2 * count, size)
        if self.blas_threads is not None and (most := backends.get_num_threads()) > 1:
            seconds, self.blas_threads = min(self._times_by_threads((1, most), entries))
        return seconds / count

    def _times_by_threads(self, counts: tuple[int, ...], entries: IntArray) -> list[tuple[float, int]]:
        """Return the shortest time of a few calls with each number of threads, and that number. They take turns."""
        times: defaultdict[int, list[float]] = defaultdict(list)
        while len(times[counts[0]]) < LEAST_TRIALS:
            for self.blas_threads in counts:
                times[self.blas_threads].append(self.time(entries)[0])
        return [(min(times[count]), count) for count in counts]

    def _times(self, entries: IntArray) -> list[float]:
        """Return the times of a few calls, since other programs may delay one; of a slow method, the time of one."""
        times: list[float] = []
        while len(times) < 3 and sum(times) < CHUNK_SECONDS:
            times.append(self.time(entries)[0])
        return times


@dataclass(frozen=True)
class Plan:
    """How the time of a task is shared out over turns.

    Attributes
    ----------
    entries : ndarray of int
        The flat parameter numbers to compute: all, or a sample.
    turns : int
    whole : bool
        Whether a turn computes all of `entries`, and not another part of them each time.
    repeats : int
        How many times such a turn does so.
    slow : bool
        Whether one such turn has to do, since it takes longer than the budget.
    chunks_per_entry : float
        How many calls an entry takes in other turns: less than one for several entries in a call.
    """

    entries: IntArray
    turns: int
    whole: bool
    repeats: int
    slow: bool
    chunks_per_entry: float

    def shares(self, turn: int) -> list[IntArray]:
        """Return the calls of a turn: the positions in `entries` that each computes."""
        positions = np.arange(len(self.entries))
        if self.whole:
            return [positions] * self.repeats if turn == 0 or not self.slow else []
        part = positions[turn :: self.turns]
        chunks = math.ceil(len(part) * self.chunks_per_entry)
        return np.array_split(part, chunks) if chunks else []


def plan(task: Task, turns: int, least: int, full: bool) -> Plan:
    """Have everything compiled, and decide which entries to compute, and in how many calls.

    These are all entries if `full`, or if they take no longer than the budget; otherwise a sample of at least `least`.
    """
    size, per_entry, by_entry = task.layout.size, task.seconds_per_entry(), task.method.by_entry
    seconds = per_entry * size
    count = size
    if by_entry and not full and seconds > BUDGET_SECONDS:
        count = min(size, max(least, int(BUDGET_SECONDS / per_entry)))
    return Plan(
        entries=np.arange(size) if count == size else spread(task.layout.sizes, count),
        turns=turns,
        whole=not by_entry or (count == size and seconds * turns <= BUDGET_SECONDS),
        repeats=min(100, math.ceil(BLINK_SECONDS / seconds)),
        slow=seconds > BUDGET_SECONDS,
        chunks_per_entry=min(1.0, per_entry / CHUNK_SECONDS),
    )


class Run:
    """A task at work, turn after turn.

    Attributes
    ----------
    task : Task
    plan : Plan
    values : ndarray
        The gradient at the plan's entries.
    diagnostics : Diagnostics or None
        What the last call reported, if the method reports something.
    """

    def __init__(self, task: Task, plan: Plan) -> None:
        self.task, self.plan = task, plan
        self.values = np.empty(len(plan.entries))
        self.diagnostics: Diagnostics | None = None
        self._times: defaultdict[int, list[float]] = defaultdict(list)  # by turn: of a whole gradient, from each call

    def take_turn(self, turn: int) -> Iterator[None]:
        """Compute and time one share after the other."""
        for share in self.plan.shares(turn):
            asked = self.plan.entries[share]
            seconds, evaluation = self.task.time(asked)
            self._times[turn].append(seconds / len(share) * self.task.layout.size)
            self.values[share] = self._at(evaluation, asked)
            self.diagnostics = evaluation.diagnostics
            yield

    def turns(self) -> tuple[float, ...]:
        """Return the time of one whole gradient in each turn, the median over the turn's calls."""
        return tuple(statistics.median(times) for times in self._times.values())

    def check(self, reference: FloatArray) -> GradientCheck:
        """Compare what was computed with `reference`, the whole gradient by flat number."""
        problem, entries = self.task.problem, self.plan.entries
        dtype, h = problem.dtype, problem.h
        second = DoubledStep(
            doubled=lambda entries: self._at(self.task.evaluate(entries, 2 * h), entries),
            rounding=lambda: rounding_error(dtype, self.task.loss(), h),
            floor=rounding_floor(dtype),
            kinked=problem.kinked(self.diagnostics),
        )
        rtol = default_rtol(dtype)
        return judge(Comparison(self.task.layout, reference[entries], self.values, h, rtol, entries=entries), second)

    def _at(self, evaluation: Evaluation, entries: IntArray) -> FloatArray:
        """Return the derivatives at these entries, of which the method may have computed more."""
        return self.task.problem.flat(evaluation, entries)


def spread(sizes: Iterable[int], count: int) -> IntArray:
    """Return the flat numbers, ascending, of `count` entries or a few more, drawn from all arrays in proportion.

    The entries of an array are cut into equal strips, and one entry is drawn from each: no row or column recurs.
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

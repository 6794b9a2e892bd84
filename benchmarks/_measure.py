"""How the benchmarks measure: several ways to do one thing take turns in one process, with the same number of threads.

Absolute times drift with the processor's clock and with the load of the machine. The sides of a comparison therefore
take turns (A B A B …), so that a slow second hits all of them. A figure is the ratio of the medians. The interquartile
range of the ratios of single turns stands in brackets and shows how steady the figure is.

Between turns there is a pause. The threads of OpenBLAS, OpenMP and Numba do not sleep after a call: they spin and wait
for the next one (those of OpenBLAS for about 90 ms, without yielding). With two cores, this takes a core from the side
that is measured next. After the pause, some calls that are not timed wake the side's own threads and caches.

A peer whose small products are slower on several threads than on one is measured on both numbers, and the better one
counts. No ratio is better than that of the fastest turns: other programs only ever add to a time.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib.metadata
import itertools
import math
import os
import platform
import re
import statistics
import sys
import time
import timeit
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import threadpoolctl

import fastnet
from fastnet import datasets
from fastnet._tools.text import format_seconds, three_digits
from fastnet.backends.spec import Activation, NetworkSpec
from fastnet.checking.timing import spread
from fastnet.checking.turns import MOST_DIFFERENCE, difference, times_faster
from fastnet.networks.chain import as_chain

PAUSE_SECONDS = 0.2  # longer than any library's threads spin
WAKE_SECONDS = 0.002  # length of the calls that come before a sample and are not timed
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
MOST_THREADS = min(2, CORES)
THREAD_COUNTS = tuple(range(1, MOST_THREADS + 1))

FloatArray = npt.NDArray[np.floating[Any]]
IntArray = npt.NDArray[np.int64]
Answer = FloatArray | list[FloatArray]  # an array, or a gradient array by array


def spec_of(net: object) -> NetworkSpec:
    """Return a network as the backends take it."""
    return as_chain(net).spec


class WrongAnswerError(RuntimeError):
    """Two ways to compute the same thing disagree, so their times mean nothing."""


# Timing ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Effort:
    """How much to measure.

    Attributes
    ----------
    rounds : int
        Turns of each side, at least three; fewer if they would exceed `budget`.
    sample_seconds : float
        Least length of a turn, in seconds: short calls are repeated.
    budget : float
        Seconds for one comparison.
    loop_entries : int
        Number of parameters for which the textbook's loop is timed.
    deep_batch : int
        Batch size for the deep network.
    batches : tuple of int
        Batch sizes for which the cost of a perturbed sample should be the same.
    thread_counts : tuple of int
        Numbers of threads that are compared with peers.
    """

    rounds: int = 15
    sample_seconds: float = 0.02
    budget: float = 20.0
    loop_entries: int = 1000
    deep_batch: int = 100
    batches: tuple[int, ...] = (10, 100, 1000, 10_000)
    thread_counts: tuple[int, ...] = THREAD_COUNTS


FULL = Effort()
QUICK = Effort(3, 0.005, 0.0, 50, 2, (10, 100, 1000), THREAD_COUNTS[-1:])


class Side(NamedTuple):
    """One side of a comparison.

    Attributes
    ----------
    call : callable
    threads : int, optional
        Threads for this side's turns; by default those of the caller.
    scale : float
        Factor by which the time of `call` is multiplied: a call may do only a part of the work, or other flops.
    peer : bool
        Whether it has turns on one thread, too, and the better number counts.
    """

    call: Callable[[], object]
    threads: int | None = None
    scale: float = 1.0
    peer: bool = False


def peer(call: Callable[[], object], threads: int | None = None, scale: float = 1.0) -> Side:
    """Return a side on the best of one thread and as many as asked for; by default those of the caller."""
    return Side(call, threads, scale, peer=True)


class Timing(NamedTuple):
    """Seconds per call, turn by turn, scaled up.

    Attributes
    ----------
    seconds : tuple of float
    scaled : bool
    threads : int, optional
        On how many threads a peer is fastest.
    """

    seconds: tuple[float, ...]
    scaled: bool = False
    threads: int | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def __str__(self) -> str:
        return format_seconds(self.median) + "*" * self.scaled + (f", {on(self.threads)}" if self.threads else "")


@functools.cache
def _pools() -> threadpoolctl.ThreadpoolController:
    fastnet.get_num_threads()  # loads what there is to control
    return threadpoolctl.ThreadpoolController()


@contextlib.contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Make fastnet, NumPy's BLAS, OpenMP and PyTorch, if it is loaded, use `count` threads within a ``with`` block."""
    if count is None:
        yield
        return
    before, torch = fastnet.get_num_threads(), sys.modules.get("torch")
    with _pools().limit(limits=count):
        fastnet.set_num_threads(count)
        if torch is not None:
            torch.set_num_threads(count)
        try:
            yield
        finally:
            fastnet.set_num_threads(before)
            if torch is not None:
                torch.set_num_threads(before)


def interleave(effort: Effort, *sides: Side | Callable[[], object]) -> list[Timing]:
    """Time the sides in turn, after a first call of each that compiles and loads what it needs."""
    given = [side if isinstance(side, Side) else Side(side) for side in sides]
    runs = [run for side in given for run in _runs(side)]
    expected = [_warm_up(run) for run in runs]
    turns = [max(seconds, effort.sample_seconds) + PAUSE_SECONDS for seconds in expected]
    rounds = max(3, min(effort.rounds, int(effort.budget / sum(turns))))
    samples: list[list[float]] = [[] for _ in runs]
    for _ in range(rounds):
        for run, seconds, sample in zip(runs, expected, samples, strict=True):
            sample.append(_sample(run, seconds, effort.sample_seconds) * run.scale)
    timings = [Timing(tuple(sample), run.scale > 1) for run, sample in zip(runs, samples, strict=True)]
    return [_best(side, timings) for side in given]


def _runs(side: Side) -> list[Side]:
    """Return the sides that take turns for it: a peer's, on one thread and on as many as it may have."""
    counts = sorted({1, side.threads or fastnet.get_num_threads()}) if side.peer else [side.threads]
    return [side._replace(threads=count) for count in counts]


def _best(side: Side, timings: list[Timing]) -> Timing:
    """Take the timings of `_runs` off the list, and return the best of them."""
    counts = [run.threads for run in _runs(side)]
    own = [timings.pop(0) for _ in counts]
    if not side.peer:
        return own[0]
    best = min(range(len(own)), key=lambda number: own[number].median)
    return own[best]._replace(threads=counts[best])


def _warm_up(side: Side) -> float:
    """Return the shortest time of a few calls, in seconds."""
    with threads(side.threads):
        side.call()
        seconds = timeit.timeit(side.call, number=1)
        return min(seconds, *timeit.repeat(side.call, number=1, repeat=5)) if seconds < 0.1 else seconds


def _sample(side: Side, expected: float, least: float) -> float:
    time.sleep(PAUSE_SECONDS)
    with threads(side.threads):
        if expected < 50 * WAKE_SECONDS:
            timeit.timeit(side.call, number=math.ceil(WAKE_SECONDS / expected))
        number = math.ceil(least / expected)
        return timeit.timeit(side.call, number=number) / number


# What is measured on --------------------------------------------------------------------------------------


@functools.cache
def _digits() -> tuple[FloatArray, IntArray, str]:
    if datasets.find_mnist() is None:
        x, t = datasets.make_digits(max(FULL.batches), seed=0)
        return x, t, "drawn digits (`make_digits`), because MNIST was not found"
    (x, t), _ = datasets.load_mnist()
    return x, t, "MNIST"


def digits(count: int, dtype: npt.DTypeLike = np.float64, first: int = 0) -> tuple[FloatArray, IntArray]:
    """Return x (count, 784), from 0 to 1, and labels t (count,): MNIST, or drawn digits if it is not found."""
    x, t, _ = _digits()
    rows = slice(first, first + count)
    return np.ascontiguousarray(x[rows], dtype), np.ascontiguousarray(t[rows], np.int64)


def deep_network(seed: int = 0) -> NetworkSpec:
    """Return a 784-[100]×6-10 sigmoid chain, with weights drawn from N(0, 1/inputs) so that the signal gets through."""
    rng = np.random.default_rng(seed)
    units = [784, *[100] * 6, 10]
    shapes = list(itertools.pairwise(units))
    return NetworkSpec.chain(
        weights=tuple(rng.standard_normal(shape) / math.sqrt(shape[0]) for shape in shapes),
        biases=tuple(0.1 * rng.standard_normal(outputs) for _, outputs in shapes),
        activations=(*[Activation.SIGMOID] * 6, Activation.IDENTITY),
    )


def sample_of(spec: NetworkSpec, count: int) -> tuple[IntArray, float]:
    """Return `count` flat parameter numbers, spread over all arrays, and the factor from this sample to all of them."""
    sizes = [parameter.size for parameter in spec.parameters]
    entries = spread(sizes, count)
    return entries, sum(sizes) / len(entries)


def flat(answer: Answer) -> FloatArray:
    """Return a gradient as one flat array. This is for comparisons and is never timed."""
    return np.concatenate([array.ravel() for array in answer]) if isinstance(answer, list) else answer


def error(ours: Answer, theirs: Answer) -> float:
    """Return the largest difference, relative to the largest entry of `theirs`."""
    a, b = flat(ours).astype(np.float64), flat(theirs).astype(np.float64)
    return float(np.abs(a - b).max() / np.abs(b).max())


def check(what: str, ours: Answer, theirs: Answer, tolerance: float) -> None:
    """Raise `WrongAnswerError` unless the `error` is within the tolerance."""
    if not error(ours, theirs) <= tolerance:
        raise WrongAnswerError(
            f"{what}: off by {error(ours, theirs):.1e} of the largest entry; {tolerance:.0e} is expected"
        )


# The tables ----------------------------------------------------------------------------------------------


class Row(NamedTuple):
    """A line of a table.

    Attributes
    ----------
    what, ours, theirs, ratio, target : str
        The cells.
    passed : bool or None
        Whether the target was met; None if there is none or nothing could be measured.
    value : float or None
        The ratio as a number.
    steady : bool
        Whether half of the single turns lie within 25 % of the ratio, and no side's turns differ by more than 2×.
    data : dict of str to object
        What pictures and other tables are made of, in types that JSON has.
    """

    what: str
    ours: str
    theirs: str = ""
    ratio: str = ""
    target: str = ""
    passed: bool | None = None
    value: float | None = None
    steady: bool = True
    data: Mapping[str, Any] = MappingProxyType({})


def faster(what: str, ours: Timing, theirs: Timing, at_least: float | None = None) -> Row:
    """Compare two times; the ratio is theirs over ours, but never above what the fastest turns support."""
    ratio = times_faster(theirs.seconds, ours.seconds)
    target = "" if at_least is None else f"≥ {at_least:,g}×"
    passed = None if at_least is None else ratio >= at_least
    return Row(what, str(ours), str(theirs), *_ratio(ratio, theirs, ours, target, passed))


def slower(what: str, ours: Timing, theirs: Timing, at_most: float | None = None) -> Row:
    """Compare two times; the ratio is ours over theirs, but never below that of the fastest turns."""
    ratio = 1 / times_faster(theirs.seconds, ours.seconds)
    target = "" if at_most is None else f"≤ {at_most:,g}×"
    passed = None if at_most is None else ratio <= at_most
    return Row(what, str(ours), str(theirs), *_ratio(ratio, ours, theirs, target, passed))


def accurate(what: str, error: float, at_most: float | None) -> Row:
    """Compare an error with its limit, if there is one."""
    if at_most is None:
        return Row(what, power_of_ten(error))
    return Row(what, power_of_ten(error), "", "", f"≤ {power_of_ten(at_most)}", error <= at_most)


def power_of_ten(value: float) -> str:
    """Write a small number as in ``3.2e-9``."""
    return np.format_float_scientific(value, precision=1, trim="-", exp_digits=1).replace(".e", "e")


def on(count: int) -> str:
    """Write a number of threads."""
    return f"{count} thread{'' if count == 1 else 's'}"


def skipped(what: str, why: str) -> Row:
    """Make the row of something that was not measured."""
    return Row(what, "skipped", why)


MOST_MOVE = 0.25  # by which a ratio may move before it is called unsteady


def _ratio(
    ratio: float, over: Timing, under: Timing, target: str, passed: bool | None
) -> tuple[str, str, bool | None, float, bool]:
    """Return the last fields of a row: the ratio in words, the target, whether it is met, the ratio, its steadiness."""
    singles = [a / b for a, b in zip(over.seconds, under.seconds, strict=True)]
    low, _, high = statistics.quantiles(singles, n=4, method="inclusive")
    steady = (1 - MOST_MOVE) * ratio <= low <= high <= (1 + MOST_MOVE) * ratio
    steady &= max(difference(over.seconds), difference(under.seconds)) <= MOST_DIFFERENCE
    return f"{three_digits(ratio)}× ({three_digits(low)} to {three_digits(high)})", target, passed, ratio, steady


def moved(rows: Iterable[Row], before: Mapping[str, float]) -> list[Row]:
    """Mark as unsteady the rows whose ratio differs from that of the run before by more than 25 %."""
    marked = []
    for row in rows:
        last = before.get(row.what)
        if row.value and last and not 1 / (1 + MOST_MOVE) <= row.value / last <= 1 + MOST_MOVE:
            row = row._replace(steady=False)
        marked.append(row)
    return marked


def table(rows: Iterable[Row]) -> str:
    """Write the rows as a table in Markdown."""
    met = {True: "yes", False: "**no**", None: ""}
    head = ["what", "ours", "theirs", "ratio", "target", "met"]
    unsteady = {True: "", False: " unsteady"}
    return grid(
        head,
        ([*row[:3], row.ratio + unsteady[row.steady], row.target, met[row.passed]] for row in rows),
    )


def grid(head: list[str], lines: Iterable[list[str]]) -> str:
    """Write cells as a table in Markdown, in columns of even width."""
    cells = [head, *lines]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * width for width in widths])
    texts = (" | ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)) for line in cells)
    return "\n".join(f"| {text} |" for text in texts)


def verdict(rows: Iterable[Row]) -> str:
    """Say how many targets were met, and list the others."""
    promised = [row for row in rows if row.passed is not None]
    missed = [f"- {row.what}: {row.ratio or row.ours}, target {row.target}" for row in promised if not row.passed]
    return "\n".join([f"{len(promised) - len(missed)} of {len(promised)} targets met.", *missed])


def environment() -> str:
    """Describe the machine, the versions and the data."""
    info = fastnet.build_info()
    blas = [pool for pool in _pools().info() if pool["user_api"] == "blas"]
    libraries = [
        f"NumPy {np.__version__}",
        *(f"{pool['internal_api']} {pool['version']} ({pool['architecture']})" for pool in blas),
        f"Numba {importlib.metadata.version('numba')}",
    ]
    lines = [
        f"processor: {_processor()}, {CORES} core{'' if CORES == 1 else 's'}, {platform.system()}; "
        f"load average at the start: {_load()}",
        f"fastnet {info['version']}, backend {info['backend']}: {info['isa']}, {info['compiler']}, {info['threading']}",
        f"Python {platform.python_version()}, {', '.join(libraries)}",
        f"{on(MOST_THREADS)} on every side, unless a line says otherwise",
        f"data: {_digits()[2]}",
    ]
    return "\n".join(f"- {line}" for line in lines)


def machine() -> str:
    """Name the machine, as far as it decides how fast something is: processor, cores and what fastnet uses of it."""
    return f"{_processor()}, {CORES}, {fastnet.build_info()['isa']}"


def _processor() -> str:
    """Name the processor, with its family where Linux tells: a virtual machine may hide its model's name."""
    with contextlib.suppress(OSError):
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")[0]
        fields = dict(re.findall(r"^(.*\S)\s*: (.*)$", first, re.MULTILINE))
        if {"model name", "cpu family", "model"} <= fields.keys():
            return f"{fields['model name']} (family {fields['cpu family']}, model {fields['model']})"
        if "model name" in fields:
            return fields["model name"]
    return platform.processor() or platform.machine()


def _load() -> str:
    if not hasattr(os, "getloadavg"):
        return "unknown"
    load = os.getloadavg()[0]
    return f"{load:.1f}" + (" (**busy: figures with several threads are not reliable**)" if load > 0.5 * CORES else "")


NOTES = """\
Times are medians of turns taken in one process. They drift from run to run; their ratios do not. With a target ≥ the
ratio is theirs over ours, with a target ≤ it is ours over theirs. No ratio is better than that of the fastest turns.
The interquartile range of the ratios of single turns is in brackets; a ratio is marked unsteady where that range, or
the last run on the same machine, is more than 25 % away, or the turns of a side differ by more than 2×. A peer with a
number of threads beside its time was measured on one thread and on all; these are the better ones. * marks a time that
was measured on a part of the work and scaled up."""


def measure(rows: Callable[[Effort], Iterator[Row]], effort: Effort) -> list[Row]:
    """Measure all rows of a benchmark with `MOST_THREADS` threads and report each on stderr."""
    done = []
    with threads(MOST_THREADS):
        for row in rows(effort):
            print(f"{row.what}: {row.ratio or row.ours}", file=sys.stderr, flush=True)
            done.append(row)
    return done


def main(title: str, rows: Callable[[Effort], Iterator[Row]], write: Callable[[Iterable[Row]], str] = table) -> None:
    """Run one benchmark as a script."""
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--quick", action="store_true", help="few turns and small samples, to see that it works")
    quick = parser.parse_args().quick
    machine = environment()
    done = measure(rows, QUICK if quick else FULL)
    print(f"## {title}{' (quick: not for quoting)' if quick else ''}\n\n{machine}\n\n{NOTES}\n")
    print(f"{write(done)}\n\n{verdict(done)}")

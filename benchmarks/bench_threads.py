"""The library's thread pool against a single thread, OpenMP's regions and oneTBB, on an idle and on a busy machine.

A call is 20, 100 or 1,000 µs of arithmetic in 8 tasks, for 2 threads; between two calls the calling thread is busy for
20 µs, as it is with the interpreter. The busy machine has one more process, which spins and may run on any processor.
An OpenMP region ends when its last thread has run, so that it waits for a time slice where that process has the
processor; a call of the pool waits for no thread that has not joined it. OpenMP runs with its default settings and with
both values of ``OMP_WAIT_POLICY``.

Each turn is a process of its own, since OpenMP's threads spin on after a call. A cell has the median, the 90th and the
99th percentile of all calls; the ratio is, as elsewhere, that of the turns' means, in which rare long calls count.
The programs are compiled here from ``benchmarks/threads`` and ``cpp/core`` with ``$CXX`` or ``c++``; oneTBB takes part
where it is installed (Debian: ``apt-get install libtbb-dev``).
"""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from _compiled import NotBuiltError, compiled
from _measure import CORES, FULL, Effort, FloatArray, Row, Timing, faster, main, skipped

from fastnet._tools.text import three_digits

TITLE = "The thread pool against OpenMP and oneTBB"
MICROSECONDS = (20, 100, 1000)
TASKS = 8  # as in benchmarks/threads/measure.cpp
FOLDER = Path(__file__).parent / "threads"
CORE = Path(__file__).parents[1] / "cpp" / "core"
POOL = (FOLDER / "pool.cpp", CORE / "pool.cpp", CORE / "threads.cpp")


class Library(NamedTuple):
    """What runs the tasks: its sources beside ``measure.cpp``, the compiler's flags, and OMP_WAIT_POLICY."""

    name: str
    sources: tuple[Path, ...]
    flags: tuple[str, ...] = ()
    wait_policy: str | None = None


OURS = Library("the pool", POOL, ("-fopenmp",))
OTHERS = (
    Library("one thread", (FOLDER / "serial.cpp",)),
    Library("OpenMP", (FOLDER / "openmp.cpp",), ("-fopenmp",)),
    Library("OpenMP, passive", (FOLDER / "openmp.cpp",), ("-fopenmp",), "passive"),
    Library("OpenMP, active", (FOLDER / "openmp.cpp",), ("-fopenmp",), "active"),
    Library("oneTBB", (FOLDER / "tbb.cpp",), ("-ltbb",)),
)


def program(library: Library) -> Path:
    """Compile a library's program and return its path."""
    name = "-".join(source.stem for source in library.sources)
    paths = (FOLDER / "measure.cpp", *library.sources, "-I", CORE.parent, "-I", FOLDER)
    return compiled(name, "-O2", "-pthread", *paths, *library.flags)


def measure_calls(library: Library, steps: int, seconds: float, most_calls: int = 10**9) -> FloatArray:
    """Return the seconds that each call took, in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    if library.wait_policy is not None:
        environment["OMP_WAIT_POLICY"] = library.wait_policy
    command = [program(library), str(steps), str(seconds), str(most_calls)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return np.array(done.stdout.split(), np.float64) * 1e-9


@functools.cache
def steps_per_microsecond() -> float:
    """Calibrate the arithmetic: how many of its steps one thread does in a microsecond, at its fastest."""
    serial = OTHERS[0]
    return 1e5 / (float(measure_calls(serial, 0, 0.2)[0]) * 1e6)


def steps_of(microseconds: int) -> int:
    """Return the steps of each task of a call that takes one thread as long."""
    return round(microseconds * steps_per_microsecond() / TASKS)


@contextlib.contextmanager
def busy_process(wanted: bool) -> Iterator[None]:
    """Have another process spin for the length of a ``with`` block, if one is wanted."""
    if not wanted:
        yield
        return
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as spinning:
        try:
            yield
        finally:
            spinning.kill()


def why_not(library: Library) -> str | None:
    """Return why the library can't be measured, if so."""
    try:
        program(library)
    except NotBuiltError as reason:
        return str(reason)
    return None


class Calls(NamedTuple):
    """The seconds of all calls, and the means of the turns."""

    seconds: FloatArray
    means: Timing

    def __str__(self) -> str:
        numbers = (three_digits(1e6 * float(q)) for q in np.percentile(self.seconds, (50, 90, 99)))
        return f"{' / '.join(numbers)} µs"


def take_turns(libraries: list[Library], microseconds: int, effort: Effort) -> list[Calls]:
    """Measure the libraries in turn."""
    rounds, seconds = (5, 0.4) if effort == FULL else (3, 0.03)
    turns = [[measure_calls(library, steps_of(microseconds), seconds) for library in libraries] for _ in range(rounds)]
    return [
        Calls(np.concatenate(samples), Timing(tuple(float(sample.mean()) for sample in samples)))
        for samples in zip(*turns, strict=True)
    ]


def rows(effort: Effort) -> Iterator[Row]:
    reasons = {library: why_not(library) for library in (OURS, *OTHERS)}
    ours_missing = reasons[OURS] or ("there is one processor" if CORES < 2 else reasons[OTHERS[0]])
    if ours_missing is not None:
        yield skipped(TITLE, ours_missing)
        return
    for library, reason in reasons.items():
        if reason is not None:
            yield skipped(f"the pool against {library.name}", reason)
    others = [library for library in OTHERS if reasons[library] is None]
    steps_per_microsecond()  # calibrated on the idle machine
    for busy in (False, True):
        with busy_process(busy):
            for microseconds in MICROSECONDS:
                ours, *theirs = take_turns([OURS, *others], microseconds, effort)
                for library, calls in zip(others, theirs, strict=True):
                    where = "busy" if busy else "idle"
                    row = faster(f"{microseconds:,} µs, {where}: against {library.name}", ours.means, calls.means)
                    yield row._replace(ours=str(ours), theirs=str(calls))


@pytest.mark.parametrize("microseconds", MICROSECONDS)
@pytest.mark.parametrize("library", [OURS, *OTHERS], ids=lambda library: library.name.replace(" ", "_"))
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_threads(benchmark: Any, busy: bool, library: Library, microseconds: int) -> None:
    if (reason := why_not(library)) is not None:
        pytest.skip(reason)
    steps, most_calls = steps_of(microseconds), 1000
    with busy_process(busy):  # what is timed is the process: its start, the calls, and 20 µs between them
        calls = benchmark.pedantic(measure_calls, args=(library, steps, 10.0, most_calls), rounds=3)
    benchmark.extra_info["percentiles 50, 90, 99"] = np.percentile(calls, (50, 90, 99)).tolist()


if __name__ == "__main__":
    main(TITLE, rows)

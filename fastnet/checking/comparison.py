"""`compare_gradients`: the time of every method for one gradient, and its difference from backprop."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from fastnet._tools import checks
from fastnet._tools.progress import progress_bar
from fastnet._tools.text import align, format_seconds, html_lines, html_table, three_digits
from fastnet.backends import active, build_info
from fastnet.backends.spec import Diagnostics
from fastnet.checking.methods import BASELINE, METHODS, REFERENCE, Method, backprop, problem_of
from fastnet.checking.result import GradientCheck
from fastnet.checking.timing import Run, Task, plan
from fastnet.checking.turns import describe_spread, times_faster, warnings
from fastnet.differentiation.layout import Layout
from fastnet.networks.base import BaseNetwork

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = ("method", "time per gradient", "fastest to slowest turn", "times faster", "difference", "relative", "at")


@dataclass(frozen=True)
class MethodResult:
    """The time of one method, and the difference of its gradient from backprop.

    Attributes
    ----------
    name : str
    seconds : float
        The time of one whole gradient, the median over the turns; scaled up from the entries that were timed if
        `sampled`.
    times_faster : float or None
        How many times faster than the NumPy loop: the ratio of these medians, but never above the ratio of the fastest
        turns. None if the loop was not among the methods.
    entries : int
        The number of entries that were computed, timed and compared.
    sampled : bool
        Whether these are a sample.
    check : GradientCheck or None
        The comparison with backprop at these entries; None for backprop itself.
    diagnostics : dict of str to int
        The numbers of ``evaluations``, ``fallbacks`` and ``kinks``, if the method counts them.
    turns : tuple of float
        The time in each turn, in seconds.
    blas_threads : int or None
        The threads of NumPy's matrix products: 1, or as many as fastnet has, whichever is faster. None for methods that
        don't use them, and if threadpoolctl is not installed.

    Examples
    --------
    >>> import numpy as np, fastnet
    >>> net = fastnet.TwoLayerNet(4, 3, 2, seed=0)
    >>> x, t = np.ones((5, 4)), np.array([0, 1, 0, 1, 1])
    >>> row = fastnet.compare_gradients(net, x, t, methods=["backprop"], repeat=1)["backprop"]
    >>> row.entries, row.sampled, row.check
    (23, False, None)
    """

    name: str
    seconds: float
    times_faster: float | None
    entries: int
    sampled: bool
    check: GradientCheck | None
    diagnostics: dict[str, int] = field(default_factory=dict)
    turns: tuple[float, ...] = ()
    blas_threads: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the row in types that JSON has."""
        check = None if self.check is None else self.check.to_dict()
        return {**vars(self), "check": check, "diagnostics": dict(self.diagnostics), "turns": list(self.turns)}

    def _cells(self) -> list[str]:
        seconds = format_seconds(self.seconds) + ("*" if self.sampled else " ")
        faster = "-" if self.times_faster is None else three_digits(self.times_faster)
        times = [self.name, seconds, describe_spread(self.turns), faster]
        if self.check is None or self.check.largest is None:
            return [*times, "-", "-", "-"]
        check, where = self.check, self.check.largest.label
        return [
            *times,
            f"{check.largest_absolute:.1e}",
            f"{check.largest_relative:.1e}",
            where,
        ]


@dataclass(frozen=True, repr=False)
class GradientComparison:
    """The methods side by side. ``print`` shows the table; ``comparison["c++ loop"]`` is that method's row.

    Attributes
    ----------
    rows : tuple of MethodResult
    network : str
        The layer sizes, as in ``784-50-10``.
    parameters : int
    batch : int
        The number of rows that the loss is averaged over.
    dtype : str
    h : float
        The step.
    build_info : dict
        The answer of `fastnet.build_info` at that time.

    Examples
    --------
    >>> import numpy as np, fastnet
    >>> net = fastnet.TwoLayerNet(4, 3, 2, seed=0)
    >>> x, t = np.ones((5, 4)), np.array([0, 1, 0, 1, 1])
    >>> comparison = fastnet.compare_gradients(net, x, t, methods=["backprop"], repeat=1)
    >>> comparison.network, comparison.parameters
    ('4-3-2', 23)
    """

    rows: tuple[MethodResult, ...]
    network: str
    parameters: int
    batch: int
    dtype: str
    h: float
    build_info: dict[str, str | int | None]

    def __getitem__(self, name: str) -> MethodResult:
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(name)

    def __repr__(self) -> str:
        return f"<GradientComparison of {', '.join(row.name for row in self.rows)}: print it for the table>"

    def __str__(self) -> str:
        table = align([[*COLUMNS], *(row._cells() for row in self.rows)], "<>>>>><")
        return "\n".join([self._network(), self._machine(), "", *table, "", *self._notes()])

    def _repr_html_(self) -> str:
        """Return the table for notebooks."""
        rows = (row._cells() for row in self.rows)
        return html_lines([self._network(), self._machine()]) + html_table(COLUMNS, rows) + html_lines(self._notes())

    def _network(self) -> str:
        return (
            f"{self.network} network of {self.parameters:,} parameters, {self.dtype}, "
            f"batch of {self.batch:,}, h = {self.h:g}"
        )

    def _machine(self) -> str:
        info = self.build_info
        threads = f"{info['num_threads']} thread{'' if info['num_threads'] == 1 else 's'}"
        built = [str(info[key]) for key in ("isa", "compiler", "threading") if info[key] is not None]
        extension = f" ({', '.join(built)})" if built else ""
        return f"fastnet {info['version']}, backend {info['backend']}{extension}, {threads}"

    def _notes(self) -> list[str]:
        notes = [
            "difference: the largest difference from backprop; relative: relative to the largest entry of the gradient"
        ]
        most = self.build_info["num_threads"]
        sampled = [f"{row.entries:,} ({row.name})" for row in self.rows if row.sampled]
        if sampled:
            notes.append(
                f"* timed and compared at a sample of the {self.parameters:,} parameters, "
                "spread over all arrays, and scaled up"
            )
            notes.append(f"  parameters in the sample: {', '.join(sampled)}")
        for row in self.rows:
            if row.blas_threads is not None:
                threads = f"{row.blas_threads} thread{'' if row.blas_threads == 1 else 's'}"
                chosen = "" if most == 1 else f", the best of 1 and {most}"
                notes.append(f"{row.name}: NumPy's matrix products on {threads}{chosen}")
            elif row.name == BASELINE.name:
                notes.append(f"{row.name}: NumPy's matrix products on as many threads as they take by themselves; with")
                notes.append(f"  threadpoolctl installed, on the best of 1 and {most}")
            notes += warnings(row.name, row.turns)
        for row in self.rows:
            if row.diagnostics:
                counts = ", ".join(f"{count:,} {name}" for name, count in row.diagnostics.items())
                notes.append(f"{row.name}: {counts}")
            if row.check is not None and not row.check.passed:
                notes.append(f"{row.name}: {row.check.verdict}")
        return notes

    def to_dict(self) -> dict[str, Any]:
        """Return everything in types that JSON has."""
        rows = [row.to_dict() for row in self.rows]
        return {**vars(self), "rows": rows, "build_info": dict(self.build_info)}

    def plot(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """Draw the times as bars, as `fastnet.plotting.plot_comparison` describes."""
        from fastnet.plotting import plot_comparison

        return plot_comparison(self, path)


def compare_gradients(
    net: BaseNetwork,
    x: npt.ArrayLike,
    t: npt.ArrayLike,
    *,
    h: float | None = None,
    methods: Iterable[str] | None = None,
    sample: int = 1000,
    repeat: int = 5,
    full: bool = False,
    progress: bool = False,
) -> GradientComparison:
    """Compute the gradient of one batch by every method; report each time, and the difference from backprop.

    The methods take turns, `repeat` times, and the time of each is the median over its turns, so that a busy
    moment of the machine affects them all. The fastest and the slowest turn are reported, with a warning if they differ
    by more than a factor of 2. Code that is compiled at first use is compiled beforehand. NumPy's matrix
    products have one thread or as many as fastnet, whichever is faster, if threadpoolctl is installed. A method
    that would take more than about three seconds is timed on a sample of the entries, drawn evenly from all
    arrays: as many as fit into that time, but at least `sample`. The table marks such a method, and it is
    compared with backprop at these entries only.

    Parameters
    ----------
    net : TwoLayerNet, SimpleNet, …
        A network of fastnet made of the library's layers. It is not changed; Dropout's masks are those of the last
        training pass.
    x : array_like
        Shape (batch, inputs), or (inputs,) for one row.
    t : array_like
        Labels, shape (batch,), or one-hot rows or probabilities, shape (batch, classes).
    h : float, optional
        The step. By default 1e-4, and 1e-2 for float32, where a step of 1e-4 leaves little but rounding error.
    methods : iterable of str, optional
        Some of ``"numpy loop"``, ``"numba loop"``, ``"c++ loop"``, and of the backend in use ``"incremental"``,
        ``"nodal"`` and ``"backprop"``. By default all that are available.
    sample : int, default 1000
        The smallest number of entries to time.
    repeat : int, default 5
        The number of turns of each method.
    full : bool, default False
        Whether to time every method on every entry, however long it takes.
    progress : bool, default False
        Whether to show a progress bar on stderr, if tqdm is installed.

    Returns
    -------
    GradientComparison

    Raises
    ------
    TypeError
        If `net` is not a network of fastnet, or the backend in use does not know all of its layers and its loss, or an
        argument has the wrong type.
    ValueError
        If the data do not fit the network, a number is out of its range, or a method is unknown or not
        installed.

    Examples
    --------
    >>> import fastnet
    >>> net = fastnet.TwoLayerNet(784, 50, 10, seed=0)
    >>> x, t = fastnet.datasets.make_digits(1, seed=0)
    >>> comparison = fastnet.compare_gradients(net, x, t, methods=["numba loop", "backprop"])
    >>> comparison["numba loop"].check.passed
    True
    """
    problem = problem_of(net, x, t, h)
    chosen = _chosen(methods)
    least, turns = checks.as_count(sample, "sample"), checks.as_count(repeat, "repeat")
    full, progress = checks.as_flag(full, "full"), checks.as_flag(progress, "progress")
    layout = Layout(problem.parameters())

    runs = []
    with progress_bar(progress) as bar:
        for method in chosen:
            bar.show(method.name, 0, 0)
            task = Task(method, problem, layout)
            runs.append(Run(task, plan(task, turns, least, full)))
        total = sum(len(run.plan.shares(turn)) for turn in range(turns) for run in runs)
        for turn in range(turns):
            for run in runs:
                for _ in run.take_turn(turn):
                    bar.show(run.task.method.name, 1, total)
        return GradientComparison(
            rows=_rows(runs, backprop(problem)),
            network=problem.describe(),
            parameters=layout.size,
            batch=len(problem.x),
            dtype=problem.dtype.name,
            h=problem.h,
            build_info=build_info(),
        )


def _chosen(methods: Iterable[str] | None) -> list[Method]:
    if methods is None:
        return [method for method in METHODS if method.is_available()]
    if isinstance(methods, str):
        raise TypeError(f"methods must be a list of names, as in [{methods!r}], not one str")
    by_name = {method.name: method for method in METHODS}
    names = dict.fromkeys(checks.as_choice(name, "methods", tuple(by_name)) for name in methods)
    if not names:
        raise ValueError("methods is empty: there is nothing to compare")
    for name in names:
        algorithm = by_name[name].algorithm
        if algorithm is not None and algorithm not in active().algorithms:
            raise ValueError(f"methods has {name!r}, which the {active().name!r} backend does not have")
    return [by_name[name] for name in names]


def _rows(runs: list[Run], reference: npt.NDArray[Any]) -> tuple[MethodResult, ...]:
    baseline = next((run.turns() for run in runs if run.task.method is BASELINE), None)
    return tuple(
        MethodResult(
            name=run.task.method.name,
            seconds=statistics.median(run.turns()),
            times_faster=None if baseline is None else times_faster(baseline, run.turns()),
            entries=len(run.plan.entries),
            sampled=len(run.plan.entries) < run.task.layout.size,
            check=None if run.task.method is REFERENCE else run.check(reference),
            diagnostics=_counts(run.diagnostics),
            turns=run.turns(),
            blas_threads=run.task.blas_threads,
        )
        for run in runs
    )


def _counts(diagnostics: Diagnostics | None) -> dict[str, int]:
    if diagnostics is None:
        return {}
    return {name: int(getattr(diagnostics, name)) for name in ("evaluations", "fallbacks", "kinks")}

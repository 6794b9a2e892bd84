"""Gradient checks by fastnet and by the tools that people check gradients with, on the same network and faults.

Every checker is given a gradient as somebody's own code would return it, and says whether it is right: first the right
gradient, then the same one with each planted fault. Tools that return only a number or a numerical gradient have no
verdict of their own. They are read as generously as can be: a fault counts as found if the largest difference is at
least twice that of the right gradient.

Checkers that evaluate the loss once or twice for each entry are run on a sample of the entries, which has those with
faults; their times are scaled up to all, and marked. Their verdicts are made entry by entry, so that a fault found in
the sample is found among all entries too.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
import pytest
from _measure import (
    FULL,
    MOST_THREADS,
    Effort,
    FloatArray,
    IntArray,
    Row,
    digits,
    grid,
    interleave,
    main,
    power_of_ten,
    threads,
)

import fastnet
from fastnet._tools.text import format_seconds, three_digits
from fastnet.checking.timing import spread

TITLE = "Gradient checks beside other tools"
FAULTS = ("one entry 1 %", "a sign", "two entries swapped", "one branch")
NAMES = ("W1", "b1", "W2", "b2")
TARGETS = {"gradcheck, slow": 50_000, "gradcheck, fast": 2_000}  # times faster, float64

Gradient = dict[str, FloatArray]


@dataclass(frozen=True)
class Problem:
    """A network with one hidden layer, a batch, its right gradient, and the same one with each fault.

    Attributes
    ----------
    net : fastnet.TwoLayerNet
    x : ndarray, shape (batch, inputs)
    t : ndarray, shape (batch,)
    right : dict of str to ndarray
    faulty : dict of str to dict of str to ndarray
    places : ndarray of int
        Flat numbers of entries that are wrong in one of the faulty gradients.
    exact : ndarray
        The right gradient in float64, flat: what numerical gradients are compared with.
    """

    net: fastnet.TwoLayerNet
    x: FloatArray
    t: IntArray
    right: Gradient
    faulty: dict[str, Gradient]
    places: IntArray
    exact: FloatArray

    @property
    def start(self) -> FloatArray:
        """All parameters, flat."""
        return flat(self.net.params)

    def sample(self, count: int) -> IntArray:
        """Return flat numbers of about `count` entries, with those that have faults; all if there are no more."""
        size = self.exact.size
        if count >= size:
            return np.arange(size)
        return np.union1d(spread([self.net.params[name].size for name in NAMES], count), self.places)


def flat(gradient: Gradient) -> FloatArray:
    return np.concatenate([gradient[name].ravel() for name in NAMES])


def problem_of(units: tuple[int, int, int], batch: int, dtype: str) -> Problem:
    """Make a network, with the columns of the digits' middle as inputs if it has fewer than 784."""
    net = fastnet.TwoLayerNet(*units, dtype=dtype, seed=0)
    x, t = digits(batch, dtype)
    first = (x.shape[1] - units[0]) // 2
    x, t = np.ascontiguousarray(x[:, first : first + units[0]]), t % units[2]
    right = net.gradient(x, t)
    faulty = dict(zip(FAULTS, _faults(net, x, t, right), strict=True))
    changed = [np.flatnonzero(flat(wrong) != flat(right)) for wrong in faulty.values()]
    wide = fastnet.TwoLayerNet(*units, seed=0)
    wide.params = {name: array.astype(np.float64) for name, array in net.params.items()}
    exact = flat(wide.gradient(x.astype(np.float64), t))
    return Problem(net, x, t, right, faulty, np.concatenate([where[:4] for where in changed]), exact)


def _faults(net: fastnet.TwoLayerNet, x: FloatArray, t: IntArray, right: Gradient) -> Iterator[Gradient]:
    """Yield the gradient with each fault: in W1, at its largest entry, which is the easiest to find, or one unit."""
    sizes = np.abs(right["W1"]).ravel()
    order = np.argsort(sizes)[np.count_nonzero(sizes == 0) :]
    largest, middling = (np.unravel_index(order[at], right["W1"].shape) for at in (-1, len(order) // 2))
    for change in ("percent", "sign", "swap"):
        wrong = {name: array.copy() for name, array in right.items()}
        array = wrong["W1"]
        if change == "swap":
            array[middling], array[largest] = array[largest], array[middling]
        else:
            array[largest] *= 1.01 if change == "percent" else -1
        yield wrong
    # The branch: where the first unit is below its middle, its sigmoid's derivative is taken as that of 1 - sigmoid.
    wrong = {name: array.copy() for name, array in right.items()}
    z = 1 / (1 + np.exp(-(x @ net.params["W1"] + net.params["b1"])))
    scores = z @ net.params["W2"] + net.params["b2"]
    y = np.exp(scores - scores.max(axis=1, keepdims=True))
    y /= y.sum(axis=1, keepdims=True)
    hit = y[np.arange(len(t)), t]
    delta = (y - np.eye(y.shape[1])[t]) * (hit / (hit + 1e-7))[:, None] / len(t)
    behind = (delta @ net.params["W2"].T)[:, 0] * (z * (1 - z))[:, 0] * np.where(z[:, 0] < 0.5, -1, 1)
    wrong["W1"][:, 0], wrong["b1"][0] = x.T @ behind, behind.sum()
    yield wrong


# The checkers ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """What a checker says of one gradient.

    Attributes
    ----------
    passed : bool or None
        Its verdict; None if it has none of its own.
    difference : float or None
        The largest difference of the numerical gradient from the one that it was given, if it tells.
    numerical : ndarray, optional
        The numerical gradient at the entries that were compared.
    """

    passed: bool | None
    difference: float | None = None
    numerical: FloatArray | None = None


Check = Callable[[Gradient], Answer]


@dataclass(frozen=True)
class Checker:
    """A tool: the packages that it needs, and what makes a check of a problem at the given entries.

    `projects` says that it looks at a few random directions through all entries; `samples`, that its work is
    proportional to the number of entries, so that a part can stand for the whole.
    """

    name: str
    needs: str | None
    make: Callable[[Problem, IntArray], Check]
    samples: bool = False
    projects: bool = False
    small: bool = False  # runs on the smaller network alone


def by_fastnet(problem: Problem, entries: IntArray) -> Check:
    def check(gradient: Gradient) -> Answer:
        found = fastnet.check_gradient(problem.net, gradient, (problem.x, problem.t))
        return Answer(found.passed, found.largest_absolute)

    return check


def by_numerical_gradient(problem: Problem, entries: IntArray) -> Check:
    h = 1e-4 if problem.x.dtype == np.float64 else 1e-2

    def check(gradient: Gradient) -> Answer:
        numerical = flat(problem.net.numerical_gradient(problem.x, problem.t, h=h))
        return Answer(None, float(np.abs(numerical - flat(gradient)).max()), numerical)

    return check


def loss_of(problem: Problem, entries: IntArray) -> Callable[[FloatArray], float]:
    """Return the loss in NumPy, as the book writes it, as a function of the parameters `entries`."""
    params = {name: problem.net.params[name].copy() for name in NAMES}
    ends = np.cumsum([params[name].size for name in NAMES])
    of_array = np.searchsorted(ends, entries, side="right")
    parts = [
        (params[name].reshape(-1), entries[of_array == k] - (ends[k] - params[name].size), of_array == k)
        for k, name in enumerate(NAMES)
    ]
    x, t = problem.x, problem.t
    rows = np.arange(len(t))

    def loss(values: FloatArray) -> float:
        for array, where, mask in parts:
            array[where] = values[mask]
        z = 1 / (1 + np.exp(-(x @ params["W1"] + params["b1"])))
        scores = z @ params["W2"] + params["b2"]
        y = np.exp(scores - scores.max(axis=1, keepdims=True))
        y /= y.sum(axis=1, keepdims=True)
        return float(-np.log(y[rows, t] + 1e-7).sum() / len(t))

    return loss


def by_book(problem: Problem, entries: IntArray) -> Check:
    """Make the book's loop: each parameter by ±1e-4, and the mean difference of each array, here the largest."""
    loss = loss_of(problem, entries)
    start = problem.start[entries]

    def check(gradient: Gradient) -> Answer:
        values, h = start.copy(), 1e-4
        numerical = np.empty(len(values))
        for i, value in enumerate(values):
            values[i] = float(value) + h
            above = loss(values)
            values[i] = value - h
            below = loss(values)
            values[i] = value
            numerical[i] = (above - below) / (2 * h)
        return Answer(None, float(np.abs(numerical - flat(gradient)[entries]).max()), numerical)

    return check


def by_scipy(problem: Problem, entries: IntArray) -> Check:
    from scipy.optimize import check_grad

    loss, start = loss_of(problem, entries), problem.start[entries]
    return lambda gradient: Answer(None, float(check_grad(loss, lambda _: flat(gradient)[entries], start)))


def by_numdifftools(problem: Problem, entries: IntArray) -> Check:
    import numdifftools

    loss, start = loss_of(problem, entries), problem.start[entries]

    def check(gradient: Gradient) -> Answer:
        numerical = numdifftools.Gradient(loss)(start)
        return Answer(None, float(np.abs(numerical - flat(gradient)[entries]).max()), numerical)

    return check


def by_jacobi(problem: Problem, entries: IntArray) -> Check:
    import jacobi

    loss, start = loss_of(problem, entries), problem.start[entries]

    def check(gradient: Gradient) -> Answer:
        numerical, _ = jacobi.jacobi(loss, start)
        return Answer(None, float(np.abs(numerical.ravel() - flat(gradient)[entries]).max()), numerical.ravel())

    return check


def by_gradcheck(problem: Problem, entries: IntArray, fast: bool) -> Check:
    """Make a check by PyTorch of a function whose backward pass returns the gradient to check."""
    import torch

    x, t = torch.from_numpy(problem.x), torch.from_numpy(problem.t)
    start = torch.from_numpy(problem.start)
    where = torch.from_numpy(entries)
    shapes = [problem.net.params[name].shape for name in NAMES]
    sizes = [math.prod(shape) for shape in shapes]
    rows = torch.arange(len(t))
    whole = len(entries) == len(start)

    def forward(values: Any) -> Any:
        theta = values if whole else start.clone().index_put_((where,), values)
        W1, b1, W2, b2 = (part.view(shape) for part, shape in zip(theta.split(sizes), shapes, strict=True))
        y = torch.softmax(torch.sigmoid(x @ W1 + b1) @ W2 + b2, 1)
        return -torch.log(y[rows, t] + 1e-7).mean()

    def check(gradient: Gradient) -> Answer:
        given = torch.from_numpy(flat(gradient)[entries])

        class Own(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, values: Any) -> Any:
                return forward(values)

            @staticmethod
            def backward(ctx: Any, out: Any) -> Any:
                return out * given

        point = start[where].clone().requires_grad_()
        # When the fast mode fails, it runs the slow mode, only to write a longer message.
        message = mock.patch("torch.autograd.gradcheck._run_slow_mode_and_get_error", return_value="")
        with warnings.catch_warnings(), message:
            warnings.simplefilter("ignore")  # of float32
            passed = torch.autograd.gradcheck(
                lambda values: Own.apply(values), (point,), fast_mode=fast, raise_exception=False
            )
        return Answer(bool(passed))

    return check


@contextlib.contextmanager
def jax_in_float64() -> Iterator[None]:
    import jax

    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)


def jax_loss(problem: Problem) -> Callable[[Any], Any]:
    import jax
    import jax.numpy as jnp

    x, t = jnp.asarray(problem.x), jnp.asarray(problem.t)
    shapes = [problem.net.params[name].shape for name in NAMES]
    cuts = [int(cut) for cut in np.cumsum([math.prod(shape) for shape in shapes])[:-1]]
    rows = np.arange(len(problem.t))

    def loss(theta: Any) -> Any:
        parts = jnp.split(theta, cuts)
        W1, b1, W2, b2 = (part.reshape(shape) for part, shape in zip(parts, shapes, strict=True))
        y = jax.nn.softmax(jax.nn.sigmoid(x @ W1 + b1) @ W2 + b2, axis=1)
        return -jnp.mean(jnp.log(y[rows, t] + 1e-7))

    return loss


def by_jax_vmap(problem: Problem, entries: IntArray) -> Check:
    """Make forward differences of 64 entries at a time, with the step for which rounding and truncation are equal."""
    import jax
    import jax.numpy as jnp

    with jax_in_float64():
        loss, start = jax_loss(problem), jnp.asarray(problem.start)
        h = float(np.sqrt(np.finfo(problem.x.dtype).eps))
        chunks = np.array_split(entries, max(1, len(entries) // 64))
        size = max(map(len, chunks))
        padded = [jnp.asarray(np.pad(chunk, (0, size - len(chunk)), mode="edge")) for chunk in chunks]
        moved = jax.jit(jax.vmap(lambda theta, i: loss(theta.at[i].add(h)), in_axes=(None, 0)))

    def check(gradient: Gradient) -> Answer:
        with jax_in_float64():
            here = jax.jit(loss)(start)
            answers = [np.asarray((moved(start, chunk) - here) / h) for chunk in padded]
        numerical = np.concatenate([a[: len(c)] for a, c in zip(answers, chunks, strict=True)]).astype(np.float64)
        return Answer(None, float(np.abs(numerical - flat(gradient)[entries]).max()), numerical)

    return check


def by_check_grads(problem: Problem, entries: IntArray) -> Check:
    """Make JAX's own check: the gradient to check is the function's custom backward pass."""
    import jax
    import jax.numpy as jnp
    from jax.test_util import check_grads

    with jax_in_float64():
        loss, start = jax_loss(problem), jnp.asarray(problem.start)

    def check(gradient: Gradient) -> Answer:
        with jax_in_float64():
            given = jnp.asarray(flat(gradient))
            own = jax.custom_vjp(loss)
            own.defvjp(lambda theta: (loss(theta), None), lambda _, out: (out * given,))
            try:
                check_grads(own, (start,), order=1, modes=["rev"])
            except AssertionError:
                return Answer(False)
        return Answer(True)

    return check


CHECKERS = (
    Checker("fastnet: check_gradient", None, by_fastnet),
    Checker("fastnet: numerical_gradient, compared by hand", None, by_numerical_gradient),
    Checker("the book's loop", None, by_book, samples=True),
    Checker("SciPy check_grad", "scipy", by_scipy, samples=True),
    Checker("gradcheck, slow", "torch", lambda p, e: by_gradcheck(p, e, fast=False), samples=True),
    Checker("gradcheck, fast", "torch", lambda p, e: by_gradcheck(p, e, fast=True), projects=True),
    Checker("JAX, vmap of forward differences", "jax", by_jax_vmap, samples=True),
    Checker("JAX check_grads", "jax", by_check_grads, projects=True),
    Checker("numdifftools Gradient", "numdifftools", by_numdifftools, small=True),
    Checker("jacobi", "jacobi", by_jacobi, small=True),
)
OURS = CHECKERS[0]


# Measuring ------------------------------------------------------------------------------------------------


def judge(checker: Checker, check: Check, problem: Problem, entries: IntArray) -> dict[str, Any]:
    """Return what a checker says of the right gradient and of each fault, and the error of its own gradient."""
    right = check(problem.right)
    found: dict[str, bool] = {}
    for fault, gradient in problem.faulty.items():
        answer = check(gradient)
        if answer.passed is not None:
            found[fault] = not answer.passed
        else:
            assert answer.difference is not None
            assert right.difference is not None
            found[fault] = answer.difference > 2 * right.difference
    error = right.difference
    if right.numerical is not None:
        at = entries if len(right.numerical) < problem.exact.size else slice(None)
        error = float(np.abs(right.numerical - problem.exact[at]).max())
    return {
        "right_passes": right.passed,
        "found": found,
        "error": None if error is None else error / float(np.abs(problem.exact).max()),
    }


def seconds_of(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measured(checker: Checker, problem: Problem, effort: Effort, reference: Check) -> Row:
    """Run one checker; its time takes turns with that of our check."""
    inputs, hidden = problem.net.params["W1"].shape
    units = f"{inputs}-{hidden}-{problem.net.params['W2'].shape[1]}"
    what = f"{units}, {problem.x.dtype}, batch {len(problem.t)}: {checker.name}"
    size = problem.exact.size
    data: dict[str, Any] = {"checker": checker.name, "network": units, "dtype": str(problem.x.dtype), "size": size}
    if checker.needs is not None and importlib.util.find_spec(checker.needs) is None:
        return Row(what, "missing", f"{checker.needs} is not installed", data={**data, "missing": checker.needs})
    samples = checker.samples or (checker.small and effort != FULL)
    entries = problem.sample(effort.loop_entries if samples else size)
    check = checker.make(problem, entries)
    data |= {"entries": None if checker.projects else len(entries), "sampled": len(entries) < size}
    data |= judge(checker, check, problem, entries)
    scale = size / len(entries)
    if seconds_of(lambda: check(problem.right)) > max(effort.budget / 8, 1.0):
        theirs, ours = seconds_of(lambda: check(problem.right)), seconds_of(lambda: reference(problem.right))
        steady, turns = True, 1
    else:
        sides = interleave(effort, lambda: check(problem.right), lambda: reference(problem.right))
        theirs, ours = (side.median for side in sides)
        spread_of = [a / b for a, b in zip(sides[0].seconds, sides[1].seconds, strict=True)]
        steady, turns = bool(np.ptp(np.quantile(spread_of, (0.25, 0.75))) <= 0.5 * np.median(spread_of)), len(spread_of)
    theirs *= scale
    ratio = theirs / ours
    target = TARGETS.get(checker.name) if units == "784-50-10" and problem.x.dtype == np.float64 else None
    mark = "*" * data["sampled"]
    return Row(
        what,
        format_seconds(ours),
        format_seconds(theirs) + mark,
        f"{three_digits(ratio)}×",
        "" if target is None else f"≥ {target:,}×",
        None if target is None else ratio >= target,
        ratio,
        steady,
        {**data, "seconds": theirs, "ours": ours, "times": ratio, "turns": turns},
    )


def rows(effort: Effort) -> Iterator[Row]:
    for dtype in ("float64", "float32") if effort == FULL else ("float64",):
        problem = problem_of((784, 50, 10), 100, dtype)
        yield from of_all(CHECKERS, problem, effort, small=False)
    problem = problem_of((64, 10, 10), 100, "float64")
    yield from of_all(CHECKERS, problem, effort, small=True)


def of_all(checkers: Iterable[Checker], problem: Problem, effort: Effort, small: bool) -> Iterator[Row]:
    reference = by_fastnet(problem, np.arange(problem.exact.size))
    for checker in checkers:
        if small or not checker.small:
            with torch_threads(checker.needs == "torch"):
                yield measured(checker, problem, effort, reference)


@contextlib.contextmanager
def torch_threads(wanted: bool) -> Iterator[None]:
    """Make PyTorch use as many threads as the others do, if it is installed."""
    if not wanted or importlib.util.find_spec("torch") is None:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(MOST_THREADS)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def table(rows: Iterable[Row]) -> str:
    """Write the checkers side by side."""
    word = {True: "found", False: "**missed**"}
    passes = {True: "yes", False: "**no**", None: "no verdict"}
    head = ["what", "time", "against check_gradient", "entries", "largest error", "right one passes", *FAULTS]
    lines = []
    for row in rows:
        data = row.data
        if "missing" in data:
            lines.append([row.what, f"{data['missing']} is not installed", *[""] * (len(head) - 2)])
            continue
        entries = "random directions" if data["entries"] is None else f"{data['entries']:,} of {data['size']:,}"
        error = "-" if data["error"] is None else power_of_ten(data["error"])
        ratio = row.ratio + " unsteady" * (not row.steady)
        found = [word[data["found"][fault]] for fault in FAULTS]
        lines.append([row.what, row.theirs, ratio, entries, error, passes[data["right_passes"]], *found])
    return grid(head, lines)


NOTE = """\
One check of a gradient that somebody's own code returned. The error is that of the numerical gradient, relative to the
largest entry (of check_gradient: the largest difference that it reports; - where the tool does not tell). Tools without
a verdict are read generously: a fault counts as found if the largest difference is at least twice that of the right
gradient. A check that calls the right gradient wrong finds every fault, and none."""


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("checker", [c for c in CHECKERS if not c.small], ids=lambda c: c.name)
def test_checkers(benchmark: Any, checker: Checker, dtype: str) -> None:
    if checker.needs is not None:
        pytest.importorskip(checker.needs)
    problem = problem_of((784, 50, 10), 100, dtype)
    entries = problem.sample(100 if checker.samples else problem.exact.size)
    with threads(MOST_THREADS), torch_threads(checker.needs == "torch"):
        check = checker.make(problem, entries)
        benchmark(check, problem.right)


if __name__ == "__main__":
    main(TITLE, rows, table)

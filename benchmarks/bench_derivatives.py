"""Derivatives of any function: accuracy with steps that are found, and speed, against SciPy, numdifftools and jacobi.

A row of accuracy is a function: the largest error over points from 1e-6 to 1e6, relative to the derivative, of which
mpmath gives 40 digits, and the number of evaluations for all of these points. The peers run with their defaults. A peer
that is not installed is said to be missing. Rosenbrock's function is differentiated at one random point; its error is
relative to the largest entry, and there the exact gradient is known by formula.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import mpmath
import numba
import numpy as np
from _measure import FULL, Effort, FloatArray, Row, Side, check, faster, interleave, main, power_of_ten, skipped, slower

import fastnet

TITLE = "Derivatives of any function, against SciPy, numdifftools and jacobi"
POINTS = (1e-6, 1e-4, 1e-2, 0.3, 1.5, 10.0, 1e2, 1e4, 1e6)
PEERS = ("scipy", "numdifftools", "jacobi")
ELEMENTS = 1000
SECONDS = 0.05  # of one call of the function that is evaluated by Dask
PARAMETERS = 200
STACK = 10  # points, for which f's temporaries stay in the cache


def _poly(x: Any) -> Any:
    return ((((x * x - 2) * x + 3) * x * x - 1) * x * x * x + x) * x + 4


def _ratio(functions: Any) -> Callable[[Any], Any]:
    """Return e^x / (sin³x + cos³x), of which a fixed step loses either the poles or the digits (Lyness and Moler)."""
    return lambda x: functions.exp(x) / (functions.sin(x) ** 3 + functions.cos(x) ** 3)


FUNCTIONS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "sin x": (np.sin, mpmath.sin),
    "exp x": (np.exp, mpmath.exp),
    "log x": (np.log, mpmath.log),
    "1/x": (lambda x: 1 / x, lambda x: 1 / x),
    "x^(1/3)": (np.cbrt, mpmath.cbrt),
    "cosh x": (np.cosh, mpmath.cosh),
    "a polynomial of degree 9": (_poly, _poly),
    "e^x / (sin³x + cos³x)": (_ratio(np), _ratio(mpmath)),
}


class Outcome(NamedTuple):
    """The largest error of a library, relative, and its evaluations; `covered` of how many its estimate holds."""

    error: float
    evaluations: int
    covered: tuple[bool, ...] = ()


def has(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


class Counted:
    """A function of one number or an array of them that counts the points it is evaluated at."""

    def __init__(self, f: Callable[[Any], Any]) -> None:
        self._f, self.points = f, 0

    def __call__(self, x: Any) -> Any:
        self.points += np.size(x)
        return self._f(x)


def slope_of(peer: str, f: Callable[[Any], Any], x: float) -> float:
    """Return a peer's derivative with its default settings; infinity if it has none."""
    try:
        if peer == "scipy":
            from scipy.differentiate import derivative

            return float(derivative(f, x).df)
        if peer == "numdifftools":
            import numdifftools

            return float(numdifftools.Derivative(f)(x))
        import jacobi

        return float(np.ravel(jacobi.jacobi(f, x)[0])[0])
    except (ArithmeticError, ValueError, IndexError, np.linalg.LinAlgError):
        return math.inf


def accuracy(name: str) -> tuple[Outcome, dict[str, Outcome]]:
    """Return the outcome of fastnet and of each peer for one function at all points where it is finite."""
    f, exact = FUNCTIONS[name]
    ours: list[float] = []
    covered, evaluations = [], 0
    theirs: dict[str, list[float]] = {peer: [] for peer in PEERS if has(peer)}
    counts = dict.fromkeys(theirs, 0)
    for x in POINTS:
        with mpmath.workdps(40):
            slope = mpmath.diff(exact, mpmath.mpf(x), h=mpmath.mpf(10) ** -15 * min(x, 1))
            if abs(slope) > 1e300 or not np.isfinite(f(x)):
                continue

            def error(value: float, slope: Any = slope) -> float:
                return float(abs(mpmath.mpf(value) - slope) / abs(slope)) if math.isfinite(value) else math.inf

            result = fastnet.derivative(f, x, "auto", full_output=True)
            ours.append(error(result.value))
            covered.append(bool(abs(mpmath.mpf(result.value) - slope) <= result.error))
            evaluations += result.evaluations
            for peer, found in theirs.items():
                counted = Counted(f)
                found.append(error(slope_of(peer, counted, x)))
                counts[peer] += counted.points
    return (
        Outcome(max(ours), evaluations, tuple(covered)),
        {peer: Outcome(max(found), counts[peer]) for peer, found in theirs.items()},
    )


# Rosenbrock's function ------------------------------------------------------------------------------------


def rosenbrock(x: FloatArray) -> float:
    return float((100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum())


def rosenbrock_of_rows(x: FloatArray) -> FloatArray:
    values: FloatArray = (100 * (x[:, 1:] - x[:, :-1] ** 2) ** 2 + (1 - x[:, :-1]) ** 2).sum(axis=1)
    return values


def rosenbrock_gradient(x: FloatArray) -> FloatArray:
    gradient = np.zeros(len(x))
    gradient[:-1] = -400 * x[:-1] * (x[1:] - x[:-1] ** 2) - 2 * (1 - x[:-1])
    gradient[1:] += 200 * (x[1:] - x[:-1] ** 2)
    return gradient


@functools.cache
def rosenbrock_cfunc() -> Any:
    @numba.cfunc("float64(intp, CPointer(float64), voidptr)")
    def native(n: Any, x: Any, data: Any) -> Any:
        total = 0.0
        for i in range(n - 1):
            total += 100 * (x[i + 1] - x[i] * x[i]) ** 2 + (1 - x[i]) ** 2
        return total

    return native


def gradient_of(peer: str, x: FloatArray) -> Callable[[], FloatArray]:
    """Return a call of a peer that computes the gradient of Rosenbrock's function."""
    if peer == "numdifftools":
        import numdifftools

        return lambda: np.asarray(numdifftools.Gradient(rosenbrock)(x))
    if peer == "jacobi":
        import jacobi

        return lambda: np.asarray(jacobi.jacobi(rosenbrock, x)[0])
    from scipy.optimize._numdiff import approx_derivative

    return lambda: np.asarray(approx_derivative(rosenbrock, x, method="3-point"))


def rosenbrock_accuracy(size: int) -> tuple[Outcome, dict[str, Outcome]]:
    """Return the outcomes for one point; SciPy is `differentiate.jacobian`, where it takes the size."""
    x = np.random.default_rng(0).uniform(-2, 2, size)
    exact = rosenbrock_gradient(x)

    def error(found: FloatArray) -> float:
        return float(np.abs(found - exact).max() / np.abs(exact).max()) if np.isfinite(found).all() else math.inf

    result = fastnet.numerical_gradient(rosenbrock, x, "auto", full_output=True)
    covered = tuple((np.abs(result.value - exact) <= result.error).tolist())
    theirs = {}
    if has("scipy"):
        from scipy.differentiate import jacobian

        count = 0

        def columns(at: FloatArray) -> FloatArray:
            nonlocal count
            rows = np.moveaxis(at, 0, -1)
            count += rows[..., 0].size
            values = rosenbrock_of_rows(rows.reshape(-1, size)).reshape(rows.shape[:-1])
            return np.asarray(values[None])

        theirs["scipy"] = Outcome(error(np.ravel(jacobian(columns, x).df)), count)
    for peer in ("numdifftools", "jacobi"):
        if has(peer):
            counted = Counted(rosenbrock)
            found = _gradient_by(peer, counted, x)
            theirs[peer] = Outcome(error(np.ravel(found)), counted.points // size)
    return Outcome(error(result.value), result.evaluations, covered), theirs


def _gradient_by(peer: str, f: Callable[[Any], Any], x: FloatArray) -> FloatArray:
    if peer == "numdifftools":
        import numdifftools

        return np.asarray(numdifftools.Gradient(f)(x))
    import jacobi

    return np.asarray(jacobi.jacobi(f, x)[0])


# Rows -----------------------------------------------------------------------------------------------------


def _row(name: str, ours: Outcome, theirs: dict[str, Outcome]) -> Row:
    best = min((outcome.error for outcome in theirs.values()), default=math.nan)
    cells = [f"{peer} {_error(outcome.error)}, {outcome.evaluations:,}" for peer, outcome in theirs.items()]
    missing = [f"{peer} is missing" for peer in PEERS if not has(peer)]
    passed = ours.error <= best if theirs else None
    what = f"h='auto', {name}: largest error, evaluations"
    return Row(
        what, f"{_error(ours.error)}, {ours.evaluations:,}", "; ".join(cells + missing), "", "≤ the best", passed
    )


def _error(error: float) -> str:
    return power_of_ten(error) if math.isfinite(error) else "none"


def accuracy_rows() -> Iterator[Row]:
    covered: list[bool] = []
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for name in FUNCTIONS:
            ours, theirs = accuracy(name)
            covered += ours.covered
            yield _row(name, ours, theirs)
        for size in (2, 10, ELEMENTS):
            ours, theirs = rosenbrock_accuracy(size)
            covered += ours.covered[:20]  # so that the largest does not outvote all others
            yield _row(f"Rosenbrock, {size:,} variables", ours, theirs)
    share = sum(covered) / len(covered)
    yield Row(
        "h='auto': error estimate ≥ true error", f"{share:.1%} of {len(covered)}", "", "", "≥ 95 %", share >= 0.95
    )


def speed_rows(effort: Effort) -> Iterator[Row]:
    x = np.random.default_rng(0).uniform(-2, 2, ELEMENTS)
    exact = rosenbrock_gradient(x)
    native = rosenbrock_cfunc()
    calls = {
        "python": lambda: fastnet.numerical_gradient(rosenbrock, x),
        "vectorized": lambda: fastnet.numerical_gradient(rosenbrock_of_rows, x, vectorized=True),
        "cfunc": lambda: fastnet.numerical_gradient(native, x),
    }
    for name, call in calls.items():
        check(f"Rosenbrock, {name}", call(), exact, 1e-6)
    what = f"gradient of Rosenbrock, {ELEMENTS:,} variables"
    if has("scipy"):
        scipy = gradient_of("scipy", x)
        yield faster(f"{what}: Python function, SciPy's 3-point", *interleave(effort, calls["python"], scipy), 1.0)
        sides = Side(calls["cfunc"], threads=1), Side(scipy, threads=1)
        yield faster(f"{what}: Numba cfunc, 1 thread, SciPy's 3-point", *interleave(effort, *sides), 25.0)
    else:
        yield skipped(f"{what}: SciPy", "scipy is missing")
    for peer, target in (("jacobi", 1.0), ("numdifftools", 300.0)):
        if has(peer):
            timings = interleave(effort, calls["vectorized"], gradient_of(peer, x))
            yield faster(f"{what}: vectorized, {peer}", *timings, target)
        else:
            yield skipped(f"{what}: vectorized, {peer}", f"{peer} is missing")
    rows_at_once = np.tile(x, (STACK, 1))

    def alone() -> None:
        for _ in range(2 * ELEMENTS // STACK):
            rosenbrock_of_rows(rows_at_once)

    yield slower(
        f"{what}: vectorized, against f alone at as many points", *interleave(effort, calls["vectorized"], alone)
    )
    two, one = interleave(effort, Side(calls["cfunc"], threads=2), Side(calls["cfunc"], threads=1))
    yield faster(f"{what}: Numba cfunc, 2 threads against 1", two, one, 1.8)


def busy(x: FloatArray) -> float:
    """Keep a processor busy for `SECONDS`, by its own time."""
    end = time.process_time() + SECONDS
    while time.process_time() < end:
        pass
    return float(np.sum(np.sin(x)))


def dask_row(effort: Effort) -> Row:
    what = f"a function of {SECONDS * 1e3:.0f} ms, {PARAMETERS} parameters: 2 Dask workers against serial"
    if not has("distributed"):
        return skipped(what, "distributed is missing")
    import distributed

    parameters = PARAMETERS if effort == FULL else PARAMETERS // 10
    x = np.linspace(0, 1, parameters)
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        executor = client.get_executor()
        sides = [lambda: fastnet.numerical_gradient(busy, x, executor=executor)]
        sides.append(lambda: fastnet.numerical_gradient(busy, x))
        check("busy work", sides[0](), sides[1](), 0.0)
        times = []
        for side in sides:
            started = time.perf_counter()
            side()
            times.append(time.perf_counter() - started)
    ratio = times[1] / times[0]
    return Row(what, f"{times[0]:.2f} s", f"{times[1]:.2f} s", f"{ratio:.2f}×", "≥ 1.8×", ratio >= 1.8)


def rows(effort: Effort) -> Iterator[Row]:
    yield from accuracy_rows()
    yield from speed_rows(effort)
    yield dask_row(effort)


if __name__ == "__main__":
    main(TITLE, rows)

"""The 784-50-10 network: backprop and forward pass against NumPy, the textbook's loop, and the cost of a small call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from _measure import (
    Answer,
    Effort,
    FloatArray,
    IntArray,
    Row,
    Side,
    Timing,
    check,
    digits,
    faster,
    interleave,
    main,
    on,
    peer,
    sample_of,
    skipped,
    spec_of,
    threads,
)

import fastnet
from fastnet import backends

TITLE = "The 784-50-10 network against NumPy and Numba"
DTYPES = ("float32", "float64")
BATCH = 100
H = {"float64": 1e-4, "float32": 1e-2}  # the loop's step, large enough for its rounding error

Call = Callable[[], Answer]


def gradients(dtype: npt.DTypeLike) -> dict[str, Call]:
    """Return a function for each library that computes the gradient by backprop: same formulas, same arrays."""
    net = fastnet.TwoLayerNet(784, 50, 10, dtype=dtype, seed=0)
    x, t = digits(BATCH, dtype)
    numpy = backends.get("numpy")
    return {
        "fastnet": lambda: list(net.gradient(x, t).values()),
        "numpy": lambda: numpy.gradient(spec_of(net), x, t),
        "lean numpy": lambda: lean_gradient(net.params, x, t),
    }


def lean_gradient(params: dict[str, FloatArray], x: FloatArray, t: IntArray) -> list[FloatArray]:
    """Backprop of this one network, written for speed: no checks, nothing general, no sigmoid computed twice."""
    W1, b1, W2, b2 = params.values()
    rows = np.arange(len(t))
    z = 1 / (1 + np.exp(-(x @ W1 + b1)))
    e = np.exp(z @ W2 + b2)
    y = e / e.sum(axis=1, keepdims=True)
    right = y[rows, t]
    d2 = y.copy()
    d2[rows, t] -= 1
    d2 *= (right / ((right + W1.dtype.type(1e-7)) * len(t)))[:, None]
    d1 = d2 @ W2.T * (z * (1 - z))
    return [x.T @ d1, d1.sum(axis=0), z.T @ d2, d2.sum(axis=0)]


def forwards(dtype: npt.DTypeLike) -> dict[str, Call]:
    """Return a function for each library that passes a batch through the network."""
    net = fastnet.TwoLayerNet(784, 50, 10, dtype=dtype, seed=0)
    x, _ = digits(BATCH, dtype)
    numpy = backends.get("numpy")
    return {"fastnet": lambda: net.predict(x), "numpy": lambda: numpy.forward(spec_of(net), x)}


def softmaxes(shape: tuple[int, int]) -> dict[str, Call]:
    """Return a function for each library that applies softmax to rows."""
    x = np.random.default_rng(0).standard_normal(shape)
    numpy = backends.get("numpy")
    return {"fastnet": lambda: fastnet.softmax(x), "numpy": lambda: numpy.softmax(x)}


def tolerance(dtype: npt.DTypeLike) -> float:
    return 100 * float(np.finfo(np.dtype(dtype)).eps)


def rows(effort: Effort) -> Iterator[Row]:
    for count in effort.thread_counts:
        for dtype in DTYPES:
            with threads(count):
                # The target is for float32. In float64 NumPy's time is nearer to that of the arithmetic alone.
                least = 3 if dtype == "float32" else None
                yield from compare(effort, f"backprop, {dtype}, {on(count)}", gradients(dtype), dtype, least)
    for count in effort.thread_counts:
        for dtype in DTYPES:
            with threads(count):
                yield from compare(effort, f"forward pass, {dtype}, {on(count)}", forwards(dtype), dtype)
    for count in effort.thread_counts:
        with threads(count):
            yield from loops(effort, "float64", count)
    with threads(1):
        yield overhead(effort)


def compare(
    effort: Effort, what: str, calls: dict[str, Call], dtype: str, at_least: float | None = None
) -> Iterator[Row]:
    """Compare fastnet with the other libraries; the target is for the first of them."""
    for answer in calls.values():
        check(what, calls["fastnet"](), answer(), tolerance(dtype))
    ours, *theirs = interleave(effort, calls["fastnet"], *(peer(call) for call in list(calls.values())[1:]))
    for name, timing in zip(list(calls)[1:], theirs, strict=True):
        yield faster(f"{what}, against {name}", ours, timing, at_least)
        at_least = None


def loops(effort: Effort, dtype: str, count: int) -> Iterator[Row]:
    """Compare the textbook's loop in C++, Numba and NumPy at one sample of the parameters."""
    what = f"loop over the parameters, {dtype}, {on(count)}"
    if not backends.has_extension():
        yield skipped(what, "the extension was not built")
        return
    spec = spec_of(fastnet.TwoLayerNet(784, 50, 10, dtype=dtype, seed=0))
    x, t = digits(BATCH, dtype)
    entries, scale = sample_of(spec, effort.loop_entries)

    def loop(name: str) -> Call:
        backend = backends.get(name)  # with the present number of threads
        return lambda: backend.loop(spec, x, t, H[dtype], entries)

    calls = [loop(name) for name in ("cpp", "numba", "numpy")]
    ours, *theirs = [call() for call in calls]
    for answer in theirs:
        check(what, ours, answer, 1e-7)
    cpp, numba, numpy = interleave(
        effort, *(Side(call, scale=scale) for call in calls[:2]), peer(calls[2], scale=scale)
    )
    yield faster(f"{what}: C++ against Numba", cpp, numba, 1.5)
    yield faster(f"{what}: C++ against NumPy", cpp, numpy, 4)


def overhead(effort: Effort) -> Row:
    """Measure the cost of a call of softmax beyond its arithmetic: the larger of two estimates.

    The arithmetic is in proportion to the rows, all else is the same for 100 and for 900: a straight line through
    both, at no rows, is what a call costs by itself. So, almost, is a call with a single row.
    """
    one, few, many = (softmaxes((count, 10)) for count in (1, 100, 900))
    check("softmax", few["fastnet"](), few["numpy"](), 1e-14)
    timings = interleave(effort, *one.values(), *few.values(), *many.values())
    ours, numpy = (beyond_arithmetic(*timings[side::2]) for side in (0, 1))
    row = faster("softmax of 100×10: a call beyond its arithmetic, 1 thread, against numpy's", ours, numpy)
    return row._replace(target="< 3 µs", passed=ours.median < 3e-6)


def beyond_arithmetic(one: Timing, few: Timing, many: Timing) -> Timing:
    turns = zip(one.seconds, few.seconds, many.seconds, strict=True)
    return Timing(tuple(max(a, (9 * b - c) / 8) for a, b, c in turns))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("library", ["fastnet", "numpy", "lean numpy"])
def test_gradient(benchmark: Any, library: str, dtype: str) -> None:
    checked(benchmark, gradients(dtype), library)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("library", ["fastnet", "numpy"])
def test_forward(benchmark: Any, library: str, dtype: str) -> None:
    checked(benchmark, forwards(dtype), library)


@pytest.mark.parametrize("count", [1, 100, 1000])
@pytest.mark.parametrize("library", ["fastnet", "numpy"])
def test_softmax(benchmark: Any, library: str, count: int) -> None:
    checked(benchmark, softmaxes((count, 10)), library)


def checked(benchmark: Any, calls: dict[str, Call], library: str) -> None:
    answer, reference = calls[library](), calls["numpy"]()
    check(library, answer, reference, tolerance(reference[0].dtype))
    benchmark(calls[library])


if __name__ == "__main__":
    main(TITLE, rows)

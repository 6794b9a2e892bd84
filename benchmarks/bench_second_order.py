"""The Hessian's diagonal of the 784-50-10 network against one `nodal` gradient, and its error at a short step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from _measure import (
    THREAD_COUNTS,
    Effort,
    FloatArray,
    IntArray,
    Row,
    accurate,
    check,
    digits,
    flat,
    interleave,
    main,
    on,
    sample_of,
    skipped,
    slower,
    spec_of,
    threads,
)

import fastnet
from fastnet import backends
from fastnet.backends._numpy import second_order

TITLE = "Second derivatives"
DTYPES = ("float64", "float32")
BATCH = 100
H = 1e-5


class Problem:
    """The network, its batch, and what is measured of them."""

    def __init__(self, dtype: str) -> None:
        self.net = fastnet.TwoLayerNet(784, 50, 10, dtype=dtype, seed=0)
        self.spec = spec_of(self.net)
        self.x, self.t = digits(BATCH, dtype)

    def diagonal(self) -> list[FloatArray]:
        return list(self.net.hessian_diagonal(self.x, self.t, H).values())

    def nodal(self) -> list[FloatArray]:
        return list(self.net.numerical_gradient(self.x, self.t, H, algorithm="nodal").values())

    def backprop(self) -> list[FloatArray]:
        return list(self.net.gradient(self.x, self.t).values())

    def product(self) -> list[FloatArray]:
        return list(self.net.hessian_vector_product(self.x, self.t, self.net.params).values())

    def entries(self, count: int) -> tuple[IntArray, FloatArray]:
        """Return the numbers of some parameters, and their second derivatives: products with the unit vectors."""
        numbers, _ = sample_of(self.spec, count)
        wide = self.spec.with_parameters(p.astype(np.float64) for p in self.spec.parameters)
        found = []
        for number in numbers:
            unit = np.zeros(sum(p.size for p in self.spec.parameters))
            unit[number] = 1
            column = second_order.hessian_vector_product(wide, self.x.astype(float), self.t, wide.split(unit))
            found.append(wide.flatten(column)[number])
        return numbers, np.array(found)

    def of_three_losses(self, numbers: IntArray) -> FloatArray:
        """Return the textbook's second differences of some parameters."""
        spec, backend = self.spec.copy(), backends.active()
        middle = backend.loss(spec, self.x, self.t)
        ends = np.cumsum([p.size for p in spec.parameters])
        found = []
        for number in numbers:
            which = int(np.searchsorted(ends, number, side="right"))
            parameter = spec.parameters[which].reshape(-1)
            at = int(number - ends[which] + parameter.size)
            value, sides = parameter[at], []
            for h in (H, -H):
                parameter[at] = value + h
                sides.append(backend.loss(spec, self.x, self.t))
            parameter[at] = value
            found.append((sides[0] - 2 * middle + sides[1]) / H**2)
        return np.array(found)


def rows(effort: Effort) -> Iterator[Row]:
    if not backends.has_extension():
        yield skipped("the Hessian's diagonal", "the extension was not built")
        return
    for dtype in DTYPES:
        problem = Problem(dtype)
        numbers, exact = problem.entries(effort.loop_entries // 5)
        diagonal = flat(problem.diagonal()).astype(np.float64)
        error = float(np.abs(diagonal[numbers] - exact).max() / np.abs(diagonal).max())
        what = f"the Hessian's diagonal, {dtype}: error at h = {H:g}, of the largest entry"
        yield accurate(what, error, 1e-10 if dtype == "float64" else 1e-5)
        plain = float(np.abs(problem.of_three_losses(numbers) - exact).max() / np.abs(diagonal).max())
        yield accurate(f"the same by subtracting three losses, {dtype}", plain, None)
        for count in THREAD_COUNTS:
            with threads(count):
                second, nodal = interleave(effort, problem.diagonal, problem.nodal)
                what = f"the Hessian's diagonal, {dtype}, {on(count)}: against a `nodal` gradient"
                yield slower(what, second, nodal, 2.5)
    problem = Problem("float64")
    product, backprop = interleave(effort, problem.product, problem.backprop)
    yield slower("the Hessian times a vector, float64: against backprop", product, backprop)


@pytest.mark.parametrize("dtype", DTYPES)
def test_diagonal(benchmark: Any, dtype: str) -> None:
    problem = Problem(dtype)
    numbers, exact = problem.entries(50)
    check("diagonal", flat(problem.diagonal())[numbers], exact, 1e-10 if dtype == "float64" else 1e-4)
    benchmark(problem.diagonal)


@pytest.mark.parametrize("dtype", DTYPES)
def test_product(benchmark: Any, dtype: str) -> None:
    benchmark(Problem(dtype).product)


if __name__ == "__main__":
    main(TITLE, rows)

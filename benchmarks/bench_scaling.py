"""How the time of a numerical gradient grows with batch, width, depth and threads, and what it could be.

The time of one gradient is divided by the number of parameters and of rows of data: the NumPy loop needs two forward
passes for each. The distance to the arithmetic limit is the time over that of the multiply-adds that the algorithm
needs (`bench_differences.algorithm_flops`) at the rate of NumPy's best matrix product on the same threads.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
from _measure import (
    FULL,
    Effort,
    Row,
    Side,
    Timing,
    check,
    digits,
    grid,
    interleave,
    main,
    on,
    spec_of,
    threads,
)
from bench_differences import TRUNCATION, H, algorithm_flops, backprop, numerical, square_product

import fastnet
from fastnet import backends
from fastnet._tools.text import format_seconds, three_digits

TITLE = "How the cost grows"
ALGORITHM = "nodal"


class Case(NamedTuple):
    """A network 784-[width]×depth-10, and the number of rows of data."""

    batch: int
    width: int
    depth: int

    def __str__(self) -> str:
        hidden = f"{self.width}" if self.depth == 1 else f"[{self.width}]×{self.depth}"
        return f"784-{hidden}-10, batch {self.batch:,}"


USUAL = Case(100, 50, 1)
GROWS = {
    "batch": [USUAL._replace(batch=batch) for batch in (10, 30, 100, 300, 1000, 3000, 10_000)],
    "width": [USUAL._replace(width=width) for width in (10, 20, 50, 100, 200, 500, 1000, 2000)],
    "depth": [USUAL._replace(width=100, depth=depth) for depth in (1, 2, 3, 4, 6, 8)],
}


def network(case: Case) -> Any:
    return fastnet.MultiLayerNet(
        784, [case.width] * case.depth, 10, activation="sigmoid", weight_init_std="xavier", seed=0
    )


def rows(effort: Effort) -> Iterator[Row]:
    peak = square_product()
    for what, cases in GROWS.items():
        chosen = cases if effort == FULL else [cases[0], cases[len(cases) // 2]]
        for case, count in itertools.product(chosen, effort.thread_counts):
            yield of_case(what, case, count, effort, peak)


def of_case(what: str, case: Case, count: int, effort: Effort, peak: Any) -> Row:
    spec, (x, t) = spec_of(network(case)), digits(case.batch)
    flops = algorithm_flops(ALGORITHM, spec, x, t)
    call = numerical(ALGORITHM, spec, x, t)
    with threads(count):
        check(str(case), call(), backprop(spec, x, t)(), 100 * TRUNCATION)
    ours, theirs = interleave(effort, Side(call, count), Side(peak, count, scale=flops / (2 * 1500**3)))
    best = Timing((min(theirs.seconds),) * len(ours.seconds), scaled=True)
    parameters = sum(p.size for p in spec.parameters)
    each = ours.median / parameters / case.batch
    low, high = np.quantile(ours.seconds, (0.25, 0.75))
    distance = ours.median / best.median
    return Row(
        f"{what}: {case}, {on(count)}",
        str(ours),
        str(best),
        f"{three_digits(distance)}×",
        value=distance,
        steady=bool(high - low <= 0.5 * ours.median),
        data={
            "what": what,
            **case._asdict(),
            "threads": count,
            "parameters": parameters,
            "seconds": ours.median,
            "each": each,
            "limit": best.median,
            "distance": distance,
        },
    )


def table(rows: Iterable[Row]) -> str:
    """Write a line for each case, with the numbers of threads side by side."""
    rows = list(rows)
    counts = sorted({row.data["threads"] for row in rows})
    head = ["what", *(f"{name}, {on(n)}" for n in counts for name in ("time", "each", "distance"))]
    lines: dict[str, list[str]] = {}
    for row in rows:
        cells = lines.setdefault(row.what.rpartition(",")[0], [])
        cells += [row.ours, format_seconds(row.data["each"]), row.ratio + " unsteady" * (not row.steady)]
    return grid(head, ([what, *cells] for what, cells in lines.items()))


NOTE = f"""\
The gradient by `{ALGORITHM}`, float64, h = {H:g}. "each" is the time for one parameter and one row of data;
"distance" the time over that of the arithmetic that the algorithm needs, at this machine's peak."""


@pytest.mark.parametrize("case", [*GROWS["batch"][:3], *GROWS["width"][::3], *GROWS["depth"][1:4]], ids=str)
def test_growth(benchmark: Any, case: Case) -> None:
    if ALGORITHM not in backends.active().algorithms:
        pytest.skip(f"the {backends.active().name} backend has no {ALGORITHM}")
    spec, (x, t) = spec_of(network(case)), digits(case.batch)
    call = numerical(ALGORITHM, spec, x, t)
    check(str(case), call(), backprop(spec, x, t)(), 100 * TRUNCATION)
    benchmark(call)


if __name__ == "__main__":
    main(TITLE, rows, table)

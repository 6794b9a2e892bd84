"""The library's own comparisons: every method for one gradient, and the errors by step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from _measure import FULL, Effort, Row, digits, main, power_of_ten

import fastnet
from fastnet._tools.text import format_seconds, three_digits

TITLE = "Every method for one gradient"


def network() -> fastnet.TwoLayerNet:
    return fastnet.TwoLayerNet(784, 50, 10, seed=0)


def rows(effort: Effort) -> Iterator[Row]:
    net, (x, t) = network(), digits(100)
    comparison = fastnet.compare_gradients(net, x, t, sample=effort.loop_entries, repeat=effort.rounds)
    for method in comparison.rows:
        data = {"kind": "method", **method.to_dict(), "network": comparison.network, "build": comparison.build_info}
        yield Row(
            f"784-50-10, float64, batch 100: {method.name}",
            format_seconds(method.seconds) + "*" * method.sampled,
            ratio="" if method.times_faster is None else f"{three_digits(method.times_faster)}×",
            value=method.times_faster,
            data=data,
        )
    steps = fastnet.compare_steps(net, x, t, sample=effort.loop_entries if effort == FULL else 100)
    for row in steps.to_dict()["rows"]:
        yield Row(
            f"error at h = {power_of_ten(row['h'])}, float64, float32: {steps.algorithm}, and the loop",
            ", ".join(power_of_ten(error) for error in row["exact"].values()),
            ", ".join("-" if error is None else power_of_ten(error) for error in row["loop"].values()),
            data={"kind": "step", "algorithm": steps.algorithm, **row},
        )


def test_numerical_gradient(benchmark: Any) -> None:
    net, (x, t) = network(), digits(100)
    benchmark(net.numerical_gradient, x, t)


if __name__ == "__main__":
    main(TITLE, rows)

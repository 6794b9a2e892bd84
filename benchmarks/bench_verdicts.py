"""Verdicts on gradients: false alarms and missed mistakes among random networks, and the time of a layer's check."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _measure import FULL, Effort, Row, Side, Timing, digits, interleave, main

import fastnet

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))  # the tests draw the same networks
from random_networks import MISTAKES, mistaken, network_of

TITLE = "Verdicts on gradients"


def within(what: str, timing: Timing, most_seconds: float) -> Row:
    return Row(what, str(timing), "", "", f"< {most_seconds:g} s", timing.median < most_seconds)


def layer_problem() -> tuple[fastnet.layers.Layer, Any]:
    rng = np.random.default_rng(0)
    return fastnet.layers.Affine(rng.standard_normal((784, 50)) / 28, np.zeros(50)), rng.random((100, 784))


def rows(effort: Effort) -> Iterator[Row]:
    seeds = range(200 if effort == FULL else 8)
    failed = inconclusive = 0
    passed = dict.fromkeys(MISTAKES, 0)
    for seed in seeds:
        net, (x, t) = network_of(seed)
        check = fastnet.check_gradient(net, net.gradient, (x, t))
        failed += check.failed > 0
        inconclusive += check.inconclusive
        gradient = net.gradient(x, t)
        for kind in MISTAKES:
            wrong, where = mistaken(kind, net, gradient, x, t, seed)
            found = fastnet.check_gradient(net, wrong, (x, t), worst=1)
            passed[kind] += not found.failed or (where is not None and found.worst[0].name not in where)
    count = len(seeds)
    yield Row(f"{count} right gradients: FAILED", f"{failed}", target="0", passed=failed == 0)
    yield Row(f"{count} right gradients: INCONCLUSIVE", f"{inconclusive}", target="≤ 2", passed=inconclusive <= 2)
    for kind, missed in passed.items():
        yield Row(f"{count} with a mistake ({kind}): missed", f"{missed}", target="0", passed=missed == 0)

    layer, batch = layer_problem()
    (timing,) = interleave(effort, Side(lambda: fastnet.check_layer(layer, batch)))
    yield within("check_layer, affine 784×50, batch 100", timing, 1.0)
    net, (x, t) = fastnet.TwoLayerNet(784, 50, 10, seed=0), digits(100)
    (timing,) = interleave(effort, Side(lambda: net.numerical_input_gradient(x, t)))
    yield within("gradient with respect to the inputs by exact differences, 784-50-10, batch 100", timing, 0.01)
    (timing,) = interleave(effort, Side(lambda: net.input_gradient(x, t)))
    yield Row("the same by backprop", str(timing))


@pytest.mark.parametrize("what", ["layer", "numerical inputs", "inputs"])
def test_verdicts(benchmark: Any, what: str) -> None:
    layer, batch = layer_problem()
    net, (x, t) = fastnet.TwoLayerNet(784, 50, 10, seed=0), digits(100)
    calls = {
        "layer": lambda: fastnet.check_layer(layer, batch),
        "numerical inputs": lambda: net.numerical_input_gradient(x, t),
        "inputs": lambda: net.input_gradient(x, t),
    }
    benchmark(calls[what])


if __name__ == "__main__":
    main(TITLE, rows)

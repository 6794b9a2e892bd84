"""The differences of every stage with every loss, at any step, against long double."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest

from fastnet.backends.spec import Activation, Loss, NetworkSpec, Output, StageKind, Windows
from stages import activation, affine, batch, batch_norm, convolution, differences, dropout, largest_of, off, pooling
from stages_in_long_double import central_differences


@pytest.fixture
def stages(backend):
    return backend


# Every output and loss that has exact differences.
EVERY_ANSWER = [
    (output, loss)
    for output, loss in itertools.product(Output, Loss)
    if (output, loss) != (Output.IDENTITY, Loss.CROSS_ENTROPY)
]
CURVES = [kind for kind in Activation if kind not in (Activation.IDENTITY, Activation.STEP)]


def small_networks(rng, dtype, kind):
    """By name, stages that take 18 inputs and give 3 classes: every stage, alone and behind others."""
    image = Windows(2, 3, 3, 2, 2, 1, 1, 1, 0)
    conv = convolution(rng, image, 2, dtype)  # 2 x 4 x 2
    largest = pooling(StageKind.MAX_POOLING, Windows(2, 4, 2, 2, 2, 1, 1, 1, 1))
    mean = pooling(StageKind.AVERAGE_POOLING, Windows(2, 4, 2, 2, 2, 2, 1))
    second = convolution(rng, Windows(2, 2, 1, 2, 1), 3, dtype, bias=False)

    def curve(units):
        return activation(units, kind, 0.25)

    return {
        "affine": (affine(rng, 18, 3, dtype),),
        "deep": (affine(rng, 18, 4, dtype), curve(4), affine(rng, 4, 5, dtype), curve(5), affine(rng, 5, 3, dtype)),
        "dropout": (affine(rng, 18, 6, dtype), curve(6), dropout(6), affine(rng, 6, 3, dtype)),
        "norm": (affine(rng, 18, 4, dtype), batch_norm(rng, 4, dtype=dtype), curve(4), affine(rng, 4, 3, dtype)),
        "two norms": (
            affine(rng, 18, 4, dtype, bias=False),
            batch_norm(rng, 4, dtype=dtype),
            curve(4),
            dropout(4),
            affine(rng, 4, 3, dtype),
            batch_norm(rng, 3, dtype=dtype),
        ),
        "max pooling": (conv, curve(16), largest, affine(rng, largest.outputs, 3, dtype)),
        "average pooling": (curve(18), conv, mean, affine(rng, mean.outputs, 3, dtype)),
        "two convolutions": (
            conv,
            batch_norm(rng, 16, 8, dtype),
            curve(16),
            mean,
            second,
            dropout(second.outputs),
            affine(rng, second.outputs, 3, dtype),
        ),
    }


def small_case(name, number, dtype):
    """A network with the loss of this number, another activation for each, its batch, and some of its entries."""
    rng = np.random.default_rng(number)
    kind = CURVES[number % len(CURVES)]
    stages = small_networks(rng, dtype, kind)[name]
    spec = NetworkSpec(stages, *EVERY_ANSWER[number], np.dtype(dtype), loss_constant=0.5, weight_decay=0.1)
    x, t = batch(rng, 18, dtype, rows=5)
    if number % 2:
        t = rng.dirichlet(np.ones(3), len(x)).astype(dtype)
    sizes = [p.size for p in spec.parameters]
    entries = [
        end - size + at
        for size, end in zip(sizes, np.cumsum(sizes), strict=True)
        for at in np.linspace(0, size - 1, min(size, 3)).astype(int)
    ]
    return spec, x, t, np.array(entries)


@functools.cache  # All backends are compared with the same numbers.
def expected_differences(name, number, dtype, h):
    return central_differences(*small_case(name, number, dtype)[:3], h, small_case(name, number, dtype)[3])


@pytest.mark.parametrize("name", small_networks(np.random.default_rng(0), "float64", Activation.TANH))
@pytest.mark.parametrize("h", [2.0**-10, 2.0**-3])
def test_differences_are_those_of_long_double(stages, oracle, dtype, name, h):
    """The central differences themselves, of every loss, however large the step, kinks and new winners included."""
    eps = np.finfo(dtype).eps
    for number, answer in enumerate(EVERY_ANSWER):
        spec, x, t, entries = small_case(name, number, dtype)
        expected = expected_differences(name, number, dtype, h)
        found = {
            nodal: differences(stages, spec, x, t, h, nodal)[0]
            for nodal in (False, True)
            if not nodal or "nodal" in stages.algorithms
        }
        largest = largest_of(found[False])
        for nodal, gradients in found.items():
            flat = np.concatenate([g.ravel() for g in gradients])[entries]
            assert np.abs(flat - expected).max() < 100 * eps * largest, (answer, nodal)
        loop = stages.loop(spec, x, t, h, entries)
        loss = stages.loss(spec, x, t, training=True, counts=False)
        assert np.abs(loop - expected).max() < 20 * eps * (loss / h + largest), (answer, "loop")
        if h < 0.1:  # A finer step is enough for backprop, and once is enough.
            fine = differences(stages, spec, x, t, float(eps))[0]
            assert off(stages.loss_and_gradient(spec, x, t, inputs=False)[1], fine) < 100 * eps, answer

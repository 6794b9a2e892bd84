"""Backprop of narrow layers, which has the rows of x in the lanes: the bits of the usual layout."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from chains import ANSWERS, MORE_ANSWERS, chain
from fastnet import backends
from fastnet.backends.spec import Activation

if not backends.has_extension():
    pytest.skip("fastnet was installed without its extension", allow_module_level=True)

from fastnet import _core

KINDS = list(Activation)
CONSTANTS = {Activation.LEAKY_RELU: 0.01, Activation.ELU: 1.5}


def network(widths, kinds, dtype, **options):
    return chain(widths, kinds, dtype, constants=tuple(CONSTANTS.get(kind, 0.0) for kind in kinds), **options)


def data(rows, spec, dtype, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((rows, spec.inputs)).astype(dtype), rng.integers(0, spec.parameters[-1].shape[-1], rows)


def assert_both_layouts(spec, x, t, with_threads):
    """Where there are more threads than chunks of 256 rows, layers of more than 32 units are not narrow."""
    found = []
    for threads in (1, 64):
        with_threads(threads)
        loss, gradients, _ = _core.loss_and_gradient(spec, x, t)
        found.append([np.array(loss), *gradients])
    for narrow, wide in zip(*found, strict=True):
        np.testing.assert_array_equal(narrow, wide)


@pytest.mark.parametrize("rows", [8, 16, 31, 32, 33, 100, 256, 257, 600])
@pytest.mark.parametrize("widths", [(5, 40, 3), (1, 33, 1), (70, 64, 50, 33), (256, 33, 2)], ids=str)
def test_any_sizes(core, dtype, with_threads, rows, widths):
    spec = network(widths, [Activation.TANH] * (len(widths) - 1), dtype)
    assert_both_layouts(spec, *data(rows, spec, dtype), with_threads)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name.lower())
def test_every_activation(core, dtype, with_threads, kind):
    for biased in (True, False):
        spec = network((7, 40, 9, 5), (kind, kind, Activation.IDENTITY), dtype, biased=biased)
        assert_both_layouts(spec, *data(300, spec, dtype), with_threads)


@pytest.mark.parametrize(
    "answer", [*ANSWERS, *MORE_ANSWERS], ids=lambda answer: "-".join(a.name.lower() for a in answer)
)
@pytest.mark.parametrize("classes", [1, 4, 10, 16, 17, 40])
def test_every_loss(core, dtype, with_threads, answer, classes):
    spec = network((6, 35, classes), (Activation.SIGMOID, Activation.IDENTITY), dtype, answer=answer)
    x, labels = data(270, spec, dtype)
    rows = np.random.default_rng(1).random((270, classes)).astype(dtype)
    for t in (labels, rows):
        assert_both_layouts(spec, x, t, with_threads)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 1e30, 1e-42])
def test_numbers_that_are_hardly_numbers(core, dtype, with_threads, wrong):
    for where, kind in itertools.product(("x", "weight", "bias"), (Activation.RELU, Activation.TANH)):
        spec = network((6, 35, 4), (kind, Activation.IDENTITY), dtype)
        x, t = data(40, spec, dtype)
        {"x": x, "weight": spec.parameters[0], "bias": spec.parameters[1]}[where].reshape(-1)[3] = wrong
        assert_both_layouts(spec, x, t, with_threads)


def test_its_layers_against_wide_ones_of_the_same_sums(core, dtype):
    """Units that do nothing make a layer wide, and change no bit of the others' gradients."""
    narrow = network((6, 20, 4), (Activation.TANH, Activation.IDENTITY), dtype)
    wide = network((6, 200, 4), (Activation.TANH, Activation.IDENTITY), dtype)
    for p, q in zip(wide.parameters, narrow.parameters, strict=True):
        p[...] = 0
        p[tuple(slice(n) for n in q.shape)] = q
    x, t = data(300, narrow, dtype)
    loss, gradients, _ = _core.loss_and_gradient(narrow, x, t)
    wide_loss, wide_gradients, _ = _core.loss_and_gradient(wide, x, t)
    assert loss == wide_loss
    for g, wide_g in zip(gradients, wide_gradients, strict=True):
        np.testing.assert_array_equal(g, wide_g[tuple(slice(n) for n in g.shape)])

"""Networks of layers for the tests, and what is compared of them."""

from __future__ import annotations

import numpy as np

import fastnet
from fastnet.layers import Affine


def batch_of(rows=20, inputs=6, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((rows, inputs)), rng.integers(0, classes, rows)


def affine(rng, inputs, outputs, dtype="float64", biased=True):
    W = (rng.standard_normal((inputs, outputs)) / np.sqrt(inputs)).astype(dtype)
    return Affine(W, rng.standard_normal(outputs).astype(dtype) if biased else None)


def everything():
    """A network with all that a chain has not."""
    return fastnet.MultiLayerNet(
        6, [5, 4], 3, activation="tanh", weight_decay_lambda=0.1, use_batchnorm=True, dropout_ratio=0.3, seed=0
    )


def snapshot(net):
    return {name: array.copy() for name, array in (net.params | net.state).items()}


def assert_same(net, before):
    after = net.params | net.state
    assert list(after) == list(before)
    for name, array in after.items():
        assert array.tobytes() == before[name].tobytes(), name

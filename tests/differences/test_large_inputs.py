"""Inputs up to the largest numbers: exact differences are finite where the loop is, and no less accurate.

`tests/stress` tries all of the networks.
"""

from __future__ import annotations

import numpy as np
import pytest

import large_inputs
from chains import I, S, chain, exact
from fastnet.backends.spec import Activation

EVERY = 53  # th network; no factor of the numbers of their properties


@pytest.mark.usefixtures("oracle")
@pytest.mark.parametrize("offset", range(2))
def test_large_inputs(backend, offset):
    sample = range(offset * 26, large_inputs.COUNT, EVERY * (3 if backend.name == "numpy" else 1))
    assert [fault for number in sample for fault in large_inputs.faults(backend, number)] == []


@pytest.mark.usefixtures("oracle")
@pytest.mark.parametrize("number", [1661, 2126])
def test_last_units_come_back_near_0_from_far_behind_two_layers(backend, number):
    assert large_inputs.faults(backend, number) == []


@pytest.mark.parametrize("kind", [Activation.RELU, Activation.SIGMOID], ids=lambda kind: kind.name.lower())
@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
def test_one_outlier_among_ordinary_rows(backend, dtype, kind, sparse):
    spec = chain((70, 5, 3), (kind, I), dtype)
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((20, 70)).astype(dtype), np.arange(20) % 3
    x[rng.random(x.shape) < 0.9 * sparse] = 0
    x[7, :3] = 1e8 if dtype == "float32" else 1e100
    loop = spec.split(backend.loop(spec, x, t, 0.1, large_inputs.every_entry(spec)))
    assert all(np.isfinite(gradient).all() for gradient in loop)
    for algorithm in exact(backend):
        gradients, _ = getattr(backend, algorithm)(spec, x, t, 0.1)
        for gradient, by_loop in zip(gradients, loop, strict=True):
            assert np.isfinite(gradient).all()
            # The loop's rounding error: some units of the losses, over the step.
            np.testing.assert_allclose(gradient, by_loop, rtol=1e-2, atol=1e3 * np.finfo(dtype).eps)


def test_small_steps_and_inputs_leave_nothing_infinite(backend, dtype):
    spec = chain((3, 4, 2), (S, I), dtype, biased=False)
    x = np.full((2, 3), 3e-7 if dtype == "float32" else 3e-30, dtype)
    for algorithm in exact(backend):
        gradients, _ = getattr(backend, algorithm)(spec, x, np.array([0, 1]), 1e-4)
        assert all(np.isfinite(gradient).all() for gradient in gradients)

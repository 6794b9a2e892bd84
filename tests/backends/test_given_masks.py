"""Dropout with a given mask: the bits of the same mask drawn, the differences of long double, masks that misfit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fastnet import backends
from fastnet.backends._numpy.stage_kinds import mask_of
from fastnet.backends.spec import NetworkSpec, StageKind
from fastnet.backends.training import Batches, GradientKind, Rule, Update
from stages import activation, affine, batch, batch_norm, differences, dropout, largest_of, off
from stages_in_long_double import central_differences

ROWS = 6


def drawn(dtype="float64"):
    """Two dropouts, in front of and behind a batch normalisation."""
    rng = np.random.default_rng(0)
    norm = affine(rng, 7, 5, dtype), batch_norm(rng, 5, dtype=dtype), activation(5)
    stages = (dropout(7), *norm, dropout(5), affine(rng, 5, 3, dtype))
    return NetworkSpec(stages, dtype=np.dtype(dtype), weight_decay=0.1)


def given(make, dtype="float64", scale=1.0):
    """The same network with the masks make(stage, shape, dtype)."""
    spec = drawn(dtype)
    stages = (
        replace(stage, mask=make(stage, (ROWS, stage.inputs), spec.dtype), random=None, scale=scale)
        if stage.kind == StageKind.DROPOUT
        else stage
        for stage in spec.stages
    )
    return replace(spec, stages=tuple(stages))


def test_a_given_mask_has_the_bits_of_the_same_mask_drawn(backend, dtype):
    x, t = batch(np.random.default_rng(1), 7, dtype)
    d = np.random.default_rng(2).standard_normal((ROWS, 3)).astype(dtype)
    calls = [
        lambda spec: [backend.loss(spec, x, t, training=True, counts=False)],
        lambda spec: [backend.loss_and_gradient(spec, x, t, inputs=True)],
        lambda spec: [backend.units(spec, x, counts=False)],
        lambda spec: [backend.backward(spec, x, d, True)],
        lambda spec: backend.incremental(spec, x, t, 1e-4)[0],
        lambda spec: differences(backend, spec, x, t, 1e-4)[0],
        lambda spec: [backend.loop(spec, x, t, 1e-4, np.arange(20))],
    ]
    for call in calls:
        np.testing.assert_equal(call(given(mask_of, dtype)), call(drawn(dtype)))


def test_differences_and_backprop_with_any_factors(backend, dtype):
    """Masks of 1 and 0, as the book has them, and of any numbers, against the definition in long double."""
    rng, eps, h = np.random.default_rng(3), np.finfo(dtype).eps, 2.0**-10
    x, t = batch(rng, 7, dtype)
    for make in (
        lambda stage, shape, dtype: (rng.random(shape) > 0.5).astype(dtype),
        lambda stage, shape, dtype: rng.standard_normal(shape).astype(dtype),
    ):
        spec = given(make, dtype)
        entries = np.arange(sum(p.size for p in spec.parameters))
        expected = central_differences(spec, x, t, h, entries)
        for found in (backend.incremental(spec, x, t, h)[0], differences(backend, spec, x, t, h)[0]):
            assert np.abs(spec.flatten(found) - expected).max() < 100 * eps * largest_of(found)
        loss = backend.loss(spec, x, t, training=True, counts=False)
        loop = backend.loop(spec, x, t, h, entries)
        assert np.abs(loop - expected).max() < 20 * eps * (loss / h + largest_of(found))
        fine = backend.incremental(spec, x, t, float(eps))[0]
        assert off(backend.gradient(spec, x, t), fine) < 100 * eps


def test_inference_multiplies_by_the_scale(backend, dtype):
    """The mask plays no part, whatever its shape."""
    x, _ = batch(np.random.default_rng(1), 7, dtype, rows=9)
    spec = given(lambda stage, shape, dtype: np.full(shape, np.nan, dtype), dtype, scale=0.25)
    masked = (replace(s, kind=StageKind.AFFINE, weight=np.eye(s.inputs, dtype=dtype) / 4) for s in spec.stages[::4])
    first, second = masked
    same = replace(spec, stages=(first, *spec.stages[1:4], second, spec.stages[5]))
    np.testing.assert_allclose(backend.forward(spec, x), backend.forward(same, x), rtol=20 * np.finfo(dtype).eps)


def test_masks_that_do_not_fit(backend):
    x, t = batch(np.random.default_rng(1), 7)
    calls = [
        lambda spec: backend.loss(spec, x, t, training=True),
        lambda spec: backend.loss_and_gradient(spec, x, t),
        lambda spec: backend.units(spec, x, counts=True),
        lambda spec: backend.backward(spec, x, np.ones((ROWS, 3)), True),
        lambda spec: backend.loop(spec, x, t, 1e-4, np.arange(2)),
        lambda spec: backend.incremental(spec, x, t, 1e-4),
    ]
    for shape in ((ROWS - 1, 7), (ROWS + 1, 7), (ROWS, 6), (0, 7)):
        for call in calls:
            with pytest.raises(ValueError, match=rf"mask.* \({shape[0]}, {shape[1]}\)"):
                call(given(lambda stage, right, dtype, shape=shape: np.ones(shape if right[1] == 7 else right)))


@pytest.mark.parametrize("name", ["cpp", "numba"])
def test_training_in_the_backend_draws_its_masks(name):
    if name not in backends.available():
        pytest.skip("there is no extension")
    backend, spec = backends.get(name), given(mask_of)
    x, t = batch(np.random.default_rng(1), 7)
    batches = Batches(backend.prepare(x), t, np.arange(ROWS), ROWS)
    update = Update(Rule.SGD, (), np.array([[0.1]]), ())
    before, losses, done = [p.copy() for p in spec.parameters], np.zeros(1), np.zeros(1, np.int64)
    with pytest.raises(ValueError, match="masks of dropout are given for one batch"):
        backend.train(spec, batches, GradientKind.BACKPROP, 1e-4, update, losses, done, given(mask_of))
    np.testing.assert_equal(spec.parameters, before)


def test_the_extension_checks_a_mask(core):
    x = np.ones((ROWS, 7))
    for mask, message in (
        (np.ones((ROWS, 7), "float32"), "mask must be float64"),
        (np.ones(7), "mask must have 2 dimensions|mask"),
        (np.asfortranarray(np.ones((ROWS, 7))), "mask must be C-contiguous"),
    ):
        spec = NetworkSpec((replace(dropout(7), mask=mask), affine(np.random.default_rng(0), 7, 3)))
        with pytest.raises((TypeError, ValueError), match=message):
            backends.get("cpp").units(spec, x, counts=False)

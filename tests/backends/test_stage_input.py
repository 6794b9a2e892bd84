"""Networks of stages with what does not fit, is not finite, or has one row: the same answer on every backend."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace

import numpy as np
import pytest

import fastnet
from fastnet import backends
from fastnet.backends.spec import NetworkSpec, StageKind, Windows
from fastnet.layers import (
    AveragePooling,
    BatchNorm,
    Convolution,
    Dropout,
    Flatten,
    MaxPooling,
    ReLU,
    SoftmaxWithLoss,
    Tanh,
)
from layer_networks import affine, assert_same, snapshot
from stages import activation, batch_norm, convolution, dropout, pooling
from stages import affine as affine_stage

METHODS = (
    "predict",
    "loss",
    "training_loss",
    "gradient",
    "input_gradient",
    "numerical_gradient",
    "numerical_input_gradient",
)


def network(*layers):
    return fastnet.Network(layers, SoftmaxWithLoss())


def filters(*shape):
    return Convolution(np.random.default_rng(0).standard_normal(shape))


def norm(columns):
    return BatchNorm(np.ones(columns), np.zeros(columns))


def behind(units):
    return Flatten(), affine(np.random.default_rng(0), units, 3)


MISFITS = {
    "a filter larger than the image": ((filters(2, 1, 3, 3), *behind(8)), (2, 1, 2, 2), "a window of 3×3 does not fit"),
    "a window larger than what comes": ((filters(2, 1, 2, 2), MaxPooling(3, 3), *behind(2)), (2, 1, 3, 3), "of 3×3"),
    "a mean of more than what comes": ((filters(2, 1, 2, 2), AveragePooling(3, 3), *behind(2)), (2, 1, 3, 3), "of 3×3"),
    "channels of the images": ((filters(2, 1, 3, 3), *behind(8)), (2, 3, 4, 4), r"x has 3 channel\(s\) for filters"),
    "channels between layers": ((filters(2, 1, 1, 1), filters(2, 3, 1, 1), *behind(8)), (2, 1, 2, 2), "2 channel"),
    "channels of BatchNorm": (
        (filters(2, 1, 1, 1), norm(3), *behind(8)),
        (2, 1, 2, 2),
        r"2 channel\(s\) for BatchNorm",
    ),
    "what is left of images": (
        (filters(2, 1, 2, 2), *behind(8)),
        (2, 1, 4, 4),
        "x has 18 columns for weights of shape",
    ),
    "no Flatten": ((filters(2, 1, 1, 1), behind(8)[1]), (2, 1, 2, 2), r"x must have shape \(batch, 8\)"),
    "images as answers": ((filters(3, 1, 2, 2),), (2, 1, 2, 2), r"gave shape \(2, 3, 1, 1\)"),
    "rows for a convolution": ((filters(2, 1, 1, 1), *behind(8)), (2, 4), "put Reshape"),
    "no images": ((filters(2, 1, 1, 1), *behind(8)), (0, 1, 2, 2), "no dimension 0"),
}


@pytest.mark.parametrize("what", MISFITS)
def test_what_does_not_fit_is_refused_and_changes_nothing(backend, what):
    layers, shape, message = MISFITS[what]
    net = network(*(copy.deepcopy(layer) for layer in layers))
    before = snapshot(net)
    for method in METHODS:
        arguments = (np.ones(shape), [0, 1][: shape[0]])
        with pytest.raises(ValueError, match=message):
            getattr(net, method)(*arguments[: 1 if method == "predict" else 2])
    assert_same(net, before)


STACKS = {
    "max pooling": lambda rng: (
        (filters(2, 1, 2, 2), MaxPooling(2, 2, pad=1), Flatten(), affine(rng, 32, 3)),
        (3, 1, 4, 4),
    ),
    "max pooling first": lambda rng: (
        (MaxPooling(2, 2), Tanh(), filters(2, 1, 2, 2), Flatten(), affine(rng, 8, 3)),
        (3, 1, 4, 4),
    ),
    "average pooling": lambda rng: (
        (AveragePooling(2, 2), ReLU(), filters(2, 1, 2, 2), Flatten(), affine(rng, 8, 3)),
        (3, 1, 4, 4),
    ),
    "norm": lambda rng: ((affine(rng, 5, 4), norm(4), ReLU(), affine(rng, 4, 3)), (3, 5)),
    "dropout": lambda rng: ((affine(rng, 5, 4), Tanh(), Dropout(0.5, seed=0), affine(rng, 4, 3)), (3, 5)),
}
BATCHES = {
    "NaN": lambda x: np.put(x[1], 3, np.nan),
    "infinity": lambda x: np.put(x[1], 3, np.inf),
    "minus infinity": lambda x: np.put(x[1], 3, -np.inf),
    "a row of minus infinity": lambda x: x[0].fill(-np.inf),
    "one row": None,
}


@pytest.mark.parametrize("stack", STACKS)
def test_numbers_that_are_not_finite_and_single_rows(backend, stack):
    """Values, state, backprop and exact differences are those of the layers one by one, and of the reference."""
    for what, change in BATCHES.items():
        rng = np.random.default_rng(0)
        layers, shape = STACKS[stack](rng)
        x = rng.standard_normal(shape)
        if change is None:
            x = x[:1]
        else:
            change(x)
        t = np.arange(len(x))

        def everything(net, x=x, t=t, by_stages=True):
            found = {"loss": net.loss(x, t), "answer": net.predict(x), "training": net.training_loss(x, t)}
            found |= net.gradient(x, t) | {"x": net.input_gradient(x, t)} | net.state
            algorithms = [name for name in backends.active().algorithms if name != "loop"] if by_stages else []
            for name, algorithm in itertools.product(net.params, algorithms):
                found[f"{name} by differences"] = net.numerical_gradient(x, t, algorithm=algorithm)[name]
            return found

        net, twin, reference = (network(*copy.deepcopy(layers)) for _ in range(3))
        twin._staged = False
        found = everything(net)
        expected = everything(twin, by_stages=False)
        with fastnet.use_backend("numpy"):
            expected = everything(reference) | expected
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-9, atol=1e-9, err_msg=f"{what}: {name}")


def test_batch_normalisation_of_one_row(backend):
    """In training its answer is beta, whatever the row is: no gradient reaches what is before it, nor gamma."""
    rng = np.random.default_rng(0)
    net = network(affine(rng, 5, 4), BatchNorm(rng.standard_normal(4), np.array([0.1, -0.2, 0.3, 0.4])))
    x, t = rng.standard_normal((1, 5)), [2]
    scores = np.array([0.1, -0.2, 0.3, 0.4])
    answer = np.exp(scores) / np.exp(scores).sum()
    assert net.training_loss(x, t) == pytest.approx(-np.log(answer[2] + 1e-7), rel=1e-12)
    np.testing.assert_array_equal(net.state["running_var1"], 0)
    for gradient in (net.gradient(x, t), net.numerical_gradient(x, t)):
        for name in ("W1", "b1", "gamma1"):
            np.testing.assert_array_equal(gradient[name], 0)
        np.testing.assert_allclose(gradient["beta1"], answer - np.eye(4)[2], rtol=1e-5)


def stack_of_stages(place=None, **changed):
    """One stage of each kind but average pooling, the one at `place` changed."""
    rng = np.random.default_rng(0)
    stages = [
        convolution(rng, Windows(2, 3, 3, 2, 2, 1, 1, 1, 0), 2),
        batch_norm(rng, 16, 8),
        activation(16),
        dropout(16),
        pooling(StageKind.MAX_POOLING, Windows(2, 4, 2, 2, 2)),
        affine_stage(rng, 6, 3),
    ]
    if place is not None:
        stages[place] = replace(stages[place], **changed)
    return NetworkSpec(tuple(stages))


def frozen(array):
    array.flags.writeable = False
    return array


UNFIT = [
    (0, {"inputs": 17}, "its windows do not fit its image"),
    (0, {"outputs": 18}, "its outputs do not fit its windows"),
    (0, {"weight": None}, "weight must be a NumPy array"),
    (0, {"weight": np.ones((2, 1, 2, 2))}, r"weight has shape \(2, 1, 2, 2\)"),
    (0, {"weight": np.ones((2, 2, 2, 2), "float32")}, "weight must be float64"),
    (0, {"weight": np.asfortranarray(np.ones((2, 2, 2, 2)))}, "weight must be C-contiguous"),
    (0, {"bias": np.ones(3)}, r"bias has shape \(3,\)"),
    (0, {"windows": Windows(2, 3, 3, 0, 2, 1, 1, 1, 0)}, "its windows do not fit its image"),
    (0, {"windows": Windows(2, 3, 3, 2, 2, 0, 1, 1, 0)}, "its windows do not fit its image"),
    (0, {"windows": Windows(2, 3, 3, 2, 2, 1, 1, -1, 0)}, "its windows do not fit its image"),
    (0, {"windows": Windows(2, 3, 3, 2, 2, 1, 1, 2, 0)}, "its windows do not fit its image"),
    (0, {"windows": Windows(2, 3, 3, 9, 2)}, "its windows do not fit its image"),
    (0, {"windows": Windows(2**40, 2**40, 3, 2, 2)}, "its windows do not fit its image"),
    (1, {"positions": 0}, "its positions do not fit its units"),
    (1, {"positions": -8}, "its positions do not fit its units"),
    (1, {"positions": 3}, "its positions do not fit its units"),
    (1, {"weight": np.ones(3)}, r"weight has shape \(3,\)"),
    (1, {"bias": None}, "has no beta"),
    (1, {"running_mean": np.zeros(3)}, "running_mean has 3 elements, not 2"),
    (1, {"running_mean": frozen(np.zeros(2))}, "running_mean is read-only"),
    (1, {"running_var": None}, "running_var must be a NumPy array"),
    (1, {"passes": np.zeros(2, np.int64)}, "passes has 2 elements"),
    (1, {"passes": np.zeros(1, np.int32)}, "passes must be int64"),
    (2, {"activation": 99}, "there is no activation 99"),
    (2, {"inputs": 15}, "does not fit the stage before it"),
    (2, {"outputs": 15}, "has as many outputs as inputs"),
    (3, {"ratio": 1.0}, "the ratio is out of range"),
    (3, {"ratio": -0.1}, "the ratio is out of range"),
    (3, {"ratio": float("nan")}, "the ratio is out of range"),
    (3, {"random": None}, "random must be a NumPy array"),
    (3, {"random": np.zeros(2, np.uint64)}, "random has 2 elements, not 3"),
    (3, {"random": np.zeros(3, np.int64)}, "random must be uint64"),
    (3, {"random": frozen(np.zeros(3, np.uint64))}, "random is read-only"),
    (4, {"windows": Windows(3, 4, 2, 2, 2)}, "its windows do not fit its image"),
    (4, {"outputs": 7}, "its outputs do not fit its windows"),
    (5, {"weight": np.ones((7, 3))}, r"weight has shape \(7, 3\)"),
    (5, {"kind": 42}, "there is no kind 42"),
]


def test_the_extension_checks_what_its_kernels_rely_on(core):
    """They read memory by pointers."""
    extension, x, t = backends.get("cpp"), np.ones((5, 18)), np.arange(5) % 3
    calls = [
        lambda spec: extension.forward(spec, x),
        lambda spec: extension.loss_and_gradient(spec, x, t, inputs=True),
        lambda spec: extension.loop(spec, x, t, 1e-3, np.arange(2)),
        lambda spec: extension.nodal(spec, x, t, 1e-3),
        lambda spec: extension.units(spec, x, counts=True),
    ]
    for call in calls:
        call(stack_of_stages())
        for place, changed, message in UNFIT:
            with pytest.raises((ValueError, TypeError), match=rf"stage {place + 1}\b.*{message}|{message}"):
                call(stack_of_stages(place, **changed))
        with pytest.raises(ValueError, match="at least one stage"):
            call(NetworkSpec(()))
    spec = stack_of_stages()
    for rows, targets, message in (
        (x[:, :5].copy(), t, "x has 5 columns for a network of 18 inputs"),
        (x, t + 9, "t\\[0\\] is 9, which is not a label of 3 classes"),
        (x, t - 9, "t\\[0\\] is -9, which is not a label of 3 classes"),
        (x, t[:2].copy(), r"t has shape \(2,\) for 5 rows"),
        (x, np.ones((5, 4)), r"t has shape \(5, 4\) for an answer of shape \(5, 3\)"),
        (x[:0].copy(), t[:0].copy(), "no rows"),
    ):
        with pytest.raises(ValueError, match=message):
            extension.nodal(spec, rows, targets, 1e-3)
    for entry in (-1, 10**6):
        with pytest.raises(ValueError, match=rf"entries\[0\] is {entry}"):
            extension.loop(spec, x, t, 1e-3, np.array([entry]))

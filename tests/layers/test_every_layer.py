"""What holds for every layer: dtypes, copies, text, and its mistakes."""

from __future__ import annotations

import copy
import pickle
import re

import numpy as np
import pytest

from fastnet import layers
from fastnet.layers import (
    Add,
    Affine,
    AveragePooling,
    BatchNorm,
    Convolution,
    Dropout,
    Flatten,
    IdentityWithLoss,
    LeakyReLU,
    MaxPooling,
    Mul,
    ReLU,
    Reshape,
    Sigmoid,
    SoftmaxWithLoss,
    Step,
    Tanh,
)

ALL = {
    "Step": Step,
    "Sigmoid": Sigmoid,
    "Tanh": Tanh,
    "ReLU": ReLU,
    "LeakyReLU": LeakyReLU,
    "Affine": lambda: Affine(np.eye(3), np.zeros(3)),
    "Dropout": Dropout,
    "BatchNorm": lambda: BatchNorm(np.ones(3), np.zeros(3)),
    "Convolution": lambda: Convolution(np.ones((2, 1, 2, 2)), np.zeros(2), pad=1),
    "MaxPooling": lambda: MaxPooling(2, 2, pad=1),
    "AveragePooling": lambda: AveragePooling(2, 2, pad=1),
    "Flatten": Flatten,
    "Reshape": lambda: Reshape((3, 1)),
}
IMAGES = ("Convolution", "MaxPooling", "AveragePooling")
PAIRS = {"Add": Add, "Mul": Mul}
LOSSES = {"SoftmaxWithLoss": SoftmaxWithLoss, "IdentityWithLoss": IdentityWithLoss}


def shaped(name, rows):
    """The rows, of three columns, as what the layer takes."""
    return np.asarray(rows)[:, np.newaxis, np.newaxis] if name in IMAGES else np.asarray(rows)


def test_names():
    assert set(layers.__all__) == {*ALL, *PAIRS, *LOSSES, "Layer", "LossLayer"}
    assert all(issubclass(getattr(layers, name), layers.Layer) for name in layers.__all__)


@pytest.mark.parametrize("name", [*ALL, *PAIRS, *LOSSES])
def test_backward_before_forward(name):
    layer = (ALL | PAIRS | LOSSES)[name]()
    with pytest.raises(RuntimeError, match=f"^{name}: backward was called before forward$"):
        layer.backward(1.0)


@pytest.mark.parametrize("name", ALL)
def test_dout_of_another_shape(backend, name):
    layer = ALL[name]()
    shape = layer.forward(shaped(name, np.ones((2, 3)))).shape
    for wrong in (np.ones((3, *shape[1:])), np.ones(3), 1.0, np.ones((*shape, 1))):
        message = f"dout must have the shape of the output of forward, {shape}, not {np.shape(wrong)}"
        with pytest.raises(ValueError, match=re.escape(message)):
            layer.backward(wrong)
    for wrong in (np.ones(shape) * 1j, [["a"] * 3] * 2, None):
        with pytest.raises(TypeError, match="dout must contain real numbers, not "):
            layer.backward(wrong)


@pytest.mark.parametrize("name", ALL)
def test_x_of_other_dtypes(backend, name):
    layer = ALL[name]()
    for wrong in (np.ones((2, 3)) * 1j, [["a"] * 3] * 2, None, np.ones((2, 3), "g"), np.ones((2, 3), object)):
        with pytest.raises(TypeError, match=r"x must (contain real numbers|be float32 or float64), not "):
            layer.forward(wrong)
    with pytest.raises(ValueError, match="x is not an array"):
        layer.forward([[1, 2, 3], [1, 2]])
    ones = shaped(name, np.ones((2, 3)))
    plain = layer.forward(ones, *([False] if name == "Dropout" else []))
    for same in (ones.tolist(), ones.astype(int), ones.astype(">f8"), np.asfortranarray(ones)):
        np.testing.assert_array_equal(layer.forward(same, *([False] if name == "Dropout" else [])), plain)


@pytest.mark.parametrize(
    ("name", "shape", "of"),
    [
        ("Affine", "(batch, 3)", "weights of shape (3, 3)"),
        ("BatchNorm", "(batch, 3) or (batch, 3, height, width)", "BatchNorm of 3"),
    ],
)
def test_x_of_other_shapes(name, shape, of):
    layer = ALL[name]()
    for wrong in (np.ones(3), np.ones((2, 3, 1)), 1.0):
        with pytest.raises(ValueError, match=re.escape(f"x must have shape {shape}, not {np.shape(wrong)}")):
            layer.forward(wrong)
    with pytest.raises(ValueError, match=re.escape(f"x has 4 columns for {of}")):
        layer.forward(np.ones((2, 4)))


@pytest.mark.parametrize("name", [*ALL, *LOSSES])
def test_nothing_passed_in_is_modified(backend, name):
    layer = (ALL | LOSSES)[name]()
    x, t = shaped(name, np.full((2, 3), 0.5)), np.eye(3)[:2]
    v = np.ones(() if name in LOSSES else layer.forward(x).shape)
    before = [a.copy() for a in (x, v, t, *layer.params.values())]
    out = layer.forward(x, t) if name in LOSSES else layer.forward(x)
    dx = layer.backward() if name in LOSSES else layer.backward(v)
    for a, same in zip((x, v, t, *layer.params.values()), before, strict=True):
        np.testing.assert_array_equal(a, same)
        assert not np.shares_memory(a, dx)
        assert not np.shares_memory(a, np.asarray(out))


@pytest.mark.parametrize("name", [*ALL, *LOSSES])
def test_nan_and_infinities_go_through_without_a_warning(backend, name):
    layer = (ALL | LOSSES)[name]()
    x = shaped(name, [[np.nan, 1, 2], [np.inf, 1, 2], [-np.inf, 1, 2], [1e308, 1e308, -1e308]])
    out = layer.forward(x, np.eye(3)[np.arange(4) % 3]) if name in LOSSES else layer.forward(x)
    layer.backward() if name in LOSSES else layer.backward(np.resize(x, out.shape))


@pytest.mark.parametrize("name", ALL)
def test_layers_can_be_copied_and_pickled(name):
    layer = ALL[name]()
    x = shaped(name, np.random.default_rng(0).standard_normal((4, 3)))
    v = layer.forward(x) / 2
    twins = [copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))]
    expected = layer.forward(x), layer.backward(v)
    for twin in twins:
        for array, same in zip((twin.forward(x), twin.backward(v)), expected, strict=True):
            np.testing.assert_array_equal(array, same)
        for own, array in twin.params.items():
            assert not np.shares_memory(array, layer.params[own])


ONES = np.ones((3, 2))
MISTAKES = [
    (lambda: Affine([[1.0]]), TypeError, "W must be a NumPy array, not list"),
    (lambda: Affine(np.ones((3, 2), int)), TypeError, "W must be float32 or float64, not int64"),
    (lambda: Affine(np.ones((3, 2), "f2")), TypeError, "W must be float32 or float64, not float16"),
    (lambda: Affine(np.ones(3)), ValueError, "W must have 2 dimension(s), none of them 0, not (3,)"),
    (lambda: Affine(np.ones((3, 0))), ValueError, "W must have 2 dimension(s), none of them 0, not (3, 0)"),
    (lambda: Affine(ONES, np.ones(3)), ValueError, "b must have shape (2,) for W of shape (3, 2), not (3,)"),
    (lambda: Affine(ONES, np.ones((1, 2))), ValueError, "b must have shape (2,), not (1, 2): write b.ravel()"),
    (lambda: Affine(ONES, np.ones(2, "f4")), TypeError, "b is float32, but W is float64"),
    (lambda: Affine(ONES, [0.0, 0.0]), TypeError, "b must be a NumPy array, not list"),
    (lambda: BatchNorm(1.0, 0.0), TypeError, "gamma must be a NumPy array, not float"),
    (lambda: BatchNorm(np.ones(2), np.ones(3)), ValueError, "beta must have the shape of gamma, (2,), not (3,)"),
    (lambda: BatchNorm(np.ones(2), np.ones(2, "f4")), TypeError, "beta is float32, but gamma is float64"),
    (lambda: BatchNorm(ONES, ONES), ValueError, "gamma must have 1 dimension(s), none of them 0, not (3, 2)"),
    (lambda: BatchNorm(np.ones(2), np.ones(2), 1.5), ValueError, "momentum must be from 0 to 1, not 1.5"),
    (lambda: BatchNorm(np.ones(2), np.ones(2), "0.9"), TypeError, "momentum must be a number, not str"),
    (lambda: BatchNorm(np.ones(2), np.ones(2)).forward(np.ones((0, 2))), ValueError, "x of shape (0, 2) is an empty"),
    (lambda: BatchNorm(np.ones(2), np.ones(2)).forward(ONES, "no"), TypeError, "train_flg must be True or False, not"),
    (
        lambda: BatchNorm(np.ones(2), np.ones(2)).forward(np.ones((2, 3, 1, 1))),
        ValueError,
        "x has 3 channel(s) for BatchNorm of 2",
    ),
    (
        lambda: BatchNorm(np.ones(2), np.ones(2)).forward(np.ones((2, 2, 0, 1))),
        ValueError,
        "x of shape (2, 2, 0, 1) is an empty batch",
    ),
    (
        lambda: BatchNorm(np.ones(2), np.ones(2), running_mean=np.ones(2)),
        ValueError,
        "running_mean is given, but running_var is not: give both or neither",
    ),
    (
        lambda: BatchNorm(np.ones(2), np.ones(2), running_var=np.ones(2)),
        ValueError,
        "running_var is given, but running_mean is not: give both or neither",
    ),
    (
        lambda: BatchNorm(np.ones(2), np.ones(2), running_mean=np.ones(3), running_var=np.ones(2)),
        ValueError,
        "running_mean must have the shape of gamma, (2,), not (3,)",
    ),
    (
        lambda: BatchNorm(np.ones(2), np.ones(2), running_mean=[0, 0], running_var=[1, -2]),
        ValueError,
        "running_var has a negative number, -2",
    ),
    (
        lambda: BatchNorm(np.ones(2), np.ones(2), running_mean="0", running_var=[1, 1]),
        TypeError,
        "running_mean must contain real numbers, not str",
    ),
    (lambda: Dropout().forward(ONES, "test"), TypeError, "train_flg must be True or False, not str ('test')"),
    (lambda: Dropout(-0.1), ValueError, "dropout_ratio must be at least 0 and less than 1, not -0.1"),
    (lambda: Dropout(1.1), ValueError, "dropout_ratio must be at least 0 and less than 1, not 1.1"),
    (lambda: Dropout(1), ValueError, "dropout_ratio must be at least 0 and less than 1, not 1"),
    (lambda: Dropout(np.nan), ValueError, "dropout_ratio must be finite, not nan"),
    (lambda: Dropout(None), TypeError, "dropout_ratio must be a number, not NoneType"),
    (lambda: Dropout(True), TypeError, "dropout_ratio must be a number, not bool"),
    (lambda: Dropout(seed=-1), ValueError, "seed must be at least 0, not -1"),
    (lambda: Dropout(seed=1.0), TypeError, "seed must be an integer, not float"),
    (lambda: LeakyReLU("0.1"), TypeError, "slope must be a number, not str"),
    (lambda: LeakyReLU(np.inf), ValueError, "slope must be finite, not inf"),
    (lambda: Add().forward(np.ones(2), np.ones(3)), ValueError, "x of shape (2,) and y of shape (3,) do not broadcast"),
    (lambda: Mul().forward("a", 1), TypeError, "x must contain real numbers, not str"),
    (lambda: Mul().forward(1, None), TypeError, "y must contain real numbers, not NoneType"),
    (lambda: SoftmaxWithLoss().forward(ONES, [0, 1]), ValueError, "t has 2 labels for 3 rows of x"),
    (lambda: SoftmaxWithLoss().forward(ONES, [0, 1, 2]), ValueError, "t[2] is 2, which is not a label of 2 classes"),
    (lambda: IdentityWithLoss().forward(ONES, np.ones(3)), ValueError, "it must be targets of shape (3, 2)"),
    (lambda: IdentityWithLoss().forward(ONES, [0, 1, 0]), ValueError, "class labels go with a loss of classes"),
    (lambda: IdentityWithLoss().forward(ONES, ONES[:2]), ValueError, "t has shape (2, 2) for 3 row(s) of x"),
    (lambda: SoftmaxWithLoss().forward(ONES[:0], []), ValueError, "x of shape (0, 2) is an empty batch"),
    (lambda: SoftmaxWithLoss().forward(1.0, 0), ValueError, "x must have shape (n,) or (rows, n) with n >= 1, not ()"),
    (lambda: layers.Layer().forward(1.0), NotImplementedError, "Layer has no forward"),
    (lambda: layers.Layer().backward(1.0), NotImplementedError, "Layer has no backward"),
]


@pytest.mark.parametrize(("call", "error", "message"), MISTAKES, ids=[message for _, _, message in MISTAKES])
def test_mistakes(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert caught.type is error
    assert message in str(caught.value)


def test_dout_of_a_pair_and_of_a_loss():
    add = Add()
    add.forward(np.ones((2, 3)), np.ones(3))
    with pytest.raises(ValueError, match=r"dout must have the shape of the output of forward, \(2, 3\), not \(3,\)"):
        add.backward(np.ones(3))
    loss = SoftmaxWithLoss()
    loss.forward(ONES, [0, 1, 0])
    with pytest.raises(ValueError, match=r"dout must have the shape of the output of forward, \(\), not \(3,\)"):
        loss.backward(np.ones(3))

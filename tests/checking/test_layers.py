"""check_layer: the library's layers and one's own, with one input or two, in training and in inference."""

from __future__ import annotations

import copy
import time

import numpy as np
import pytest

import fastnet
from fastnet.layers import (
    Add,
    Affine,
    BatchNorm,
    Dropout,
    IdentityWithLoss,
    Layer,
    LeakyReLU,
    Mul,
    ReLU,
    Sigmoid,
    SoftmaxWithLoss,
    Step,
    Tanh,
)

RNG = np.random.default_rng(0)
X = RNG.standard_normal((6, 5))
RIGHT = {
    "Affine": (lambda d: Affine(RNG.standard_normal((5, 3)).astype(d), np.zeros(3, d)), X),
    "Affine, no bias": (lambda d: Affine(RNG.standard_normal((5, 3)).astype(d)), X),
    "BatchNorm": (lambda d: BatchNorm(np.ones(5, d), np.zeros(5, d)), X),
    "Dropout": (lambda d: Dropout(0.4, seed=0), X),
    "ReLU": (lambda d: ReLU(), np.where(X > 1, 0, X)),
    "LeakyReLU": (lambda d: LeakyReLU(0.2), X),
    "Step": (lambda d: Step(), X),
    "Sigmoid": (lambda d: Sigmoid(), X),
    "Tanh of rank 4": (lambda d: Tanh(), RNG.standard_normal((2, 3, 4, 2))),
    "Add": (lambda d: Add(), (X, X[0])),
    "Mul": (lambda d: Mul(), (X, X[:, :1])),
    "SoftmaxWithLoss": (lambda d: SoftmaxWithLoss(), (X, np.arange(6) % 5)),
    "SoftmaxWithLoss of rows": (lambda d: SoftmaxWithLoss(), (X, np.eye(5)[np.arange(6) % 5].astype(int))),
    "IdentityWithLoss": (lambda d: IdentityWithLoss(), (X, X[::-1])),
}


def of_dtype(x, dtype):
    if isinstance(x, tuple):
        return tuple(of_dtype(part, dtype) for part in x)
    return x.astype(dtype) if x.dtype.kind == "f" else x


@pytest.mark.parametrize("name", [name for name in RIGHT if name != "IdentityWithLoss"])
def test_right_layers_pass(backend, dtype, name):
    make, x = RIGHT[name]
    layer, x = make(dtype), of_dtype(x, dtype)
    before = copy.deepcopy(vars(layer))
    check = fastnet.check_layer(layer, x)
    assert check.passed, str(check)
    assert check.agreeing == check.entries
    moved = sum(part.size for part in (x if isinstance(x, tuple) else (x,)) if part.dtype.kind == "f")
    assert check.entries == moved + sum(p.size for p in layer.params.values())
    assert vars(layer).keys() == before.keys()
    for group in ("params", "state"):
        for key, array in before[group].items():
            np.testing.assert_array_equal(getattr(layer, group)[key], array)
            assert getattr(layer, group)[key].dtype == array.dtype


@pytest.mark.parametrize("kind", [BatchNorm, Dropout])
def test_both_modes(kind):
    for flag in (True, False):
        layer = BatchNorm(np.ones(5), np.zeros(5)) if kind is BatchNorm else Dropout(0.4)
        layer.forward(X)  # a pass before, whose statistics inference uses
        assert fastnet.check_layer(layer, X, train_flg=flag).passed
    with pytest.raises(TypeError, match="train_flg is given, but forward of ReLU has no such parameter"):
        fastnet.check_layer(ReLU(), X, train_flg=False)


class Square(Layer):
    factor = 2.0

    def forward(self, x):
        self.x = x
        return x**2

    def backward(self, dout):
        return self.factor * dout * self.x


class Scale(Layer):
    """Each column times its factor: with a derivative by rows instead of columns, if asked for."""

    def __init__(self, wrong=""):
        self.params, self.wrong = {"factors": np.arange(1.0, 6.0)}, wrong

    def forward(self, x):
        self.x = x
        return x * self.params["factors"]

    def backward(self, dout):
        gradient = (dout * self.x).sum(axis=0)
        if self.wrong == "one entry":
            gradient[3] *= 1.01
        if self.wrong == "two swapped":
            gradient[[1, 2]] = gradient[[2, 1]]
        self.grads = {"factors": gradient}
        return dout * (self.params["factors"][::-1] if self.wrong == "dx" else self.params["factors"])


def test_own_layers():
    assert fastnet.check_layer(Square(), X).passed
    wrong = Square()
    wrong.factor = 2.02
    assert fastnet.check_layer(wrong, X).failed >= 29  # one entry is small
    assert fastnet.check_layer(Scale(), X).passed
    for name, where, failed in (("one entry", "factors", 1), ("two swapped", "factors", 2), ("dx", "x", 24)):
        check = fastnet.check_layer(Scale(name), X)
        assert (check.failed, check.first_wrong) == (failed, where), name
        assert {entry.name for entry in check.worst} == {where} or failed < 5


def test_a_gradient_far_below_the_curvature_passes():
    """With dout = x, the derivative of a BatchNorm is nearly zero, and truncation is no mistake."""
    check = fastnet.check_layer(BatchNorm(np.ones(5), np.zeros(5)), X, X)
    assert check.passed, str(check)


def test_a_mistake_that_ones_hide():
    """The sum of a BatchNorm's output does not depend on x: with dout of ones, any multiple passes."""

    class Doubled(BatchNorm):
        def backward(self, dout):
            return 2 * super().backward(dout)

    layer = Doubled(np.ones(5), np.zeros(5))
    assert fastnet.check_layer(layer, X, np.ones((6, 5))).passed
    check = fastnet.check_layer(layer, X)
    assert (check.failed, check.first_wrong) == (30, "x")


class BookAffine:
    def __init__(self, W, b):
        self.W, self.b, self.dW, self.db = W, b, None, None

    def forward(self, x):
        self.x = x
        return x @ self.W + self.b

    def backward(self, dout):
        self.dW, self.db = self.x.T @ dout, dout.sum(axis=0)
        return dout @ self.W.T


class BookDropout:
    def forward(self, x, train_flg=True):
        self.mask = np.random.rand(*x.shape) > 0.5 if train_flg else 0.5  # noqa: NPY002
        return x * self.mask

    def backward(self, dout):
        return dout * self.mask


class SecondBookMatMul:
    def __init__(self, W):
        self.params, self.grads = [W], [np.zeros_like(W)]

    def forward(self, x):
        self.x = x
        return x @ self.params[0]

    def backward(self, dout):
        self.grads[0][...] = self.x.T @ dout
        return dout @ self.params[0].T


def test_layers_of_the_books():
    W = RNG.standard_normal((5, 3))
    before = W.copy()
    check = fastnet.check_layer(BookAffine(W, np.zeros(3)), X)
    assert check.passed, str(check)
    assert check.entries == 30 + 15 + 3
    assert fastnet.check_layer(SecondBookMatMul(W), X).entries == 45
    state = np.random.get_state()  # noqa: NPY002
    for flag in (True, False):
        assert fastnet.check_layer(BookDropout(), X, train_flg=flag).passed
    assert np.array_equal(np.random.get_state()[1], state[1])  # noqa: NPY002
    np.testing.assert_array_equal(W, before)


def test_784_by_50_of_a_batch_of_100():
    layer = Affine(RNG.standard_normal((784, 50)) / 28, np.zeros(50))
    x = RNG.standard_normal((100, 784))
    start = time.perf_counter()
    check = fastnet.check_layer(layer, x)
    assert check.agreeing == 78400 + 39200 + 50
    assert time.perf_counter() - start < 20  # by `benchmarks/bench_verdicts.py` under 1 s on an idle machine

    class Wrong(Affine):
        def backward(self, dout):
            dx = super().backward(dout)
            dx[17, 300] *= 1.01
            return dx

    check = fastnet.check_layer(Wrong(layer.W, layer.b), x)
    assert [entry.label for entry in check.worst[: check.failed]] == ["x[17, 300]"]


def test_mistakes():
    with pytest.raises(TypeError, match="layer must be an object with forward and backward, not <class"):
        fastnet.check_layer(ReLU, X)
    with pytest.raises(ValueError, match=r"dout must have the shape of the output of forward, \(6, 5\), not \(5, 6\)"):
        fastnet.check_layer(ReLU(), X, X.T)
    wrong = Square()
    wrong.backward = lambda dout: (2 * dout * X).T
    with pytest.raises(ValueError, match=r"gradient of x must have shape \(6, 5\), not \(5, 6\)"):
        fastnet.check_layer(wrong, X)

    class Forgets(Scale):
        def backward(self, dout):
            return dout * self.params["factors"]

    with pytest.raises(ValueError, match="Forgets has no gradient of 'factors' after backward"):
        fastnet.check_layer(Forgets(), X)

    class Changes(Layer):
        def forward(self, x):
            x[x < 0] = 0
            return x

        def backward(self, dout):
            return dout

    before = X.copy()
    with pytest.raises(ValueError, match="forward changes x: let it compute with a copy"):
        fastnet.check_layer(Changes(), X)
    np.testing.assert_array_equal(X, before)
    with pytest.raises(fastnet.GradientCheckError, match="FAILED: 24 of 35"):
        fastnet.check_layer(Scale("dx"), X, raise_exception=True)


def test_a_step_that_is_lost_in_rounding_is_no_verdict():
    for x in (1e13 + X, np.full((3, 30), 1e13)):
        with pytest.raises(ValueError, match=r"h .*is lost in rounding"):
            fastnet.check_layer(Square(), x, h=1e-4)
        assert fastnet.check_layer(Square(), x).passed

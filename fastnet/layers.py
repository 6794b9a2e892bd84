"""Layers: each computes forward and takes the gradient back, by the names of *Deep Learning from Scratch*.

Kept in a list, they are a network: `forward` in order, `backward` in reverse, as `fastnet.Network` does. float32 stays
float32; integers and lists become float64. Nothing passed in is modified. Every `backward` raises RuntimeError if
`forward` was not called before, and ValueError if `dout`, the derivative of the loss by what `forward` gave last, has
not the shape of that.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fastnet import _checks
from fastnet._graph_layers import Add, Mul
from fastnet._layer import Layer, as_columns, as_gradient, entry, quietly
from fastnet._loss_layers import IdentityWithLoss, LossLayer, SoftmaxWithLoss
from fastnet.backends import active
from fastnet.backends._spec import Activation, FloatArray

__all__ = [
    "Add",
    "Affine",
    "BatchNorm",
    "Dropout",
    "IdentityWithLoss",
    "Layer",
    "LeakyReLU",
    "LossLayer",
    "Mul",
    "ReLU",
    "Sigmoid",
    "SoftmaxWithLoss",
    "Step",
    "Tanh",
]

BATCH_NORM_EPSILON = 1e-6  # the book's 10e-7: under the root, so that a column without variance has a quotient

# Activations ----------------------------------------------------------------------------------------------


class _ActivationLayer(Layer):
    """A function of each number by itself: what all activations share."""

    kind: ClassVar[Activation]
    _slope = 0.01  # of a leaky ReLU

    def forward(self, x: npt.ArrayLike) -> Any:
        """The activation of each number.

        Parameters
        ----------
        x : array_like
            Real numbers, any shape.

        Returns
        -------
        ndarray or scalar
            The shape of `x`; float32 or float64.

        Raises
        ------
        TypeError
            If `x` does not hold real numbers.
        """
        array = _checks.as_floating(x, "x")
        self._saved = array
        return active().activation(self.kind, array, self._slope)[()]

    @quietly
    def backward(self, dout: npt.ArrayLike) -> Any:
        """The derivative by `x`, of its shape and dtype, from `dout`, which has that shape."""
        x = self._last()
        return (as_gradient(dout, x.shape, x.dtype) * active().activation_derivative(self.kind, x, self._slope))[()]


class Step(_ActivationLayer):
    """1 where x is positive, 0 elsewhere. Its derivative is 0: nothing before it learns."""

    kind = Activation.STEP


class Sigmoid(_ActivationLayer):
    """1 / (1 + exp(−x))."""

    kind = Activation.SIGMOID


class Tanh(_ActivationLayer):
    """The hyperbolic tangent."""

    kind = Activation.TANH


class ReLU(_ActivationLayer):
    """max(x, 0). The derivative at 0 is 0."""

    kind = Activation.RELU


class LeakyReLU(_ActivationLayer):
    """x where it is positive, slope·x elsewhere. The derivative at 0 is the slope.

    Parameters
    ----------
    slope : float, default 0.01
    """

    kind = Activation.LEAKY_RELU

    def __init__(self, slope: float = 0.01) -> None:
        self._slope = _checks.as_real(slope, "slope")

    @property
    def slope(self) -> float:
        return self._slope


# Layers with parameters, and Dropout ----------------------------------------------------------------------


class Affine(Layer):
    """x·W + b.

    Parameters
    ----------
    W : ndarray
        Weights, shape (inputs, outputs), float32 or float64.
    b : ndarray, optional
        Biases, shape (outputs,), of the same dtype; without them, x·W alone.

    Attributes
    ----------
    W, b : ndarray
        ``params["W"]`` and ``params["b"]``: the arrays that were given, not copies.
    dW, db : ndarray or None
        The gradient by them, of the last `backward`.

    Raises
    ------
    TypeError
        If `W` or `b` is no array of float32 or float64, or they differ in dtype.
    ValueError
        If the shapes do not fit.
    """

    decayed = ("W",)
    W, b = entry("params", "W"), entry("params", "b")
    dW, db = entry("grads", "W"), entry("grads", "b")  # noqa: N815

    def __init__(self, W: FloatArray, b: FloatArray | None = None) -> None:
        self.params = {"W": _checks.as_parameter(W, "W", 2)}
        if b is not None:
            self.params["b"] = _checks.as_parameter(b, "b", 1)
            if b.shape != W.shape[1:]:
                raise ValueError(f"b must have shape ({W.shape[1]},) for W of shape {W.shape}, not {b.shape}")
            if b.dtype != W.dtype:
                raise TypeError(f"b is {b.dtype}, but W is {W.dtype}")

    def forward(self, x: npt.ArrayLike) -> FloatArray:
        """x·W + b.

        Parameters
        ----------
        x : array_like
            Shape (batch, inputs).

        Returns
        -------
        ndarray
            Shape (batch, outputs), in the dtype of `W`.

        Raises
        ------
        ValueError
            If the shape is another one.
        TypeError
            If `x` does not hold real numbers.
        """
        weight = _checks.as_floating(self.W, "W")
        rows = as_columns(x, weight.shape[0], weight.dtype, f"weights of shape {weight.shape}")
        self._saved = rows
        products = active().matmul(rows, weight)
        return products if self.b is None else active().add_bias(products, _checks.as_floating(self.b, "b"))

    @quietly
    def backward(self, dout: npt.ArrayLike) -> FloatArray:
        """The derivative by `x`, shape (batch, inputs), from `dout`, shape (batch, outputs).

        Those by `W` and `b` are in `grads`.
        """
        rows = self._last()
        weight = _checks.as_floating(self.W, "W")
        d = as_gradient(dout, (len(rows), weight.shape[1]), weight.dtype)
        self.grads = {"W": active().matmul(rows, d, transpose_a=True)}
        if self.b is not None:
            self.grads["b"] = d.sum(axis=0, dtype=np.float64).astype(d.dtype)
        return active().matmul(d, weight, transpose_b=True)


class Dropout(Layer):
    """Zeros for a share of the numbers, drawn anew for each pass in training; nothing in inference.

    What is kept is divided by 1 − dropout_ratio in training ("inverted dropout"), so that the expected value is x and
    inference passes x on as it is. The book leaves training as it is and multiplies by 1 − dropout_ratio in inference.
    In expectation both are the same network, up to a scale of the weights; the inverted form is today's usual one,
    and loss and gradient in training have the scale of those in inference.

    Mask number k depends on the seed and k alone: `state` holds the generator's key and k.

    Parameters
    ----------
    dropout_ratio : float, default 0.5
        The probability of a zero, from 0 to less than 1.
    seed : int, optional
        For the same masks each time.

    Attributes
    ----------
    mask : ndarray or None
        What the last `forward` in training multiplied by: 0 or 1 / (1 − dropout_ratio); None after one in inference.

    Raises
    ------
    ValueError
        If the ratio or the seed is out of range.
    TypeError
        If either is no number.
    """

    def __init__(self, dropout_ratio: float = 0.5, seed: int | None = None) -> None:
        self.dropout_ratio = _checks.as_ratio(dropout_ratio, "dropout_ratio")
        if self.dropout_ratio == 1:
            raise ValueError("dropout_ratio must be less than 1: with 1, nothing is left")
        key = np.random.SeedSequence(_checks.as_seed(seed)).generate_state(2, np.uint64)
        self.state = {"masks": np.array([*key, 0], dtype=np.uint64)}
        self.mask: FloatArray | None = None

    @quietly
    def forward(self, x: npt.ArrayLike, train_flg: bool = True) -> Any:
        """A new mask times x; in inference x itself.

        Parameters
        ----------
        x : array_like
            Real numbers, any shape.
        train_flg : bool, default True
            Whether this is training.

        Returns
        -------
        ndarray or scalar
            The shape of `x`; float32 or float64.

        Raises
        ------
        TypeError
            If `x` does not hold real numbers.
        """
        array = _checks.as_floating(x, "x")
        self._saved = array.shape, array.dtype
        self.mask = None
        if not train_flg:
            return array.copy()[()]
        *key, number = self.state["masks"]
        # The number as the third of four words: each mask has 2^128 blocks of random bits of its own.
        generator = np.random.Generator(np.random.Philox(key=key, counter=[0, 0, int(number), 0]))
        kept = generator.random(array.shape) >= self.dropout_ratio
        self.mask = kept * array.dtype.type(1 / (1 - self.dropout_ratio))
        self.state["masks"] = np.array([*key, number + np.uint64(1)], dtype=np.uint64)
        return (array * self.mask)[()]

    @quietly
    def backward(self, dout: npt.ArrayLike) -> Any:
        """The derivative by `x`, of its shape and dtype, from `dout`: times the mask."""
        d = as_gradient(dout, *self._last())
        return (d.copy() if self.mask is None else d * self.mask)[()]


class BatchNorm(Layer):
    """gamma·(x − mean) / √(var + 1e-6) + beta, each column with its own mean and variance.

    In training these are the batch's, the variance the biased one, Σ(x − mean)²/batch. Each pass in training mixes
    them into the running ones, as the book does: running ← momentum·running + (1 − momentum)·batch, with that same
    biased variance (PyTorch takes the unbiased one there, and calls 1 − momentum the momentum). Inference takes the
    running ones, which start at mean 0 and variance 1. In training, a batch of one row becomes beta.

    Means, variances and sums are computed in float64, also for float32.

    Parameters
    ----------
    gamma, beta : ndarray
        Shape (columns,), both float32 or both float64; ones and zeros to begin with.
    momentum : float, default 0.9
        From 0 to 1.

    Attributes
    ----------
    gamma, beta : ndarray
        ``params["gamma"]`` and ``params["beta"]``: the arrays that were given, not copies.
    dgamma, dbeta : ndarray or None
        The gradient by them, of the last `backward`.
    running_mean, running_var : ndarray
        ``state["running_mean"]`` and ``state["running_var"]``, shape (columns,).

    Raises
    ------
    TypeError
        If `gamma` or `beta` is no array of float32 or float64, or they differ in dtype.
    ValueError
        If their shapes differ, or `momentum` is out of range.

    References
    ----------
    S. Ioffe, C. Szegedy, Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate
    Shift, 2015.
    """

    gamma, beta = entry("params", "gamma"), entry("params", "beta")
    dgamma, dbeta = entry("grads", "gamma"), entry("grads", "beta")
    running_mean, running_var = entry("state", "running_mean"), entry("state", "running_var")

    def __init__(self, gamma: FloatArray, beta: FloatArray, momentum: float = 0.9) -> None:
        self.params = {"gamma": _checks.as_parameter(gamma, "gamma", 1), "beta": _checks.as_parameter(beta, "beta", 1)}
        if beta.shape != gamma.shape:
            raise ValueError(f"beta must have the shape of gamma, {gamma.shape}, not {beta.shape}")
        if beta.dtype != gamma.dtype:
            raise TypeError(f"beta is {beta.dtype}, but gamma is {gamma.dtype}")
        self.momentum = _checks.as_ratio(momentum, "momentum")
        dtype = _checks.native(gamma)
        self.state = {"running_mean": np.zeros(len(gamma), dtype), "running_var": np.ones(len(gamma), dtype)}

    @quietly
    def forward(self, x: npt.ArrayLike, train_flg: bool = True) -> FloatArray:
        """Each column normalised, times gamma, plus beta.

        Parameters
        ----------
        x : array_like
            Shape (batch, columns).
        train_flg : bool, default True
            Whether to take, and to keep, the statistics of this batch.

        Returns
        -------
        ndarray
            The shape of `x`, in the dtype of `gamma`.

        Raises
        ------
        ValueError
            If the shape is another one, or the batch is empty.
        TypeError
            If `x` does not hold real numbers.
        """
        gamma = _checks.as_floating(self.gamma, "gamma")
        rows = as_columns(x, len(gamma), gamma.dtype, f"BatchNorm of {len(gamma)}")
        if len(rows) == 0:
            raise ValueError(f"x of shape {rows.shape} is an empty batch")
        if train_flg:
            mean = rows.mean(axis=0, dtype=np.float64)
            centred = rows - mean
            variance = np.square(centred).mean(axis=0)
            for name, new in (("running_mean", mean), ("running_var", variance)):
                mixed = self.momentum * self.state[name].astype(np.float64) + (1 - self.momentum) * new
                self.state[name] = mixed.astype(gamma.dtype)
        else:
            centred = rows - self.running_mean.astype(np.float64)
            variance = self.running_var.astype(np.float64)
        deviation = np.sqrt(variance + BATCH_NORM_EPSILON)
        normal = centred / deviation
        self._saved = normal, deviation, bool(train_flg)
        out: FloatArray = (gamma * normal + self.beta).astype(gamma.dtype)
        return out

    @quietly
    def backward(self, dout: npt.ArrayLike) -> FloatArray:
        """The derivative by `x` from `dout`, both of shape (batch, columns).

        Those by `gamma` and `beta` are in `grads`. After a `forward` in training, mean and variance are functions of
        `x`; after one in inference, constants.
        """
        normal, deviation, training = self._last()
        dtype = _checks.native(self.gamma)
        d = as_gradient(dout, normal.shape, dtype)
        dgamma, dbeta = (d * normal).sum(axis=0), d.sum(axis=0, dtype=np.float64)
        self.grads = {"gamma": dgamma.astype(dtype), "beta": dbeta.astype(dtype)}
        through = d - (dbeta + normal * dgamma) / len(d) if training else d
        dx: FloatArray = (self.gamma / deviation * through).astype(dtype)
        return dx

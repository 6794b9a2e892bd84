"""Activations, losses and matrix products of arrays, named as in *Deep Learning from Scratch*.

All of them accept anything that NumPy can convert to an array. float32 stays float32; integers and lists become
float64. NaN and infinities propagate as in NumPy, without a warning. Arguments are not modified.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastnet._tools import checks
from fastnet._tools.types import FloatArray
from fastnet.backends import active
from fastnet.backends.spec import Activation, Loss

__all__ = [
    "add_bias",
    "binary_cross_entropy_with_logits",
    "cross_entropy_error",
    "elu",
    "gelu",
    "huber_loss",
    "identity_function",
    "leaky_relu",
    "matmul",
    "mean_absolute_error",
    "mean_squared_error",
    "relu",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "step_function",
    "tanh",
]


def _activation(kind: Activation, x: npt.ArrayLike, constant: float = 0.0) -> Any:
    array = active().activation(kind, checks.as_floating(x, "x"), constant)
    return array if array.ndim else array[()]


def identity_function(x: npt.ArrayLike) -> Any:
    """A copy of `x`.

    Parameters
    ----------
    x : array_like
        Real numbers, any shape.

    Returns
    -------
    ndarray or scalar
        The shape of `x`; float32 or float64.

    Examples
    --------
    >>> import fastnet
    >>> fastnet.identity_function([1.0, -2.0])
    array([ 1., -2.])
    """
    return _activation(Activation.IDENTITY, x)


def step_function(x: npt.ArrayLike) -> Any:
    """1 where `x` is positive, 0 elsewhere: the activation of the perceptron. NaN stays NaN.

    Parameters
    ----------
    x : array_like
        Real numbers, any shape.

    Returns
    -------
    ndarray or scalar
        The shape of `x`; float32 or float64.

    Examples
    --------
    >>> import fastnet
    >>> fastnet.step_function([-1.0, 2.0])
    array([0., 1.])
    """
    return _activation(Activation.STEP, x)


def sigmoid(x: npt.ArrayLike) -> Any:
    """The logistic function 1 / (1 + exp(-x)), without overflow and with full relative accuracy in both tails.

    Parameters
    ----------
    x : array_like
        Real numbers, any shape.

    Returns
    -------
    ndarray or scalar
        The shape of `x`; float32 or float64.

    Examples
    --------
    >>> import fastnet
    >>> fastnet.sigmoid([-1000.0, 0.0, 1000.0])
    array([0. , 0.5, 1. ])
    """
    return _activation(Activation.SIGMOID, x)


def tanh(x: npt.ArrayLike) -> Any:
    """The hyperbolic tangent.

    Parameters
    ----------
    x : array_like
        Real numbers, any shape.

    Returns
    -------
    ndarray or scalar
        The shape of `x`; float32 or float64.

    Examples
    --------
    >>> import fastnet
    >>> fastnet.tanh([1.0, 2.0]).round(4)
    array([0.7616, 0.964 ])
    """
    return _activation(Activation.TANH, x)


def relu(x: npt.ArrayLike) -> Any:
    """max(x, 0), the rectified linear unit. NaN stays NaN.

    Parameters
    ----------
    x : array_like
        Real numbers, any shape.

    Returns
    -------
    ndarray or scalar
        The shape of `x`; float32 or float64.

    Examples
    --------
    >>> import fastnet
    >>> fastnet.relu([-1.0, 2.0])
    array([0., 2.])
    """
    return _activation(Activation.RELU, x)


def leaky_relu(x: npt.ArrayLike, slope: float = 0.01) -> Any:
    """`x` where it is positive, ``slope * x`` elsewhere.

    Parameters
    ----------
    x : array_like
        Real numbers, any shape.
    slope : float, default 0.01

    Returns
    -------
    ndarray or scalar
        The shape of `x`; float32 or float64.

    Examples
    --------
    >>> import fastnet
    >>> fastnet.leaky_relu([-1.0, 2.0])
    array([-0.01,  2.  ])
    """
    return _activation(Activation.LEAKY_RELU, x, checks.as_real(slope, "slope"))


def softplus(x: npt.ArrayLike) -> Any:
    """log(1 + exp(x)), a smooth ReLU, without overflow.

    Parameters
    ----------
    x : array_like
        Real numbers, any shape.

    Returns
    -------
    ndarray or scalar
        The shape of `x`; float32 or float64.

    Examples
    --------
    >>> import fastnet
    >>> fastnet.softplus([0.0, 2.0]).round(4)
    array([0.6931, 2.1269])
    """
    return _activation(Activation.SOFTPLUS, x)


def silu(x: npt.ArrayLike) -> Any:
    """``x * sigmoid(x)``, also called swish.

    Parameters
    ----------
    x : array_like
        Real numbers, any shape.

    Returns
    -------
    ndarray or scalar
        The shape of `x`; float32 or float64.

    References
    ----------
    S. Elfwing, E. Uchibe, K. Doya, Sigmoid-Weighted Linear Units for Neural Network Function Approximation in
    Reinforcement Learning, 2017.

    Examples
    --------
    >>> import fastnet
    >>> fastnet.silu([-1.0, 2.0]).round(4)
    array([-0.2689,  1.7616])
    """
    return _activation(Activation.SILU, x)


def gelu(x: npt.ArrayLike) -> Any:
    """x·Φ(x) with Φ the normal distribution itself, not an approximation by tanh.

    Parameters
    ----------
    x : array_like
        Real numbers, any shape.

    Returns
    -------
    ndarray or scalar
        The shape of `x`; float32 or float64.

    References
    ----------
    D. Hendrycks, K. Gimpel, Gaussian Error Linear Units, 2016.

    Examples
    --------
    >>> import fastnet
    >>> fastnet.gelu([-1.0, 0.0, 1.0]).round(4)
    array([-0.1587,  0.    ,  0.8413])
    """
    return _activation(Activation.GELU, x)


def elu(x: npt.ArrayLike, alpha: float = 1.0) -> Any:
    """`x` where it is positive, ``alpha * (exp(x) - 1)`` elsewhere.

    Parameters
    ----------
    x : array_like
        Real numbers, any shape.
    alpha : float, default 1

    Returns
    -------
    ndarray or scalar
        The shape of `x`; float32 or float64.

    References
    ----------
    D.-A. Clevert, T. Unterthiner, S. Hochreiter, Fast and Accurate Deep Network Learning by Exponential Linear Units,
    2015.

    Examples
    --------
    >>> import fastnet
    >>> fastnet.elu([-1.0, 2.0]).round(4)
    array([-0.6321,  2.    ])
    """
    return _activation(Activation.ELU, x, checks.as_real(alpha, "alpha"))


def softmax(x: npt.ArrayLike) -> FloatArray:
    """exp(x) / Σ exp(x) along the last axis, without overflow.

    Parameters
    ----------
    x : array_like
        Real numbers, shape (..., classes) with at least one class.

    Returns
    -------
    ndarray
        The shape of `x`; float32 or float64; each row's sum is 1. A row that contains NaN or +inf, or only -inf,
        becomes NaN.

    Raises
    ------
    ValueError
        If `x` has no axis or no classes.

    Examples
    --------
    >>> import fastnet
    >>> fastnet.softmax([0.0, 0.0])
    array([0.5, 0.5])
    """
    array = checks.as_floating(x, "x")
    if array.ndim == 2 and array.shape[1] > 0:
        return active().softmax(array)
    if array.ndim == 0 or array.shape[-1] == 0:
        raise ValueError(f"x must have shape (..., classes) with at least one class, not {array.shape}")
    return active().softmax(array.reshape(-1, array.shape[-1])).reshape(array.shape)


def mean_squared_error(y: npt.ArrayLike, t: npt.ArrayLike) -> float:
    """½·Σ(y − t)² over the classes, averaged over the batch.

    Parameters
    ----------
    y : array_like
        Answers, shape (classes,) or (batch, classes).
    t : array_like
        Targets: the shape of `y`; for one column, also shape (batch,). For several columns, integer labels of shape
        (batch,) mean one-hot rows.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If the shapes do not match, a label is out of range, or the batch is empty.
    TypeError
        If labels are not integers.

    Examples
    --------
    >>> import fastnet
    >>> y = [0.1, 0.05, 0.6, 0.0, 0.05, 0.1, 0.0, 0.1, 0.0, 0.0]
    >>> round(fastnet.mean_squared_error(y, [0, 0, 1, 0, 0, 0, 0, 0, 0, 0]), 4)
    0.0975
    """
    of_one_output = np.ndim(y) == 2 and np.shape(y)[1] == 1
    rows, targets = checks.as_rows_and_targets(y, t, "y", regression=of_one_output)
    return active().mean_loss(Loss.MEAN_SQUARED_ERROR, rows, targets)


def mean_absolute_error(y: npt.ArrayLike, t: npt.ArrayLike) -> float:
    """``Σ|y − t|`` over the outputs, averaged over the batch.

    Parameters
    ----------
    y : array_like
        Answers, shape (outputs,) or (batch, outputs).
    t : array_like
        Targets: the shape of `y`; for one output, also shape (batch,).

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If the shapes do not match, or the batch is empty.

    Examples
    --------
    >>> import fastnet
    >>> float(fastnet.mean_absolute_error([[1.0, 2.0]], [[0.0, 4.0]]))
    3.0
    """
    rows, targets = checks.as_rows_and_targets(y, t, "y", regression=True)
    return active().mean_loss(Loss.ABSOLUTE_ERROR, rows, targets)


def huber_loss(y: npt.ArrayLike, t: npt.ArrayLike, delta: float = 1.0) -> float:
    """½·r² for errors r = y − t of at most `delta`, ``delta·(|r| − ½·delta)`` beyond: summed, averaged over the batch.

    Parameters
    ----------
    y : array_like
        Answers, shape (outputs,) or (batch, outputs).
    t : array_like
        Targets: the shape of `y`; for one output, also shape (batch,).
    delta : float, default 1

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If the shapes do not match, `delta` is not positive, or the batch is empty.

    References
    ----------
    P. J. Huber, Robust Estimation of a Location Parameter, The Annals of Mathematical Statistics 35, 1964.

    Examples
    --------
    >>> import fastnet
    >>> fastnet.huber_loss([0.5, 3.0], [0.0, 0.0])
    2.625
    """
    rows, targets = checks.as_rows_and_targets(y, t, "y", regression=True)
    return active().mean_loss(Loss.HUBER, rows, targets, checks.as_positive(delta, "delta"))


def binary_cross_entropy_with_logits(y: npt.ArrayLike, t: npt.ArrayLike) -> float:
    """−Σ(t·log σ(y) + (1 − t)·log(1 − σ(y))) over the outputs, averaged over the batch.

    It is computed as Σ(softplus(y) − t·y), without overflow and without the sigmoid's rounding near 1.

    Parameters
    ----------
    y : array_like
        Logits, of which ``sigmoid(y)`` are the probabilities, shape (outputs,) or (batch, outputs).
    t : array_like
        Targets from 0 to 1, also as integers or bools: the shape of `y`; for one output, also shape (batch,).

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If the shapes do not match, a target is not from 0 to 1, or the batch is empty.

    Examples
    --------
    >>> import fastnet
    >>> float(round(fastnet.binary_cross_entropy_with_logits([[0.0]], [[1.0]]), 4))
    0.6931
    """
    rows, targets = checks.as_rows_and_targets(y, t, "y", regression=True)
    checks.check_fractions(targets, "t")
    return active().mean_loss(Loss.BINARY_CROSS_ENTROPY, rows, targets)


def cross_entropy_error(y: npt.ArrayLike, t: npt.ArrayLike) -> float:
    """−Σ t·log(y + 1e-7) over the classes, averaged over the batch.

    Parameters
    ----------
    y : array_like
        Probabilities, shape (classes,) or (batch, classes).
    t : array_like
        Integer labels of shape (batch,) (one integer for `y` of shape (classes,)), or one-hot rows or probabilities of
        the shape of `y`.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If the shapes do not match, a label is out of range, or the batch is empty. Also if `y` holds one-hot rows and
        `t` does not: they are in the wrong order.
    TypeError
        If labels are not integers.

    Examples
    --------
    >>> import fastnet
    >>> round(float(fastnet.cross_entropy_error([0.1, 0.3, 0.6], 2)), 4)
    0.5108
    """
    rows, targets = checks.as_rows_and_targets(y, t, "y")
    checks.check_order(rows, targets)
    return active().mean_loss(Loss.CROSS_ENTROPY, rows, targets)


def matmul(a: npt.ArrayLike, b: npt.ArrayLike, *, transpose_a: bool = False, transpose_b: bool = False) -> FloatArray:
    """The matrix product of `a` and `b`, either of which can be transposed.

    Parameters
    ----------
    a : array_like
        Shape (m, k), or (k, m) with `transpose_a`.
    b : array_like
        Shape (k, n), or (n, k) with `transpose_b`.
    transpose_a, transpose_b : bool, default False

    Returns
    -------
    ndarray
        Shape (m, n); float64 if either factor is float64, else float32.

    Raises
    ------
    TypeError
        If `transpose_a` or `transpose_b` is not True or False.
    ValueError
        If a factor does not have two dimensions, or the inner dimensions differ.

    Examples
    --------
    >>> import fastnet
    >>> fastnet.matmul([[1.0, 2.0]], [[3.0], [4.0]])
    array([[11.]])
    """
    backend = active()
    if backend.checked_matmul is not None:  # A second look would take as long as a small product.
        try:
            return backend.checked_matmul(a, b, transpose_a, transpose_b)
        except (TypeError, ValueError):
            pass  # They are to be converted, or wrong.
    left, right = checks.as_matrix(a, "a"), checks.as_matrix(b, "b")
    transpose_a, transpose_b = checks.as_flag(transpose_a, "transpose_a"), checks.as_flag(transpose_b, "transpose_b")
    if left.dtype is not right.dtype and left.dtype != right.dtype:  # The comparison alone takes longer.
        left, right = left.astype(np.float64, copy=False), right.astype(np.float64, copy=False)
    inner_left, inner_right = left.shape[0 if transpose_a else 1], right.shape[1 if transpose_b else 0]
    if inner_left != inner_right:
        raise ValueError(
            f"a of shape {left.shape}{' (transposed)' if transpose_a else ''} and b of shape {right.shape}"
            f"{' (transposed)' if transpose_b else ''} can't be multiplied: {inner_left} != {inner_right}"
        )
    return backend.matmul(left, right, transpose_a, transpose_b)


def add_bias(x: npt.ArrayLike, b: npt.ArrayLike) -> FloatArray:
    """Add `b` to every row of `x`.

    Parameters
    ----------
    x : array_like
        Shape (rows, n).
    b : array_like
        Shape (n,).

    Returns
    -------
    ndarray
        Shape (rows, n), in the dtype of `x`.

    Raises
    ------
    ValueError
        If the shapes do not match.

    Examples
    --------
    >>> import fastnet
    >>> fastnet.add_bias([[1.0, 2.0], [3.0, 4.0]], [10.0, 20.0])
    array([[11., 22.],
           [13., 24.]])
    """
    rows = checks.as_matrix(x, "x")
    bias = checks.as_floating(b, "b", rows.dtype)
    if bias.shape != rows.shape[1:]:
        raise ValueError(f"b must have shape ({rows.shape[1]},) for x of shape {rows.shape}, not {bias.shape}")
    return active().add_bias(rows, bias)

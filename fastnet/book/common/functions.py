"""`common/functions.py` of the book: activations and losses of arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastnet import functions
from fastnet._tools import checks
from fastnet.functions import cross_entropy_error as _cross_entropy_error
from fastnet.functions import identity_function, relu, sigmoid, softmax

__all__ = [
    "cross_entropy_error",
    "identity_function",
    "np",
    "relu",
    "relu_grad",
    "sigmoid",
    "sigmoid_grad",
    "softmax",
    "softmax_loss",
    "step_function",
    "sum_squared_error",
]


def step_function(x: npt.ArrayLike) -> Any:
    """1 where `x` is positive, 0 elsewhere, as integers; NaN gives 0.

    Parameters
    ----------
    x : array_like
        Real numbers, any shape.

    Returns
    -------
    ndarray
        int, the shape of `x`.
    """
    return np.array(functions.step_function(x) == 1, dtype=int)


def sigmoid_grad(x: npt.ArrayLike) -> Any:
    """The derivative of `sigmoid`, (1 − sigmoid(x))·sigmoid(x).

    Parameters
    ----------
    x : array_like
        Real numbers, any shape.

    Returns
    -------
    ndarray or scalar
        The shape of `x`; float32 or float64.
    """
    # 1 − sigmoid(x) is sigmoid(−x), which does not cancel for large x.
    return sigmoid(x) * sigmoid(np.negative(checks.as_floating(x, "x")))


def relu_grad(x: npt.ArrayLike) -> Any:
    """The derivative of `relu` by the book's convention: 1 at 0, where the layer `Relu` has 0.

    Parameters
    ----------
    x : array_like
        Real numbers, any shape.

    Returns
    -------
    ndarray or scalar
        The shape of `x`; float32 or float64.
    """
    array = checks.as_floating(x, "x")
    return (array >= 0).astype(array.dtype)[()]


def sum_squared_error(y: npt.ArrayLike, t: npt.ArrayLike) -> float:
    """½·Σ(y − t)² over all elements: not averaged over a batch, as `fastnet.mean_squared_error` is.

    Parameters
    ----------
    y, t : array_like
        Answers and targets, of the same shape.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If the shapes differ, or there are no elements.

    Examples
    --------
    >>> from fastnet.book.common.functions import sum_squared_error
    >>> sum_squared_error([[0.0, 2.0], [3.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]])
    6.5
    """
    answers, targets = checks.as_floating(y, "y"), checks.as_numbers(t, "t")
    if answers.shape != targets.shape:
        raise ValueError(f"y has shape {answers.shape}, but t has {targets.shape}")
    return functions.mean_squared_error(answers.ravel(), targets.ravel())


def cross_entropy_error(y: npt.ArrayLike, t: npt.ArrayLike) -> float:
    """−Σ t·log(y + 1e-7) over the classes, averaged over the batch.

    Parameters
    ----------
    y : array_like
        Probabilities, shape (classes,) or (batch, classes).
    t : array_like
        Integer labels of shape (batch,), or (batch, 1) as in chapter 7, or one-hot rows of the shape of `y`. For rows
        that are probabilities, the book takes the likeliest class; here they are the t of the formula.

    Returns
    -------
    float

    Raises
    ------
    ValueError, TypeError
        As `fastnet.cross_entropy_error`.
    """
    return _cross_entropy_error(y, as_targets(t))


def softmax_loss(X: npt.ArrayLike, t: npt.ArrayLike) -> float:
    """`cross_entropy_error` of ``softmax(X)``.

    Parameters
    ----------
    X : array_like
        Scores, shape (classes,) or (batch, classes).
    t : array_like
        As for `cross_entropy_error`.

    Returns
    -------
    float

    Raises
    ------
    ValueError, TypeError
        As `cross_entropy_error`.
    """
    return cross_entropy_error(softmax(X), t)


def as_targets(t: npt.ArrayLike) -> npt.ArrayLike:
    """`t`; labels in a column, shape (batch, 1), as shape (batch,)."""
    array = np.asarray(t)
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 and array.dtype.kind in "iu" else t

"""Activations, the softmax and losses of whole arrays."""

from __future__ import annotations

import numpy as np

from fastnet._tools.types import FloatArray, IntArray
from fastnet.backends import _numpy
from fastnet.backends._numba import activations, losses
from fastnet.backends._numba.jit import plain
from fastnet.backends.spec import Activation, Loss

matmul = _numpy.matmul  # BLAS.
add_bias = _numpy.add_bias  # One pass over memory already.


def activation(kind: Activation, x: FloatArray, constant: float = 0.0) -> FloatArray:
    if kind in (Activation.IDENTITY, Activation.TANH):  # NumPy's tanh is vectorised, Numba's is not.
        return _numpy.activation(kind, x)
    out = np.empty_like(x)
    activations.activate(int(kind), x.dtype.type(constant), plain(x).ravel(), out.ravel())
    return out


def activation_derivative(kind: Activation, x: FloatArray, constant: float = 0.0) -> FloatArray:
    out = np.empty_like(x)
    activations.derive(int(kind), x.dtype.type(constant), plain(x).ravel(), out.ravel())
    return out


def softmax(x: FloatArray) -> FloatArray:
    out = np.empty_like(x)
    losses.softmax(plain(x), out)
    return out


def mean_loss(kind: Loss, y: FloatArray, t: FloatArray | IntArray, constant: float = 0.0) -> float:
    rounded = float(y.dtype.type(constant))
    return losses.sum_losses(int(kind), rounded, plain(y), *losses.labels_and_rows(t, y.dtype)) / len(y)

"""The functions of the backend except the finite differences: activations, losses, forward pass, and backprop."""

from __future__ import annotations

import numpy as np

from fastnet._tools.types import FloatArray, IntArray
from fastnet.backends import _numpy
from fastnet.backends._numba import activations, losses
from fastnet.backends._numba.affine import affine
from fastnet.backends._numba.jit import plain
from fastnet.backends.spec import Activation, Loss, NetworkSpec, Output

name = "numba"
algorithms = ("nodal", "incremental", "loop")

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


def cross_entropy_error(y: FloatArray, t: FloatArray | IntArray) -> float:
    return losses.sum_losses(int(Loss.CROSS_ENTROPY), plain(y), *losses.labels_and_rows(t, y.dtype)) / len(y)


def mean_squared_error(y: FloatArray, t: FloatArray | IntArray) -> float:
    return losses.sum_losses(int(Loss.MEAN_SQUARED_ERROR), plain(y), *losses.labels_and_rows(t, y.dtype)) / len(y)


def forward(spec: NetworkSpec, x: FloatArray) -> FloatArray:
    units: FloatArray = plain(x)
    for layer in spec.layers:
        units = affine(units, *layer)
    if spec.output == Output.SOFTMAX:
        losses.softmax(units, units)
    return units


def loss(spec: NetworkSpec, x: FloatArray, t: FloatArray | IntArray) -> float:
    return _mean_loss(spec, forward(spec, x), t)


def _mean_loss(spec: NetworkSpec, y: FloatArray, t: FloatArray | IntArray) -> float:
    error = cross_entropy_error if spec.loss == Loss.CROSS_ENTROPY else mean_squared_error
    return error(y, t) + _numpy.penalty(spec)


@_numpy.quietly
def loss_and_gradient(spec: NetworkSpec, x: FloatArray, t: FloatArray | IntArray) -> tuple[float, list[FloatArray]]:
    units = [plain(x)]  # x and each layer's units
    derivatives = []  # of each layer's activation
    for weight, bias, kind, constant in spec.layers:
        derivatives.append(np.empty((len(x), weight.shape[1]), x.dtype))
        units.append(affine(units[-1], weight, bias, kind, constant, derivatives[-1]))
    y = softmax(units[-1]) if spec.output == Output.SOFTMAX else units[-1]

    rows = _numpy.target_rows(t, y)
    dy = losses.loss_derivative(spec.loss, y, rows)
    if spec.output == Output.SOFTMAX:
        dy = losses.softmax_backward(y, dy)
    dz = dy / y.dtype.type(len(x))

    reversed_gradients: list[FloatArray] = []
    for layer in reversed(range(len(spec.weights))):
        weight, bias = spec.weights[layer], spec.biases[layer]
        da = dz * derivatives[layer]
        if bias is not None:
            reversed_gradients.append(da.sum(axis=0))
        reversed_gradients.append(_numpy.with_decay(spec, affine(units[layer].T, da), weight))
        if layer > 0:
            dz = affine(da, np.ascontiguousarray(weight.T))
    return _mean_loss(spec, y, t), reversed_gradients[::-1]


def gradient(spec: NetworkSpec, x: FloatArray, t: FloatArray | IntArray) -> list[FloatArray]:
    return loss_and_gradient(spec, x, t)[1]

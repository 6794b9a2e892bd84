"""The Numba backend: the fallback without the extension, compiled at first use and cached on disk."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastnet._tools.types import FloatArray, IntArray
from fastnet.backends import _numpy
from fastnet.backends._numba import elements as kernels
from fastnet.backends._numba import products, threads
from fastnet.backends._numba.jit import borrowed, jit
from fastnet.backends.spec import Activation, Loss, NetworkSpec, Output

name = "numba"
algorithms = ("nodal", "incremental", "loop")


class _Layer(NamedTuple):
    """One layer's work: ``activation(a @ weight + bias)``."""

    a: FloatArray  # (rows, inputs), flat
    row_step: int  # from one row of `a` to the next: 1 where `a` is transposed
    input_step: int
    weight: FloatArray  # (inputs, outputs)
    bias: FloatArray  # (outputs,) or (0,)
    kind: int
    slope: Any  # of a leaky ReLU, in the dtype of the arrays
    out: FloatArray  # (rows, outputs)
    derivative: FloatArray  # of the activation, (rows, outputs), or (0, 0) where it is not wanted


class _Loop(NamedTuple):
    """A network of any depth, its data and the entries to perturb: one type, so that it is compiled once."""

    theta: FloatArray  # every parameter, in the order of NetworkSpec.parameters
    layers: IntArray  # a row for each: inputs, outputs, activation, begin of weights, begin and end of biases
    widest: int  # the most units of a layer
    slope: Any
    weight_decay: float
    output: int
    loss: int
    x: FloatArray  # (batch, inputs)
    labels: IntArray  # (batch,) or (0,)
    rows: FloatArray  # (0, 0) or (batch, classes)
    h: float
    entries: IntArray  # of theta
    differences: FloatArray  # (entries,)


# Kernels --------------------------------------------------------------------------------------------------


@jit()
def _layer(begin: int, end: int, job: _Layer) -> None:
    # rows begin to end of job.out and job.derivative
    job = borrowed(job)
    out, derivative = job.out[begin:end], job.derivative[begin:end].ravel()
    a = job.a[begin * job.row_step :]
    if not products.worth_skipping_zeros(job.a, job.weight):
        products.product(a, job.row_step, job.input_step, job.weight, out)
    elif job.row_step == 1:
        products.product_of_transposed_nonzeros(a, job.input_step, job.weight, out)
    else:
        products.product_of_nonzeros(a[: len(out) * job.row_step].reshape((len(out), job.row_step)), job.weight, out)
    if job.bias.size > 0:
        for i in range(out.shape[0]):
            for j in range(out.shape[1]):
                out[i, j] += job.bias[j]
    if derivative.size > 0:
        kernels.derive(job.kind, job.slope, out.ravel(), derivative)
    kernels.activate(job.kind, job.slope, out.ravel(), out.ravel())


@jit()
def _penalty(job: _Loop, theta: FloatArray) -> float:
    # theta like job.theta -> scalar. Sums side by side, one per lane: they vectorise, and they round less.
    lanes = np.zeros(32)
    for number in range(len(job.layers)):
        weight = theta[job.layers[number, 3] : job.layers[number, 4]]
        for i in range(0, weight.size, lanes.size):
            for lane in range(min(lanes.size, weight.size - i)):
                lanes[lane] += np.float64(weight[i + lane]) ** 2
    return 0.5 * job.weight_decay * float(lanes.sum())


@jit()
def _loss(job: _Loop, theta: FloatArray, work: FloatArray) -> float:
    # theta like job.theta, work (2, threads.BLOCK_ROWS * job.widest) -> scalar
    total = 0.0
    first, input_step = products.ONE - products.ONE, products.ONE
    for begin in range(0, len(job.x), threads.BLOCK_ROWS):
        units = job.x[begin : begin + threads.BLOCK_ROWS]
        rows = len(units)
        for number in range(len(job.layers)):
            layer = job.layers[number]
            inputs, outputs, kind = layer[0], layer[1], layer[2]
            weight = theta[layer[3] : layer[4]].reshape((inputs, outputs))
            bias = theta[layer[4] : layer[5]]
            out = work[number % 2, : rows * outputs].reshape((rows, outputs))
            flat = units.ravel()
            _layer(first, rows, _Layer(flat, inputs, input_step, weight, bias, kind, job.slope, out, out[:0]))
            units = out
        if job.output == Output.SOFTMAX:
            kernels.softmax(units, units)
        end = begin + rows
        total += kernels.sum_losses(job.loss, units, job.labels[begin:end], job.rows[begin:end])
    total /= len(job.x)
    return total + _penalty(job, theta) if job.weight_decay != 0 else total


@jit()
def _loop(begin: int, end: int, job: _Loop) -> None:
    # elements begin to end of job.differences, two full forward passes for each
    job = borrowed(job)
    theta, step = job.theta.copy(), job.theta.dtype.type(job.h)
    work = np.empty((2, threads.BLOCK_ROWS * job.widest), theta.dtype)
    for n in range(begin, end):
        value = theta[job.entries[n]]
        theta[job.entries[n]] = value + step
        above = _loss(job, theta, work)
        theta[job.entries[n]] = value - step
        below = _loss(job, theta, work)
        theta[job.entries[n]] = value
        job.differences[n] = (above - below) / (2 * job.h)


# The backend's functions ----------------------------------------------------------------------------------

matmul = _numpy.matmul  # BLAS
add_bias = _numpy.add_bias  # one pass over memory already


def _ready(array: Any) -> Any:
    """`array`, copied if it is read-only: that would be another type, compiled for again."""
    return np.require(array, requirements=["C", "A", "W"])


def _targets(t: FloatArray | IntArray, dtype: Any) -> tuple[Any, Any]:
    """Labels and rows, one of them empty: one type for both kinds of targets."""
    t = _ready(t)
    return (t, np.empty((0, 0), dtype)) if t.ndim == 1 else (np.empty(0, np.int64), t)


def activation(kind: Activation, x: FloatArray, leaky_slope: float = 0.01) -> FloatArray:
    if kind in (Activation.IDENTITY, Activation.TANH):  # a copy; NumPy's tanh is vectorised, Numba's is not
        return _numpy.activation(kind, x)
    out = np.empty_like(x)
    kernels.activate(int(kind), x.dtype.type(leaky_slope), _ready(x).ravel(), out.ravel())
    return out


def activation_derivative(kind: Activation, x: FloatArray, leaky_slope: float = 0.01) -> FloatArray:
    out = np.empty_like(x)
    kernels.derive(int(kind), x.dtype.type(leaky_slope), _ready(x).ravel(), out.ravel())
    return out


def softmax(x: FloatArray) -> FloatArray:
    out = np.empty_like(x)
    kernels.softmax(_ready(x), out)
    return out


def cross_entropy_error(y: FloatArray, t: FloatArray | IntArray) -> float:
    return kernels.sum_losses(int(Loss.CROSS_ENTROPY), _ready(y), *_targets(t, y.dtype)) / len(y)


def mean_squared_error(y: FloatArray, t: FloatArray | IntArray) -> float:
    return kernels.sum_losses(int(Loss.MEAN_SQUARED_ERROR), _ready(y), *_targets(t, y.dtype)) / len(y)


def _affine(
    a: FloatArray,
    weight: FloatArray,
    bias: FloatArray | None = None,
    kind: Activation = Activation.IDENTITY,
    leaky_slope: float = 0.0,
    derivative: FloatArray | None = None,
) -> FloatArray:
    """Return the activation of ``a @ weight + bias`` and fill `derivative`. `a` may be transposed."""
    (rows, inputs), outputs, dtype = a.shape, weight.shape[1], a.dtype
    flat, steps = (a.ravel(), (inputs, 1)) if a.flags.c_contiguous else (a.T.ravel(), (1, rows))
    bias = np.empty(0, dtype) if bias is None else _ready(bias)
    derivative = np.empty((0, 0), dtype) if derivative is None else derivative
    out, slope = np.empty((rows, outputs), dtype), dtype.type(leaky_slope)
    job = _Layer(flat, steps[0], steps[1], _ready(weight), bias, int(kind), slope, out, derivative)
    # Fours, as in _product: no row's bits depend on the threads.
    threads.share(_layer, job, rows, weight.size + threads.UNIT_PRODUCTS * outputs, 4)
    return out


def forward(spec: NetworkSpec, x: FloatArray) -> FloatArray:
    units: FloatArray = _ready(x)
    for weight, bias, kind in zip(spec.weights, spec.biases, spec.activations, strict=True):
        units = _affine(units, weight, bias, kind, spec.leaky_slope)
    if spec.output == Output.SOFTMAX:
        kernels.softmax(units, units)
    return units


def loss(spec: NetworkSpec, x: FloatArray, t: FloatArray | IntArray) -> float:
    return _mean_loss(spec, forward(spec, x), t)


def _mean_loss(spec: NetworkSpec, y: FloatArray, t: FloatArray | IntArray) -> float:
    error = cross_entropy_error if spec.loss == Loss.CROSS_ENTROPY else mean_squared_error
    return error(y, t) + _numpy.penalty(spec)


@_numpy.quietly
def loss_and_gradient(spec: NetworkSpec, x: FloatArray, t: FloatArray | IntArray) -> tuple[float, list[FloatArray]]:
    units = [_ready(x)]  # and each layer's
    derivatives = []  # of each layer's activation
    for weight, bias, kind in zip(spec.weights, spec.biases, spec.activations, strict=True):
        derivatives.append(np.empty((len(x), weight.shape[1]), x.dtype))
        units.append(_affine(units[-1], weight, bias, kind, spec.leaky_slope, derivatives[-1]))
    y = softmax(units[-1]) if spec.output == Output.SOFTMAX else units[-1]

    rows = _numpy.target_rows(t, y)
    dy = kernels.loss_derivative(spec.loss, y, rows)
    if spec.output == Output.SOFTMAX:
        dy = kernels.softmax_backward(y, dy)
    dz = dy / y.dtype.type(len(x))

    reversed_gradients: list[FloatArray] = []
    for layer in reversed(range(len(spec.weights))):
        weight, bias = spec.weights[layer], spec.biases[layer]
        da = dz * derivatives[layer]
        if bias is not None:
            reversed_gradients.append(da.sum(axis=0))
        reversed_gradients.append(_numpy.with_decay(spec, _affine(units[layer].T, da), weight))
        if layer > 0:
            dz = _affine(da, np.ascontiguousarray(weight.T))
    return _mean_loss(spec, y, t), reversed_gradients[::-1]


def gradient(spec: NetworkSpec, x: FloatArray, t: FloatArray | IntArray) -> list[FloatArray]:
    return loss_and_gradient(spec, x, t)[1]


def loop(spec: NetworkSpec, x: FloatArray, t: FloatArray | IntArray, h: float, entries: IntArray) -> FloatArray:
    layers, begin = [], 0
    for weight, bias, kind in zip(spec.weights, spec.biases, spec.activations, strict=True):
        biases = begin + weight.size
        end = biases + (0 if bias is None else bias.size)
        layers.append((*weight.shape, int(kind), begin, biases, end))
        begin = end
    differences = np.empty(len(entries), spec.dtype)
    job = _Loop(
        np.concatenate([p.ravel() for p in spec.parameters]),
        np.array(layers, np.int64),
        max(w.shape[1] for w in spec.weights),
        spec.dtype.type(spec.leaky_slope),
        float(spec.weight_decay),
        int(spec.output),
        int(spec.loss),
        _ready(x),
        *_targets(t, spec.dtype),
        float(h),
        _ready(entries),
        differences,
    )
    products = 2 * len(x) * sum(w.size + threads.UNIT_PRODUCTS * w.shape[1] for w in spec.weights)
    threads.share(_loop, job, len(entries), products)
    return differences

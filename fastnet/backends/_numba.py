"""The Numba backend: the fallback without the extension, compiled at first use and cached on disk."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import numba
import numpy as np

from fastnet.backends import _numpy
from fastnet.backends._spec import Activation, FloatArray, IntArray, Loss, NetworkSpec, Output

name = "numba"
algorithms = ("loop",)

EPSILON = _numpy.EPSILON
BLOCK_ROWS = 128  # samples that go through the network together: their units stay in the cache
CALL_SECONDS = 0.05  # compiled code cannot be interrupted: Ctrl-C waits for one call of this length
PRODUCTS_PER_SECOND = 1e10  # multiply-adds of one thread, roughly: the first guess of what such a call holds
UNIT_PRODUCTS = 50  # multiply-adds that take as long as one unit's activation, roughly

Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def _jit(parallel: bool = False) -> Callable[[Kernel], Kernel]:
    """Return the decorator with every compiler option. Full fastmath would assume that nothing is NaN."""
    options: Any = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}, "parallel": parallel}

    def decorate(function: Kernel) -> Kernel:
        try:
            return cast(Kernel, numba.njit(cache=True, **options)(function))
        except RuntimeError:  # neither the package's folder nor the user's cache folder can be written
            return cast(Kernel, numba.njit(**options)(function))

    return decorate


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


@_jit()
def _product(a: FloatArray, row_step: int, inner_step: int, b: FloatArray, out: FloatArray) -> None:
    # a (rows, inner), flat, its elements the steps apart; b (inner, outputs) -> out = a @ b (rows, outputs)
    # Four by four: each row of b and out that is loaded serves four times. Sums are in the order of `inner`.
    rows, inner = out.shape[0], b.shape[0]
    row_fours, inner_fours = rows - rows % 4, inner - inner % 4
    out[:] = 0
    for i in range(0, row_fours, 4):
        out0, out1, out2, out3 = out[i], out[i + 1], out[i + 2], out[i + 3]
        for k in range(0, inner_fours, 4):
            b0, b1, b2, b3 = b[k], b[k + 1], b[k + 2], b[k + 3]
            p = i * row_step + k * inner_step
            q, r, s = p + row_step, p + 2 * row_step, p + 3 * row_step
            p0, p1, p2, p3 = a[p], a[p + inner_step], a[p + 2 * inner_step], a[p + 3 * inner_step]
            q0, q1, q2, q3 = a[q], a[q + inner_step], a[q + 2 * inner_step], a[q + 3 * inner_step]
            r0, r1, r2, r3 = a[r], a[r + inner_step], a[r + 2 * inner_step], a[r + 3 * inner_step]
            s0, s1, s2, s3 = a[s], a[s + inner_step], a[s + 2 * inner_step], a[s + 3 * inner_step]
            for j in range(out.shape[1]):
                c0, c1, c2, c3 = b0[j], b1[j], b2[j], b3[j]
                out0[j] = out0[j] + p0 * c0 + p1 * c1 + p2 * c2 + p3 * c3
                out1[j] = out1[j] + q0 * c0 + q1 * c1 + q2 * c2 + q3 * c3
                out2[j] = out2[j] + r0 * c0 + r1 * c1 + r2 * c2 + r3 * c3
                out3[j] = out3[j] + s0 * c0 + s1 * c1 + s2 * c2 + s3 * c3
    for i in range(row_fours, rows):
        out0 = out[i]
        for k in range(0, inner_fours, 4):
            b0, b1, b2, b3 = b[k], b[k + 1], b[k + 2], b[k + 3]
            p = i * row_step + k * inner_step
            p0, p1, p2, p3 = a[p], a[p + inner_step], a[p + 2 * inner_step], a[p + 3 * inner_step]
            for j in range(out.shape[1]):
                out0[j] = out0[j] + p0 * b0[j] + p1 * b1[j] + p2 * b2[j] + p3 * b3[j]
    for i in range(rows):
        out0 = out[i]
        for k in range(inner_fours, inner):
            b0, p0 = b[k], a[i * row_step + k * inner_step]
            for j in range(out.shape[1]):
                out0[j] += p0 * b0[j]


@_jit()
def _activate(kind: int, slope: Any, z: FloatArray, out: FloatArray) -> None:
    # z (size,) -> out (size,), which may be z. A loop for each kind, so that those without exp vectorise.
    zero, one = z.dtype.type(0), z.dtype.type(1)
    if kind == Activation.STEP:
        for i in range(z.size):
            out[i] = one if z[i] > zero else zero if z[i] <= zero else z[i]
    elif kind == Activation.SIGMOID:
        for i in range(z.size):
            e = math.exp(-abs(z[i]))  # at most 1: neither branch overflows
            out[i] = (e if z[i] < zero else one) / (one + e)
    elif kind == Activation.TANH:
        for i in range(z.size):
            out[i] = math.tanh(z[i])
    elif kind == Activation.RELU:
        for i in range(z.size):
            out[i] = zero if z[i] <= zero else z[i]
    elif kind == Activation.LEAKY_RELU:
        for i in range(z.size):
            out[i] = z[i] if z[i] > zero else z[i] * slope


@_jit()
def _derive(kind: int, slope: Any, z: FloatArray, out: FloatArray) -> None:
    # z (size,) -> out (size,), the activation's derivative at z
    zero, one, two, four = z.dtype.type(0), z.dtype.type(1), z.dtype.type(2), z.dtype.type(4)
    if kind == Activation.IDENTITY:
        out[:] = one
    elif kind == Activation.SIGMOID or kind == Activation.TANH:
        inner, outer = (two, four) if kind == Activation.TANH else (one, one)
        for i in range(z.size):
            e = math.exp(-abs(inner * z[i]))  # tanh'(z) = 4 sigmoid'(2z): neither cancels in a tail
            out[i] = outer * (e / (one + e) * (one / (one + e)))
    else:
        above = zero if kind == Activation.STEP else one
        below = slope if kind == Activation.LEAKY_RELU else zero
        for i in range(z.size):
            out[i] = above if z[i] > zero else below if z[i] <= zero else z[i]


@_jit()
def _layer(begin: int, end: int, job: _Layer) -> None:
    # rows begin to end of job.out and job.derivative
    out, derivative = job.out[begin:end], job.derivative[begin:end].ravel()
    _product(job.a[begin * job.row_step :], job.row_step, job.input_step, job.weight, out)
    if job.bias.size > 0:
        for i in range(out.shape[0]):
            for j in range(out.shape[1]):
                out[i, j] += job.bias[j]
    if derivative.size > 0:
        _derive(job.kind, job.slope, out.ravel(), derivative)
    _activate(job.kind, job.slope, out.ravel(), out.ravel())


@_jit(parallel=True)
def _layer_parts(bounds: IntArray, job: _Layer) -> None:
    for part in numba.prange(bounds.size - 1):
        _layer(bounds[part], bounds[part + 1], job)


@_jit()
def _softmax(x: FloatArray, out: FloatArray) -> None:
    # x (batch, classes) -> out (batch, classes), which may be x
    for i in range(x.shape[0]):
        top = x.dtype.type(-np.inf)
        for j in range(x.shape[1]):
            top = max(top, x[i, j])
        total = x.dtype.type(0)
        for j in range(x.shape[1]):
            out[i, j] = math.exp(x[i, j] - top)
            total += out[i, j]
        for j in range(x.shape[1]):
            out[i, j] /= total


@_jit()
def _sum_losses(loss: int, y: FloatArray, labels: IntArray, rows: FloatArray) -> float:
    # y (batch, classes), labels (batch,) and rows (0, 0), or labels (0,) and rows (batch, classes) -> scalar
    zero, one, half, epsilon = y.dtype.type(0), y.dtype.type(1), y.dtype.type(0.5), y.dtype.type(EPSILON)
    total = 0.0
    for i in range(y.shape[0]):
        error = zero
        if loss == Loss.MEAN_SQUARED_ERROR:
            for j in range(y.shape[1]):
                target = rows[i, j] if rows.size > 0 else one if labels[i] == j else zero
                error += (y[i, j] - target) * (y[i, j] - target)
            error *= half
        elif labels.size > 0:
            error = -math.log(y[i, labels[i]] + epsilon)
        else:
            for j in range(y.shape[1]):
                error -= rows[i, j] * math.log(y[i, j] + epsilon)
        total += error
    return total


@_jit()
def _penalty(job: _Loop, theta: FloatArray) -> float:
    # theta like job.theta -> scalar. Sums side by side, one per lane: they vectorise, and they round less.
    lanes = np.zeros(32)
    for number in range(len(job.layers)):
        weight = theta[job.layers[number, 3] : job.layers[number, 4]]
        for i in range(0, weight.size, lanes.size):
            for lane in range(min(lanes.size, weight.size - i)):
                lanes[lane] += np.float64(weight[i + lane]) ** 2
    return 0.5 * job.weight_decay * float(lanes.sum())


@_jit()
def _loss(job: _Loop, theta: FloatArray, work: FloatArray) -> float:
    # theta like job.theta, work (2, BLOCK_ROWS * job.widest) -> scalar
    total = 0.0
    first, input_step = np.int64(0), np.int64(1)  # literals have a type of their own, compiled for again
    for begin in range(0, len(job.x), BLOCK_ROWS):
        units = job.x[begin : begin + BLOCK_ROWS]
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
            _softmax(units, units)
        end = begin + rows
        total += _sum_losses(job.loss, units, job.labels[begin:end], job.rows[begin:end])
    total /= len(job.x)
    return total + _penalty(job, theta) if job.weight_decay != 0 else total


@_jit()
def _loop(begin: int, end: int, job: _Loop) -> None:
    # elements begin to end of job.differences, two full forward passes for each
    theta, step = job.theta.copy(), job.theta.dtype.type(job.h)
    work = np.empty((2, BLOCK_ROWS * job.widest), theta.dtype)
    for n in range(begin, end):
        value = theta[job.entries[n]]
        theta[job.entries[n]] = value + step
        above = _loss(job, theta, work)
        theta[job.entries[n]] = value - step
        below = _loss(job, theta, work)
        theta[job.entries[n]] = value
        job.differences[n] = (above - below) / (2 * job.h)


@_jit(parallel=True)
def _loop_parts(bounds: IntArray, job: _Loop) -> None:
    for part in numba.prange(bounds.size - 1):
        _loop(bounds[part], bounds[part + 1], job)


# Threads --------------------------------------------------------------------------------------------------

_most_threads: int = vars(numba.config)["NUMBA_NUM_THREADS"]
_num_threads = _most_threads
_one_call = threading.Lock()  # Numba's "workqueue" threads end the process when two calls meet


def get_num_threads() -> int:
    return _num_threads


def set_num_threads(count: int) -> None:
    global _num_threads
    _num_threads = min(count, _most_threads)


def _after_fork() -> None:
    """Keep to one thread: others do not survive a fork, and Numba's OpenMP layer ends a child that asks."""
    global _most_threads, _num_threads
    _most_threads = _num_threads = 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _share(one: Any, parts: Any, job: _Layer | _Loop, size: int, products: int, multiple: int) -> None:
    """Run the kernel ``one(begin, end, job)`` on all of ``range(size)``, shared out by the kernel `parts`.

    One element takes about `products` multiply-adds; cuts are at multiples of `multiple`.
    """
    threads, done = _num_threads, 0
    elements = int(CALL_SECONDS * PRODUCTS_PER_SECOND / (products + 1)) * threads
    while done < size:
        groups = max(elements // (multiple * threads), 1) * threads
        groups = min(groups, math.ceil((size - done) / multiple))
        blocks = threads * math.ceil(groups * multiple / (threads * BLOCK_ROWS))
        bounds = done + multiple * (groups * np.arange(blocks + 1, dtype=np.int64) // blocks)
        bounds = np.minimum(bounds, size)
        started = time.perf_counter()
        if threads == 1:  # Numba's threads are not even started
            for part in range(blocks):
                one(bounds[part], bounds[part + 1], job)
        else:
            with _one_call:
                before = numba.get_num_threads()  # belongs to the calling thread, ours to the process
                numba.set_num_threads(threads)
                try:
                    parts(bounds, job)
                finally:
                    numba.set_num_threads(before)
        done += groups * multiple
        seconds = max(time.perf_counter() - started, 1e-9)
        elements = int(groups * multiple * min(max(CALL_SECONDS / seconds, 0.5), 2.0))


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
    _activate(int(kind), x.dtype.type(leaky_slope), _ready(x).ravel(), out.ravel())
    return out


def activation_derivative(kind: Activation, x: FloatArray, leaky_slope: float = 0.01) -> FloatArray:
    out = np.empty_like(x)
    _derive(int(kind), x.dtype.type(leaky_slope), _ready(x).ravel(), out.ravel())
    return out


def softmax(x: FloatArray) -> FloatArray:
    out = np.empty_like(x)
    _softmax(_ready(x), out)
    return out


def cross_entropy_error(y: FloatArray, t: FloatArray | IntArray) -> float:
    return _sum_losses(int(Loss.CROSS_ENTROPY), _ready(y), *_targets(t, y.dtype)) / len(y)


def mean_squared_error(y: FloatArray, t: FloatArray | IntArray) -> float:
    return _sum_losses(int(Loss.MEAN_SQUARED_ERROR), _ready(y), *_targets(t, y.dtype)) / len(y)


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
    _share(_layer, _layer_parts, job, rows, weight.size + UNIT_PRODUCTS * outputs, 4)
    return out


def forward(spec: NetworkSpec, x: FloatArray) -> FloatArray:
    units: FloatArray = _ready(x)
    for weight, bias, kind in zip(spec.weights, spec.biases, spec.activations, strict=True):
        units = _affine(units, weight, bias, kind, spec.leaky_slope)
    if spec.output == Output.SOFTMAX:
        _softmax(units, units)
    return units


def loss(spec: NetworkSpec, x: FloatArray, t: FloatArray | IntArray) -> float:
    error = cross_entropy_error if spec.loss == Loss.CROSS_ENTROPY else mean_squared_error
    return error(forward(spec, x), t) + _numpy.penalty(spec)


@_numpy.quietly
def gradient(spec: NetworkSpec, x: FloatArray, t: FloatArray | IntArray) -> list[FloatArray]:
    units = [_ready(x)]  # and each layer's
    derivatives = []  # of each layer's activation
    for weight, bias, kind in zip(spec.weights, spec.biases, spec.activations, strict=True):
        derivatives.append(np.empty((len(x), weight.shape[1]), x.dtype))
        units.append(_affine(units[-1], weight, bias, kind, spec.leaky_slope, derivatives[-1]))
    y = softmax(units[-1]) if spec.output == Output.SOFTMAX else units[-1]

    rows = _numpy.target_rows(t, y)
    dy = -rows / (y + y.dtype.type(EPSILON)) if spec.loss == Loss.CROSS_ENTROPY else y - rows
    if spec.output == Output.SOFTMAX:
        dy = y * (dy - (y * dy).sum(axis=1, keepdims=True))
    dz = dy / y.dtype.type(len(x))

    reversed_gradients: list[FloatArray] = []
    for layer in reversed(range(len(spec.weights))):
        weight, bias = spec.weights[layer], spec.biases[layer]
        da = dz * derivatives[layer]
        if bias is not None:
            reversed_gradients.append(da.sum(axis=0))
        reversed_gradients.append(_affine(units[layer].T, da) + weight.dtype.type(spec.weight_decay) * weight)
        if layer > 0:
            dz = _affine(da, np.ascontiguousarray(weight.T))
    return reversed_gradients[::-1]


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
    products = 2 * len(x) * sum(w.size + UNIT_PRODUCTS * w.shape[1] for w in spec.weights)
    _share(_loop, _loop_parts, job, len(entries), products, 1)
    return differences

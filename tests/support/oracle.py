"""The tests' oracle: networks in long double, every value with a bound of what rounding may take from it.

Answers are compared with these bounds, those of `bounded.Bounded`, and not with tolerances.

The formulas are written out here once more, on purpose: nothing is shared with the package but the names of things.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bounded import EXP_UNITS, LOG_UNITS, Bounded, Long, unit
from fastnet.backends.spec import Activation, Loss, NetworkSpec, Output

IS_WIDE = np.finfo(Long).nmant > np.finfo(np.float64).nmant

EPSILON = Long(1e-7)  # inside the logarithm of the cross entropy
DOUBLE_UNIT = Long(2) ** -53

# What one call may lose, in the units of `bounded`.
ACTIVATION_UNITS = {
    Activation.IDENTITY: 0,
    Activation.STEP: 0,
    # e^-|x|, half of it again through 1 + e^-|x|, the sum and the quotient
    Activation.SIGMOID: EXP_UNITS + EXP_UNITS / 2 + 2,
    # expm1 (2 ulp), up to twice that through u / (2 + u), the sum and the quotient
    Activation.TANH: 10,
    Activation.RELU: 0,
    Activation.LEAKY_RELU: 1,
    Activation.SOFTPLUS: LOG_UNITS + EXP_UNITS + 1,
    Activation.SILU: EXP_UNITS + EXP_UNITS / 2 + 3,
    Activation.GELU: 12,  # and what the argument's rounding does: see `activation_units`
    Activation.ELU: 5,
}
SIGMOID_DERIVATIVE_UNITS = 2 * ACTIVATION_UNITS[Activation.SIGMOID] + 1  # as sigmoid(x) * sigmoid(-x)


# Activations ----------------------------------------------------------------------------------------------


def activation_value(kind: Activation, x: npt.ArrayLike, slope: float = 0.01) -> npt.NDArray[Any]:
    x = np.asarray(x, Long)
    if kind == Activation.IDENTITY:
        return x
    if kind == Activation.STEP:
        return np.where(np.isnan(x), x, (x > 0).astype(Long))
    if kind == Activation.SIGMOID:
        with np.errstate(under="ignore"):
            return np.where(x > 0, 1, np.exp(np.minimum(x, 0))) / (1 + np.exp(-abs(x)))
    if kind == Activation.TANH:
        return np.tanh(x)
    if kind == Activation.RELU:
        return np.where(x <= 0, Long(0), x)
    with np.errstate(under="ignore", invalid="ignore", over="ignore"):
        if kind == Activation.SOFTPLUS:
            return np.maximum(x, 0) + np.log1p(np.exp(-abs(x)))
        if kind == Activation.SILU:
            x = np.maximum(x, -12000)
            return x * activation_value(Activation.SIGMOID, x)
        if kind == Activation.GELU:
            x = np.maximum(x, -140)
            return x * normal_distribution(x)
        if kind == Activation.ELU:
            return np.where(x > 0, x, Long(slope) * np.expm1(np.minimum(x, 0)))
    return np.where(x > 0, x, x * Long(slope))


def normal_density(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    with np.errstate(under="ignore"):
        return np.exp(-x * x / 2) / np.sqrt(8 * np.arctan(Long(1)))


def normal_distribution(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Φ(x): of −|x| by a series of positive terms up to 2, and beyond by Laplace's continued fraction."""
    size = np.minimum(abs(x), 140)
    inner, away = np.minimum(size, 2), np.maximum(size, 2)
    tail = Long(0)
    if (size < 2).any():  # by one product of all powers at a time: arrays are small, and calls cost more than numbers
        factors = np.multiply.outer(1 / Long(np.arange(3, 91, 2)), inner**2)
        total = inner * (1 + np.multiply.accumulate(factors).sum(axis=0))
        tail = Long(1) / 2 - normal_density(inner) * total
    if (size >= 2).any():
        fraction = away
        for n in range(150, 0, -1):
            fraction = away + n / fraction
        tail = np.where(size < 2, tail, normal_density(size) / fraction)
    return np.where(x > 0, 1 - tail, tail)


def activation_units(kind: Activation, a: npt.NDArray[Any]) -> Any:
    """What an activation loses at `a`. The reference rounds the argument of GELU's Φ, and a² says what that costs."""
    extra = 2 * np.minimum(a, 0) ** 2 if kind == Activation.GELU else 0
    return ACTIVATION_UNITS[kind] + np.minimum(extra, 3200)


def activation(kind: Activation, a: Bounded, slope: float = 0.01) -> Bounded:
    value = activation_value(kind, a.value, slope)
    # All are monotone for slopes >= 0: the ends of the interval bound what lies between.
    above, below = (activation_value(kind, a.value + sign * a.error, slope) for sign in (1, -1))
    error = np.maximum(abs(above - value), abs(value - below))
    if kind in (Activation.SILU, Activation.GELU):  # not monotone: f'' is at most 1
        error = error + a.error**2 + abs(value != 0) * np.minimum(abs(a.value), 800) * a.tiny
    return a._like(value, error, activation_units(kind, a.value))


def activation_derivative(kind: Activation, a: Bounded, slope: float = 0.01) -> Bounded:
    if kind == Activation.IDENTITY:
        return Bounded.exact(np.ones_like(a.value), a.dtype)
    if kind in (Activation.SIGMOID, Activation.TANH):
        inner = 2 if kind == Activation.TANH else 1  # tanh'(a) = 4 sigmoid'(2a)
        e = np.exp(-inner * abs(a.value))
        value = inner**2 * e / (1 + e) ** 2
        steepest = Long("0.0963") * inner**3  # |sigmoid''| <= 1 / (6 sqrt 3)
        return a._like(value, steepest * a.error, SIGMOID_DERIVATIVE_UNITS)
    if kind in (Activation.SOFTPLUS, Activation.SILU):
        s, c = (activation_value(Activation.SIGMOID, sign * a.value) for sign in (1, -1))
        if kind == Activation.SOFTPLUS:
            return a._like(s, a.error / 4, ACTIVATION_UNITS[Activation.SIGMOID])
        lost = 30 * a.unit * (s + abs(a.value) * s * c)
        return a._like(s * (1 + a.value * c), a.error / 2 + lost + (1 + abs(a.value)) * a.tiny)
    if kind == Activation.GELU:  # |(2 - a²) density| <= 0.8
        below, slope_of_it = normal_distribution(a.value), a.value * normal_density(a.value)
        lost = activation_units(kind, -abs(a.value)) * a.unit * (below + abs(slope_of_it))
        return a._like(below + slope_of_it, 0.8 * a.error + lost + (1 + abs(a.value)) * a.tiny, 2)
    if kind == Activation.ELU:
        with np.errstate(under="ignore"):
            left, right = Long(slope) * np.exp(np.minimum(a.value, 0)), Long(1)
            value = np.where(a.value > 0, right, left)
            near = (a.error > 0) & (abs(a.value) <= a.error)
            error = np.where(a.value > 0, 0, abs(left) * np.expm1(np.minimum(a.error, 1)))
        return a._like(value, error + near * (abs(right - left) + abs(Long(slope)) * a.error), EXP_UNITS + 1)
    above = Long(0) if kind == Activation.STEP else Long(1)
    below = Long(slope) if kind == Activation.LEAKY_RELU else Long(0)
    on_the_edge = (a.error > 0) & (abs(a.value) <= a.error)  # either side is right
    return Bounded(np.where(a.value > 0, above, below), on_the_edge * abs(above - below), a.dtype)


def softmax(a: Bounded) -> Bounded:
    shifted = a.value - a.value.max(axis=1, keepdims=True)
    # Whatever is subtracted from a row is the same for all of it and cancels: only the subtraction rounds.
    e = Bounded(shifted, a.error + a.unit * (abs(shifted) + 2 * a.error), a.dtype).exp()
    return e / e.sum(axis=1, keepdims=True)


# Networks -------------------------------------------------------------------------------------------------


def _layers(spec: NetworkSpec) -> Any:
    """Each layer's weight, bias, activation, and the activation's constant as the dtype has it."""
    return [layer._replace(constant=float(spec.dtype.type(layer.constant))) for layer in spec.layers]


def _units(spec: NetworkSpec, x: Any, begin: int = 0, end: int | None = None) -> tuple[list[Bounded], list[Bounded]]:
    """Each layer's units before its activation, and after it (x first, the answer not included).

    With `begin`, x are the units before that layer.
    """
    before, after = [], [x if isinstance(x, Bounded) else Bounded.exact(x, spec.dtype)]
    for weight, bias, kind, constant in itertools.islice(_layers(spec), begin, end):
        a = after[-1] @ Bounded.exact(weight, spec.dtype)
        before.append(a if bias is None else a + bias)
        after.append(activation(kind, before[-1], constant))
    return before, after


def forward(spec: NetworkSpec, x: Any, begin: int = 0) -> Bounded:
    last = _units(spec, x, begin)[1][-1]
    return softmax(last) if spec.output == Output.SOFTMAX else last


def loss_constant(spec: NetworkSpec) -> float:
    return float(spec.dtype.type(spec.loss_constant))


def one_hot(t: npt.ArrayLike, classes: int) -> npt.NDArray[Any]:
    t = np.asarray(t)
    return np.eye(classes, dtype=Long)[t] if t.ndim == 1 else t.astype(Long)


def epsilon(dtype: npt.DTypeLike) -> Bounded:
    return Bounded(EPSILON, EPSILON * unit(dtype), dtype)


def row_losses(loss: Loss, y: Bounded, t: npt.ArrayLike, constant: float = 0.0) -> Bounded:
    """The loss of each row; `constant` is the δ of the Huber loss as the dtype has it."""
    rows = one_hot(t, y.value.shape[1])
    if loss == Loss.BINARY_CROSS_ENTROPY:
        above = activation(Activation.SOFTPLUS, y)
        below = activation(Activation.SOFTPLUS, Bounded(-y.value, y.error, y.dtype))
        return (above * (1 - rows) + below * rows).sum(axis=1)
    if loss in (Loss.HUBER, Loss.ABSOLUTE_ERROR):
        r = y - rows
        size = Bounded(abs(r.value), r.error, y.dtype)
        if loss == Loss.ABSOLUTE_ERROR:
            return size.sum(axis=1)
        squares, delta = size * size * 0.5, Long(constant)
        linear = (size - delta / 2) * delta
        far = abs(r.value) > delta  # where rounding takes r to the other side, the two differ by less than the bounds
        value = np.where(far, linear.value, squares.value)
        return Bounded(value, np.maximum(linear.error, np.where(far, 0, squares.error)), y.dtype).sum(axis=1)
    if loss == Loss.MEAN_SQUARED_ERROR:
        difference = y - rows
        return (difference * difference).sum(axis=1) * 0.5
    return ((y + epsilon(y.dtype)).log() * -rows).sum(axis=1)


def mean(losses: Bounded) -> Bounded:
    """The mean of the rows' losses, which every backend takes in float64."""
    size = abs(losses.value).mean() + losses.error.mean()
    growth = (len(losses.value) + 1) * DOUBLE_UNIT
    return Bounded(losses.value.mean(), losses.error.mean() + growth * size, losses.dtype)


def penalty(spec: NetworkSpec) -> Bounded:
    """The penalty on the weights, which every backend adds up in float64."""
    squares = sum((w.astype(Long) ** 2).sum() for w in spec.weights)
    value = Long(spec.weight_decay) / 2 * squares
    return Bounded(value, value * (sum(w.size for w in spec.weights) + 4) * DOUBLE_UNIT, spec.dtype)


def loss(spec: NetworkSpec, x: npt.ArrayLike, t: npt.ArrayLike) -> Bounded:
    data, decay = mean(row_losses(spec.loss, forward(spec, x), t, loss_constant(spec))), penalty(spec)
    total = data.value + decay.value
    return Bounded(total, data.error + decay.error + DOUBLE_UNIT * abs(total), spec.dtype)


def gradient(spec: NetworkSpec, x: npt.ArrayLike, t: npt.ArrayLike) -> list[Bounded]:
    before, after = _units(spec, x)
    y = softmax(after[-1]) if spec.output == Output.SOFTMAX else after[-1]
    rows = Bounded.exact(one_hot(t, spec.classes), spec.dtype)
    if spec.loss == Loss.CROSS_ENTROPY:
        d = Bounded(-rows.value, 0 * rows.value, spec.dtype) / (y + epsilon(spec.dtype))
    elif spec.loss == Loss.BINARY_CROSS_ENTROPY:
        d = activation(Activation.SIGMOID, y) - rows
    else:
        d = y - rows
        if spec.loss == Loss.HUBER:
            delta = Long(loss_constant(spec))
            d = Bounded(np.clip(d.value, -delta, delta), d.error, spec.dtype)
        elif spec.loss == Loss.ABSOLUTE_ERROR:
            d = Bounded(np.sign(d.value), 2 * (abs(d.value) <= d.error), spec.dtype)
    if spec.output == Output.SOFTMAX:
        d = y * (d - (y * d).sum(axis=1, keepdims=True))
    d = d / Long(len(rows.value))

    gradients: list[Bounded] = []
    for layer, (weight, bias, kind, constant) in reversed(list(enumerate(_layers(spec)))):
        d = d * activation_derivative(kind, before[layer], constant)
        if bias is not None:
            gradients.append(d.sum(axis=0))
        exact_weight = Bounded.exact(weight, spec.dtype)
        decay = Bounded(spec.weight_decay, abs(spec.weight_decay) * unit(spec.dtype), spec.dtype)
        gradients.append(after[layer].T @ d + exact_weight * decay)
        d = d @ exact_weight.T
    return gradients[::-1]


def at_entry(spec: NetworkSpec, entry: int) -> tuple[npt.NDArray[Any], int]:
    """The (flat) parameter array that holds the parameter of that flat number, and where in it."""
    for parameter in spec.parameters:
        if entry < parameter.size:
            return parameter.reshape(-1), entry
        entry -= parameter.size
    raise IndexError(entry)


def central_difference(spec: NetworkSpec, x: npt.ArrayLike, t: npt.ArrayLike, h: float, entry: int) -> Bounded:
    """What `loop` gives for one parameter: it moves to the nearest numbers of its dtype, and all else is exact."""
    spec = spec.copy()
    parameter, at = at_entry(spec, entry)
    layer = next(k for k, (w, b, *_) in enumerate(_layers(spec)) if parameter.base is w or parameter.base is b)
    step, value = spec.dtype.type(h), parameter[at]
    units = _units(spec, x, end=layer)[1][-1]  # which do not change
    losses, squares = [], []
    for parameter[at] in (value + step, value - step):
        losses.append(mean(row_losses(spec.loss, forward(spec, units, layer), t, loss_constant(spec))))
        squares.append(Long(parameter[at]) ** 2)
    difference = (losses[0].value - losses[1].value) / (2 * Long(h))
    error = (losses[0].error + losses[1].error) / (2 * Long(h))
    if spec.weight_decay and any(np.shares_memory(parameter, w) for w in spec.weights):
        # λW is this difference without rounding; the penalties' own difference also sees where W was rounded to.
        exact = Long(spec.weight_decay) * Long(value)
        taken = Long(spec.weight_decay) / 2 * (squares[0] - squares[1]) / (2 * Long(h))
        difference += exact
        error += abs(taken - exact)
    if spec.weight_decay:
        error += 2 * (penalty(spec).error + DOUBLE_UNIT * abs(loss(spec, x, t).value)) / (2 * Long(h))
    return Bounded(difference, error + 4 * unit(spec.dtype) * (abs(difference) + error), spec.dtype)


def complex_step_gradient(spec: NetworkSpec, x: npt.ArrayLike, t: npt.ArrayLike) -> list[npt.NDArray[Any]]:
    """The gradient without a derivative written down: Im loss(θ + ih) / h, exact for a tiny h."""
    h = Long(10) ** -30
    parameters = [p.astype(np.clongdouble) for p in spec.parameters]
    rows = one_hot(t, spec.classes)

    def complex_loss() -> Any:
        z, left = np.asarray(x).astype(np.clongdouble), iter(parameters)
        squares: Any = 0
        for _, bias, kind, constant in _layers(spec):
            weight = next(left)
            squares += (weight**2).sum()
            z = z @ weight if bias is None else z @ weight + next(left)
            if kind == Activation.SIGMOID:
                z = 1 / (1 + np.exp(-z))
            elif kind == Activation.TANH:
                z = np.tanh(z)
            elif kind == Activation.STEP:
                z = (z.real > 0).astype(np.clongdouble)
            elif kind == Activation.SOFTPLUS:
                z = np.where(z.real > 0, z, 0) + np.log(1 + np.exp(np.where(z.real > 0, -z, z)))
            elif kind == Activation.SILU:
                z = z / (1 + np.exp(-z))
            elif kind == Activation.GELU:  # Φ is defined as the integral of the density
                z = z * (normal_distribution(z.real) + 1j * z.imag * normal_density(z.real))
            elif kind == Activation.ELU:
                z = np.where(z.real > 0, z, Long(constant) * (np.exp(np.where(z.real > 0, 0, z)) - 1))
            elif kind != Activation.IDENTITY:
                z = np.where(z.real > 0, z, z * (Long(constant) if kind == Activation.LEAKY_RELU else 0))
        if spec.output == Output.SOFTMAX:
            z = np.exp(z - z.real.max(axis=1, keepdims=True))
            z = z / z.sum(axis=1, keepdims=True)
        losses = -(rows * np.log(z + EPSILON)) if spec.loss == Loss.CROSS_ENTROPY else (z - rows) ** 2 / 2
        return losses.sum(axis=1).mean() + Long(spec.weight_decay) / 2 * squares

    gradients = []
    for parameter in parameters:
        gradient = np.empty(parameter.shape, Long)
        for at in np.ndindex(parameter.shape):
            value = parameter[at]
            parameter[at] = value + 1j * h
            gradient[at] = complex_loss().imag / h
            parameter[at] = value
        gradients.append(gradient)
    return gradients


# Cases ----------------------------------------------------------------------------------------------------


class Case(NamedTuple):
    """A network and a batch for it."""

    spec: NetworkSpec
    x: npt.NDArray[Any]
    t: npt.NDArray[Any]


BATCHES = (1, 2, 63, 64, 65, 256, 257, 300)  # around the blocks of rows that the kernels work in
WIDTHS = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33)  # around the vectors of every instruction set
CASES = 2 * len(BATCHES)


@functools.cache
def case(number: int, dtype: str) -> Case:
    """The network and batch of that number, 0 to CASES - 1: each batch size, once dense and once mostly zeros."""
    rng = np.random.default_rng(number)
    depth = 1 + (number // 2 + number // len(BATCHES)) % 4
    widths = [int(rng.choice(WIDTHS)) for _ in range(depth + 1)]
    widths[-1] = max(2, widths[-1])  # a softmax of one class is 1, whatever goes in
    output, loss = (
        (Output.SOFTMAX, Loss.CROSS_ENTROPY),
        (Output.SOFTMAX, Loss.MEAN_SQUARED_ERROR),
        (Output.IDENTITY, Loss.MEAN_SQUARED_ERROR),
        (Output.IDENTITY, Loss.CROSS_ENTROPY),
    )[(number + number // 4) % 4]
    smooth_or_bent = [kind for kind in Activation if kind != Activation.STEP]
    kinds = [Activation(int(k)) for k in rng.permutation(smooth_or_bent)[:depth]]
    if number % 7 == 5:
        kinds[0] = Activation.STEP  # rarely: no gradient passes it
    if (output, loss) == (Output.IDENTITY, Loss.CROSS_ENTROPY):
        kinds[-1] = Activation.SIGMOID  # answers must be positive
    spec = NetworkSpec.chain(
        weights=tuple(
            (rng.standard_normal(shape) * 1.5 / np.sqrt(shape[0])).astype(dtype) for shape in itertools.pairwise(widths)
        ),
        biases=tuple(rng.standard_normal(n).astype(dtype) if rng.random() < 0.7 else None for n in widths[1:]),
        activations=tuple(kinds),
        output=output,
        loss=loss,
        weight_decay=0.1 if number % 3 == 0 else 0.0,
        constants=(0.1, 0.3, 0.1, 0.7)[:depth],
    )
    batch = BATCHES[number % len(BATCHES)]
    x = rng.standard_normal((batch, widths[0])).astype(dtype)
    if number >= len(BATCHES):
        x[rng.random(x.shape) < 0.8] = 0
    labels = rng.integers(0, widths[-1], batch)
    shares = rng.random((batch, widths[-1]))
    t = (
        labels,
        np.eye(widths[-1], dtype=dtype)[labels],
        (shares / shares.sum(axis=1, keepdims=True)).astype(dtype),
    )[number % 3]
    return Case(spec, x, t)


def sampled_entries(spec: NetworkSpec, most: int = 6) -> npt.NDArray[np.int64]:
    """The first and last entry of every parameter array, and others spread between."""
    ends = np.cumsum([p.size for p in spec.parameters])
    entries = {0, *(ends - 1).tolist(), *(ends[:-1]).tolist()}
    entries |= set(np.linspace(0, ends[-1] - 1, most).astype(int).tolist())
    return np.array(sorted(entries), np.int64)


cached_gradient = functools.cache(lambda number, dtype: gradient(*case(number, dtype)))
cached_forward = functools.cache(lambda number, dtype: forward(case(number, dtype).spec, case(number, dtype).x))
cached_loss = functools.cache(lambda number, dtype: loss(*case(number, dtype)))
cached_difference = functools.cache(lambda number, dtype, h, entry: central_difference(*case(number, dtype), h, entry))

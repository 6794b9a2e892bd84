"""The exact values of the finite differences, and bounds of what rounding may take from them.

Two independent calculations meet here. `exact_gradient` is the definition, in many digits. `bounded_gradient` follows
what the kernels do, in `bounded.Bounded`: it bounds how far the rounding of the forward pass that differences start
from, and of every step after it, can take each entry. Answers are compared with the one, within the other.
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import NamedTuple

import numpy as np

import oracle
from bounded import Bounded
from differences_in_many_digits import constants_of, exact_gradient
from fastnet.backends.spec import Activation, Loss, NetworkSpec, Output

Long = np.longdouble
ANSWERS = (
    (Output.SOFTMAX, Loss.CROSS_ENTROPY),
    (Output.SOFTMAX, Loss.MEAN_SQUARED_ERROR),
    (Output.IDENTITY, Loss.MEAN_SQUARED_ERROR),
)
MORE_ANSWERS = tuple((Output.IDENTITY, loss) for loss in (Loss.BINARY_CROSS_ENTROPY, Loss.HUBER, Loss.ABSOLUTE_ERROR))


class Recipe(NamedTuple):
    """A small network, a batch and a step, by numbers that Hypothesis can shrink."""

    kinds: tuple[Activation, ...]
    answer: tuple[Output, Loss]
    sizes: tuple[int, ...]
    biased: tuple[bool, ...]
    dtype: str
    h: float
    scale: float
    slope: float
    decay: float
    inputs: str
    targets: str
    rows: int
    seed: int

    def make(self):
        """The network, x and t."""
        rng = np.random.default_rng(self.seed)
        spec = NetworkSpec.chain(
            tuple((rng.standard_normal(s) * self.scale).astype(self.dtype) for s in itertools.pairwise(self.sizes)),
            tuple(
                (rng.standard_normal(n) * self.scale).astype(self.dtype) if biased else None
                for n, biased in zip(self.sizes[1:], self.biased, strict=True)
            ),
            self.kinds,
            *self.answer,
            weight_decay=self.decay,
            constants=tuple(self.slope / (1 + layer) for layer in range(len(self.kinds))),
            loss_constant=(1.0, 0.3, 3.0)[self.seed % 3],
        )
        shape, classes = (self.rows, self.sizes[0]), self.sizes[-1]
        x = {
            "normal": lambda: rng.standard_normal(shape),
            "pixels": lambda: rng.integers(0, 256, shape) * (rng.random(shape) < 0.7),
            "few values": lambda: rng.choice([0, 1, 1, -1, 0.5, 0.5], shape),
            "unit pixels": lambda: rng.integers(0, 256, shape) / 255 * (rng.random(shape) < 0.7),
            "huge": lambda: rng.standard_normal(shape) * rng.choice([1, 1e4], shape),
            "zeros": lambda: np.zeros(shape),
            "tiny": lambda: rng.standard_normal(shape) * rng.choice([1e-30, 1e-6, 1], shape),
        }[self.inputs]().astype(self.dtype)
        labels = rng.integers(0, classes, self.rows)
        t = {
            "labels": lambda: labels,
            "one-hot": lambda: np.eye(classes, dtype=self.dtype)[labels],
            "probabilities": lambda: rng.dirichlet(np.ones(classes), self.rows).astype(self.dtype),
        }[self.targets]()
        return spec, x, t


# What rounding may take from each entry -------------------------------------------------------------------


# A sigmoid's difference s c u / (1 + w u), in units of the last place: s, c and w have 11 each (`oracle`), expm1 has
# 4, there are three products, a sum and a quotient. Tanh's is twice that at twice the arguments: exact.
SMOOTH_UNITS = 3 * 11 + 2 * 4 + 5
EXPM1_UNITS, LOG1P_UNITS = 4, 8


def long_difference(kind, a, d, slope):
    """φ(a + d) − φ(a) in long double, for the sigmoid by sinh(d/2) / (2 cosh(a/2) cosh((a + d)/2))."""
    if kind == Activation.TANH:
        return 2 * long_difference(Activation.SIGMOID, 2 * a, 2 * d, slope)
    if kind == Activation.SIGMOID:
        b = a + d
        common = np.exp((abs(d) - abs(a) - abs(b)) / 2) / ((1 + np.exp(-abs(a))) * (1 + np.exp(-abs(b))))
        return -np.sign(d) * common * np.expm1(-abs(d))
    if kind == Activation.IDENTITY:
        return d + 0 * a
    if kind == Activation.STEP:
        return (a + d > 0).astype(Long) - (a > 0)
    if kind == Activation.SOFTPLUS:
        return long_softplus(a, d)
    if kind == Activation.SILU:
        b = np.maximum(a + d, -12000)
        return d * oracle.activation_value(Activation.SIGMOID, b) + a * long_difference(Activation.SIGMOID, a, d, slope)
    if kind == Activation.GELU:
        return d * oracle.normal_distribution(a + d) + a * long_distribution(a, d)
    if kind == Activation.ELU:
        left = [Long(slope) * np.expm1(np.minimum(v, 0)) for v in (a, a + d)]
        start, end = np.minimum(a, 0), np.minimum(a + d, 0)
        both = Long(slope) * np.sign(d) * np.exp(np.maximum(start, end)) * -np.expm1(-abs(d))
        same = np.where(a > 0, d, both)
        return np.where((a > 0) == (a + d > 0), same, np.where(a > 0, left[1] - a, a + d - left[0]))
    low = Long(slope if kind == Activation.LEAKY_RELU else 0)
    same = np.where(a > 0, d, low * d)
    return np.where((a > 0) == (a + d > 0), same, np.where(a > 0, low * (a + d) - a, a + d - low * a))


def long_softplus(a, d):
    """log(1 + e^b) − log(1 + e^a), b = a + d, for d < 0 as minus the difference from b."""
    start, size = np.where(d < 0, a + d, a), abs(d)
    x = np.expm1(np.minimum(size, 40)) / (1 + np.exp(-start))
    ramps = np.where(start > 0, size, np.maximum(start + size, 0))
    logs = [np.log1p(np.exp(-abs(v))) for v in (start, start + size)]
    return np.sign(d) * np.where(size > 40, ramps + logs[1] - logs[0], np.log1p(x))


def long_distribution(a, d):
    """Φ(a + d) − Φ(a): by a power series in d where the move is short."""
    b = a + d
    short = abs(d) * np.maximum(abs(a), 1) <= 0.5
    plain = Long(0)
    if not short.all():  # values from the side where they are small
        right = (a > 0) & (b > 0)
        plain = oracle.normal_distribution(np.where(right, -a, b)) - oracle.normal_distribution(np.where(right, -b, a))
    s, at = np.where(short, d, 0), np.where(short, a, 0)
    total, power, before, coefficient = 0 * s, s, 0 * s, 1 + 0 * s  # of e^(-a s - s²/2)
    for n in range(1, 40):
        total = total + coefficient * power / n
        power, before, coefficient = power * s, coefficient, -(at * coefficient + before) / n
    return np.where(short, oracle.normal_density(a) * total, plain)


# Of what a difference is put together from, in units of the last place: a sigmoid's difference and its value; the
# density, seven exponentials and their sum, or two values of Φ; e^a, expm1 and two products.
SOFTPLUS_UNITS, SILU_UNITS, GELU_UNITS, ELU_UNITS = 46, SMOOTH_UNITS + 13, 30, 14


def parts(kind, a, d, slope):
    """What the rounding of a difference's parts can take from it, and of the sum a + d."""
    b = a.value + d.value
    long = abs(d.value) > 30
    lost = a.tiny * np.exp(np.minimum(abs(d.value), 30))  # of s and c below the smallest normal number
    if kind == Activation.SOFTPLUS:
        size = abs(long_softplus(a.value, d.value))
        s = oracle.activation_value(Activation.SIGMOID, b)
        return SOFTPLUS_UNITS * a.unit * size + long * a.unit * abs(b) * s + lost
    if kind == Activation.SILU:
        s = oracle.activation_value(Activation.SIGMOID, np.maximum(b, -12000))
        rise = long_difference(Activation.SIGMOID, a.value, d.value, slope)
        size = abs(d.value) * s + abs(a.value * rise)
        rounded = (abs(d.value) > 0.5) * abs(d.value) + long * abs(a.value)
        of_sum = rounded * a.unit * abs(b) * s * oracle.activation_value(Activation.SIGMOID, -b)
        return SILU_UNITS * a.unit * size + of_sum + lost * (abs(a.value) + abs(d.value))
    if kind == Activation.GELU:
        right = (a.value > 0) & (b > 0)
        short = abs(d.value) * np.maximum(abs(a.value), 1) <= 0.5
        ends = [oracle.normal_distribution(np.where(right, -v, v)) for v in (a.value, b)]
        squares = [np.minimum(2 * v**2, 3200) * (v < 0) for v in np.where(right, -np.array([a.value, b]), [a.value, b])]
        values = sum((GELU_UNITS + q) * e for q, e in zip(squares, ends, strict=True))
        rise = abs(long_distribution(a.value, d.value))
        rise = np.where(short, (GELU_UNITS + np.minimum(2 * a.value**2, 3200)) * rise, values)
        after = (GELU_UNITS + np.minimum(2 * np.minimum(b, 0) ** 2, 3200)) * oracle.normal_distribution(b)
        of_sum = ~short * (abs(a.value) + abs(d.value)) * abs(b) * oracle.normal_density(b)
        return a.unit * (abs(d.value) * after + abs(a.value) * rise + of_sum) + 40 * a.tiny * (1 + abs(d.value))
    # ELU
    low, start, end = abs(Long(slope)), np.minimum(a.value, 0), np.minimum(b, 0)
    crosses = (a.value > 0) != (b > 0)
    size = abs(long_difference(kind, a.value, d.value, slope))
    size = np.where(crosses, low * (abs(np.expm1(start)) + abs(np.expm1(end))) + abs(a.value) + abs(d.value), size)
    plain = long & ~crosses & (a.value <= 0)
    size = size + plain * low * (np.exp(start) + np.exp(end) * (1 + abs(b)))
    return ELU_UNITS * a.unit * size + low * lost


def difference(kind, a, d, slope):
    """φ(a + d) − φ(a) of Bounded a and d."""
    value = long_difference(kind, a.value, d.value, slope)
    by_d = np.maximum.reduce([abs(long_difference(kind, a.value + d.value, s * d.error, slope)) for s in (1, -1)])
    if kind == Activation.IDENTITY:
        return a._like(value, d.error, 0)
    if kind in (Activation.SIGMOID, Activation.TANH):
        # |d log(s c / (1 + w u)) / da| <= |c - s| + 1 <= 2; tanh: at 2a.
        by_a = abs(value) * np.expm1(np.minimum((4 if kind == Activation.TANH else 2) * a.error, 100))
        # Moves longer than 30 (15) are subtractions of two values, where a + d is rounded before. For the others, what
        # c loses where it is below the smallest normal number is multiplied by u.
        end, inner = a.value + d.value, 2 if kind == Activation.TANH else 1
        rounded = np.where(inner * abs(d.value) > 30, a.unit * abs(end), 0)
        by_sum = np.maximum.reduce([abs(long_difference(kind, end, s * rounded, slope)) for s in (1, -1)])
        lost = inner * a.tiny * np.exp(np.minimum(inner * abs(d.value), 30))
        return a._like(value, by_a + by_d + by_sum + lost, SMOOTH_UNITS)
    smooth = kind in (Activation.SOFTPLUS, Activation.SILU, Activation.GELU, Activation.ELU)
    # Piecewise linear in a, or smooth: the ends of a's interval, and the kinks a = 0 and a + d = 0 if they are inside.
    ends = [a.value + a.error, a.value - a.error]
    ends += [np.clip(k, ends[1], ends[0]) for k in (Long(0), -d.value)]
    ends += [e * (1 + s * np.finfo(Long).eps) for e in ends for s in (1, -1)]
    by_a = np.maximum.reduce([abs(long_difference(kind, e, d.value, slope) - value) for e in ends])
    if smooth:
        return a._like(value, by_a + by_d + parts(kind, a, d, slope), 3)
    # Across the kink it is low (a + d) - a, or a + d - low a, which cancels where the slope is negative.
    end, low = a.value + d.value, abs(Long(slope)) if kind == Activation.LEAKY_RELU else Long(0)
    across = ((a.value > 0) != (end > 0)) * 2 * a.unit * (abs(end) * np.maximum(low, 1) + low * abs(a.value))
    return a._like(value, by_a + by_d + across * (kind != Activation.STEP), 3)


def value_at(kind, a, slope):
    """φ(a) of a Bounded a, for slopes of any sign."""
    error = np.maximum.reduce([abs(long_difference(kind, a.value, s * a.error, slope)) for s in (1, -1)])
    if kind in (Activation.SILU, Activation.GELU):  # not monotone: f'' is at most 1
        error = error + a.error**2 + np.minimum(abs(a.value), 800) * a.tiny
    units = oracle.activation_units(kind, a.value)
    return a._like(oracle.activation_value(kind, a.value, slope), error, units)


def units_of(spec, x):
    """Each layer's Bounded units before and after its activation."""
    before, after = [], [Bounded.exact(x, spec.dtype)]
    for (weight, bias, kind, _), slope in zip(spec.layers, constants_of(spec), strict=True):
        exact = weight.shape[0] == 1 and bias is None and len(before) == 0 and (abs(x) == 1).all()
        a = Bounded.exact(x * weight, spec.dtype) if exact else after[-1] @ Bounded.exact(weight, spec.dtype)
        before.append(a if bias is None else a + bias)
        after.append(value_at(kind, before[-1], slope))
    return before, after[1:]


def softmax_difference(y, z, dz):
    """softmax(z + dz) − softmax(z), with y the latter, and softmax(z + dz)."""
    top = y.value.argmax(axis=1)
    d = dz - dz[np.arange(len(top)), top][:, None]
    after = oracle.softmax(z + dz)
    long = d.value.max(axis=1, keepdims=True) > (600 if d.dtype == np.float64 else 80)
    d = Bounded(np.where(long, 0, d.value), np.where(long, 0, d.error), d.dtype)
    q = d._like(np.expm1(d.value), np.exp(d.value) * np.expm1(d.error), EXPM1_UNITS)
    r = (y * q).sum(axis=1, keepdims=True)
    short, plain = y * (q - r) / (r + 1), after - y
    error = np.where(long, plain.error, short.error)
    return Bounded(np.where(long, plain.value, short.value), error, d.dtype), after


def loss_change(spec, z, dz, after, t):
    """By how much each row's loss changes when its last units z change by dz, to `after`."""
    if spec.output == Output.SOFTMAX:
        y = oracle.softmax(z)
        dy, after = softmax_difference(y, z, dz)
    else:
        y, dy = z, dz
    if spec.loss == Loss.BINARY_CROSS_ENTROPY:
        minus_y, minus_dy = (Bounded(-v.value, v.error, v.dtype) for v in (y, dy))
        up, down = difference(Activation.SOFTPLUS, y, dy, 0), difference(Activation.SOFTPLUS, minus_y, minus_dy, 0)
        return (up * (1 - t) + down * t).sum(axis=1)
    if spec.loss in (Loss.HUBER, Loss.ABSOLUTE_ERROR):
        return error_change(y - t, dy, oracle.loss_constant(spec) if spec.loss == Loss.HUBER else 0).sum(axis=1)
    if spec.loss == Loss.MEAN_SQUARED_ERROR:
        return (dy * (y - t + dy * 0.5)).sum(axis=1)
    base = y + oracle.epsilon(y.dtype)
    x = dy / base
    falls = x.value < -0.5
    quotient = ((after + oracle.epsilon(y.dtype)) / base).log()
    near = np.maximum(x.value, -0.75)
    log1p = x._like(np.log1p(near), -np.log1p(-np.minimum(x.error / (1 + near), 0.99)), LOG1P_UNITS)
    error = np.where(falls, quotient.error, log1p.error)
    return (Bounded(np.where(falls, quotient.value, log1p.value), error, y.dtype) * -t).sum(axis=1)


def error_change(r, d, delta):
    """By how much the Huber loss of the Bounded errors r changes when they change by d; for δ = 0 the absolute error.

    The loss is the integral of its derivative: of the error within ±δ, and of ±δ, or ±1, beyond.
    """

    def change(start, move):
        first, beside = np.clip(start, -delta, delta), start - np.clip(start, -delta, delta)
        way = move + beside  # from `first`
        last = np.clip(start + move, -delta, delta)
        inner = np.where(abs(start + move) <= delta, way, last - first)
        slope = Long(delta or 1)
        same = (first == last) & (beside != 0) & (way * beside > 0)
        outer = np.where(same, np.sign(beside) * move, abs(way - inner) - abs(beside))
        sizes = abs(inner) * np.maximum(abs(first), abs(last)) + slope * (abs(way - inner) + abs(beside)) * ~same
        return inner * (first + inner / 2) + slope * outer, sizes + slope * abs(move)

    value, sizes = change(r.value, d.value)
    ends = [change(r.value + i * r.error, d.value + j * d.error)[0] for i, j in itertools.product((-1, 0, 1), repeat=2)]
    return r._like(value, np.maximum.reduce([abs(end - value) for end in ends]) + 6 * r.unit * sizes, 3)


class Entry(NamedTuple):
    """A parameter's central differences."""

    value: np.ndarray
    incremental: np.ndarray  # bounds of the error
    nodal: np.ndarray
    moves: np.ndarray  # whether any row's loss does


def bounded_gradient(spec, x, t, h):
    """An Entry for each parameter. Raises AssertionError where the forward pass tells nothing."""
    before, after = units_of(spec, x)
    inputs = [Bounded.exact(x, spec.dtype), *after]
    targets, last, slopes = oracle.one_hot(t, spec.classes), len(before) - 1, constants_of(spec)
    step, rows, entries = Long(spec.dtype.type(h)), len(x), []
    for layer, (weight, bias, *_) in enumerate(spec.layers):
        from_ = inputs[layer]
        if bias is not None:
            ones = np.ones((rows, 1), Long)
            from_ = Bounded(np.hstack([from_.value, ones]), np.hstack([from_.error, 0 * ones]), spec.dtype)
        shape = (*from_.value.shape, weight.shape[1])
        n, i, j = (index.ravel() for index in np.indices(shape))
        changes = []
        for sign in (1, -1):
            move = from_[n, i] * (sign * step)
            d = Bounded(np.zeros((len(n), shape[2])), np.zeros((len(n), shape[2])), spec.dtype)
            d.value[np.arange(len(n)), j], d.error[np.arange(len(n)), j] = move.value, move.error
            for at in range(layer, last + 1):
                a = before[at][n]
                end = a + d
                dz = difference(spec.layers[at].activation, a, d, slopes[at])
                if at < last:
                    d = dz @ Bounded.exact(spec.weights[at + 1], spec.dtype)
            end = value_at(spec.layers[last].activation, end, slopes[last])
            changes.append(loss_change(spec, after[last][n], dz, end, targets[n]))
        odd = changes[0] - changes[1]
        odd = Bounded(odd.value.reshape(shape), odd.error.reshape(shape), spec.dtype)
        scale = 1 / (2 * step * rows)
        total = odd._like(odd.value * scale, odd.error * scale, 3).sum(axis=0)

        # `nodal`: an odd polynomial through nodes on the way to the furthest move, the greatest input's. At a node in
        # between it is off by at most 100 eps of the greatest effect of that move on any unit. Between nodes that is at
        # most doubled: for nodes 1, 1/2 and the check 3/4, (t - 1)(t - 1/4) in t = s^2 is 1.83 times as great at 0 as
        # at the check; for 1, 1/2, 3/4 and the check 1/4, (t - 1)(t - 1/4)(t - 9/16) is 1.6 times. The rounding of the
        # nodes' own values is weighted with at most 4.7, the sum of the Lagrange polynomials' sizes at 0.
        sizes = abs(from_.value)
        furthest = (np.arange(rows), sizes.argmax(axis=1))
        share = sizes / np.where(sizes[furthest] > 0, sizes[furthest], 1)[:, None]
        greatest = (abs(odd.value[furthest]) + odd.error[furthest]).max(axis=1)[:, None]
        off = scale * (4.7 * odd.error[furthest] + 2 * 100 * 2 * odd.unit * greatest)
        extra = share.T @ off
        data = total[: len(weight)]
        if spec.weight_decay:
            rate = Bounded(spec.weight_decay, spec.weight_decay * odd.unit, spec.dtype)
            data = data + Bounded.exact(weight, spec.dtype) * rate
        moves = (odd.value != 0).any(axis=0)
        entries.append(Entry(data.value, data.error, data.error + extra[: len(weight)], moves[: len(weight)]))
        if bias is not None:
            entries.append(Entry(total.value[-1], total.error[-1], total.error[-1] + extra[-1], moves[-1]))
    return entries


@functools.cache
def bounds(recipe):
    """An Entry for each parameter, in long double; None where rounding leaves nothing, or numbers are out of range."""
    spec, x, t = recipe.make()
    with np.errstate(all="ignore"):
        try:
            entries = bounded_gradient(spec, x, t, recipe.h)
        except AssertionError:
            return None
    usable = all(np.isfinite(e.nodal).all() and (abs(e.value) < 1e30).all() for e in entries)
    return entries if usable else None


@functools.cache
def reference(recipe):
    """The same with the exact values."""
    entries, (spec, x, t) = bounds(recipe), recipe.make()
    # As many digits as there are from the loss down to the finest bound of its differences.
    moving = [e.incremental[e.moves] for e in entries]
    finest = min([float(e.min()) for e in moving if e.size] or [1.0]) * recipe.h
    with np.errstate(all="ignore"):
        greatest = 20 + float(abs(units_of(spec, x)[1][-1].value).max()) ** 2
    greatest += 2 * recipe.h * max(float(abs(e.value).max()) for e in entries)
    exact = exact_gradient(spec, x, t, recipe.h, max(50, math.ceil(math.log10(greatest) - math.log10(finest)) + 10))
    return [e._replace(value=v) for v, e in zip(exact, entries, strict=True)]


def largest(entries):
    return max(abs(e.value).max() for e in entries)


def looseness(entries, dtype):
    """The widest bound in units of eps times the largest entry."""
    return max(e.incremental.max() for e in entries) / largest(entries) / np.finfo(dtype).eps


def assert_exact(backend, recipe):
    """Every exact algorithm of the backend is within its bounds, and leaves its arguments alone."""
    spec, x, t = recipe.make()
    entries = reference(recipe)
    for algorithm in backend.algorithms:
        if algorithm == "loop":
            continue
        gradients, diagnostics = getattr(backend, algorithm)(spec, x, t, recipe.h)
        assert diagnostics.fallbacks >= diagnostics.kinks >= 0
        for i, (entry, gradient) in enumerate(zip(entries, gradients, strict=True)):
            assert gradient.dtype == recipe.dtype
            bounded = Bounded(entry.value, getattr(entry, algorithm), recipe.dtype)
            bounded.assert_holds(gradient, f"{algorithm}: parameter {i} of {recipe}: ")
    for kept, made in zip((*spec.parameters, x, t), (*recipe.make()[0].parameters, *recipe.make()[1:]), strict=True):
        np.testing.assert_array_equal(kept, made)

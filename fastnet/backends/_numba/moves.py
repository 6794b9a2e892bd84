"""What a move of one unit's pre-activation does to the loss: the kernels of the finite-difference gradients.

ψ(d) is the change of one row's loss when the pre-activation of one unit moves by d. Twice h times the central
difference by a weight is ψ(d) − ψ(−d) at d = h times the weight's input, summed over the rows. Differences are carried
from the unit to the loss exactly, so that nothing cancels, however small d is.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastnet._tools.types import FloatArray, IntArray
from fastnet.backends._numba import elements as kernels
from fastnet.backends._numba import products
from fastnet.backends._numba.elements import LANES, Answer
from fastnet.backends._numba.jit import borrowed, jit
from fastnet.backends._numba.job import BIASES, KIND, OUTPUTS, PADDED, PLACES, UNITS, WEIGHTS, Job
from fastnet.backends.spec import Activation, Loss, Output

BATCH = 8  # moves of LANES units, in both directions, that go through the network together
ROWS = 2 * BATCH * LANES  # of differences that go through a deep network together: a matrix product's

# What a move can meet on its way to the loss, as bits.
KINK = 1  # a unit changed the side of its kink
FAR = 2  # something smooth moved by more than about the distance in which it bends


class _Work(NamedTuple):
    """A thread's own workspace."""

    d: FloatArray  # (2 * BATCH, LANES)
    dz: FloatArray  # (classes, LANES)
    soft: FloatArray  # (classes + 2, LANES)
    change: FloatArray  # (LANES,)
    series: FloatArray  # (10, LANES)
    a: FloatArray  # (classes * LANES,): the place of each class's unit in every lane
    s: FloatArray
    c: FloatArray
    met: IntArray  # (LANES,)
    rows: FloatArray  # (2, ROWS * widest), of the network's dtype
    source: IntArray  # (ROWS,): the element of d that each of the rows started from
    row_met: IntArray  # (ROWS,)


@jit(inline=True)
def has_kink(kind: int) -> bool:
    return kind == Activation.STEP or kind == Activation.RELU or kind == Activation.LEAKY_RELU


@jit(inline=True)
def _bends(kind: int) -> bool:
    return kind == Activation.SIGMOID or kind == Activation.TANH


@jit(inline=True)
def _obstacles(kink: int, near: int, far: int, a: float, d: float) -> int:
    # What a move d from a meets; each of `kink`, `near` and `far` is the bit to set, or 0.
    # Bent ways may have crossed a kink and come back: `near`, what comes near it, is no safe ground.
    met = kink if (a > 0) != (a + d > 0) else 0
    met |= near if (a > 0) != (a + 2 * d > 0) else 0
    return met | (far if abs(d) > 1 else 0)


@jit()
def _steepest(kind: int, slope: float) -> float:
    # The greatest slope of an activation, by which a difference can exceed its move; infinite where it jumps.
    if kind == Activation.STEP:
        return np.inf
    if kind == Activation.LEAKY_RELU:
        return max(1.0, abs(slope))
    return 0.25 if kind == Activation.SIGMOID else 1.0


@jit(inline=True)
def _answer(job: Job, row: int) -> Answer:
    return Answer(job.last[row], job.y[row], job.likeliest[row], job.labels[row], job.targets[row])


@jit(inline=True)
def _spread_places(job: Job, row: int, work: _Work) -> None:
    # The places of the last layer's units, each in every lane.
    units = job.layers[-1, UNITS]
    for k in range(job.y.shape[1]):
        work.a[k * LANES : (k + 1) * LANES] = job.a[row, units + k]
        work.s[k * LANES : (k + 1) * LANES] = job.s[row, units + k]
        work.c[k * LANES : (k + 1) * LANES] = job.c[row, units + k]


@jit(inline=True)
def _finish(job: Job, row: int, kind: int, answer: Answer, met: IntArray, work: _Work) -> None:
    # work.dz (classes, LANES), moves of the last layer's pre-activations -> work.change (LANES,) of the loss;
    # adds to met (LANES,). `kind` is the activation that is still to come.
    dz, classes = work.dz, job.y.shape[1]
    if kind != Activation.IDENTITY:
        kink, far = KINK if has_kink(kind) else 0, FAR if _bends(kind) else 0
        near = FAR if kink and job.smooth else 0
        for k in range(classes):
            move, a = dz[k], job.a[row, job.layers[-1, UNITS] + k]
            for i in range(LANES):
                # Rounded as what came before it was: a unit that this takes back to 0 must come to exactly 0.
                move[i] = job.theta.dtype.type(move[i])
                met[i] |= _obstacles(kink, near, far, a, move[i])
        kernels.differ(kind, job.slope, False, work.a, work.s, work.c, dz.reshape((1, classes * LANES)))
    # As far as 1 is far for softmax, a share of its argument for a logarithm. The squared error is a polynomial.
    if job.output == Output.SOFTMAX or job.loss == Loss.CROSS_ENTROPY:
        for k in range(classes):
            move, limit = dz[k], 1.0
            if job.output != Output.SOFTMAX:
                limit = (abs(answer.y[k]) + kernels.EPSILON) / 4
            for i in range(LANES):
                met[i] |= FAR if abs(move[i]) > limit else 0
    kernels.loss_differences(job.output, job.loss, answer, dz, work.soft, work.change)


@jit(inline=True)
def _make_series(answer: Answer, effects: FloatArray, j: int, series: FloatArray) -> None:
    # effects (classes, units) -> series (10, LANES): the first five coefficients of r, and of R (q_t - r), in the
    # change v of the unit's value. With w_k the effect on class k less that on the likeliest class, v changes the loss
    # by -log1p(R (q_t - r) / (1 + r)), where q_k = e^(w_k v) - 1, r = sum_k y_k q_k, R = y_t / (y_t + epsilon).
    # Summed over the classes first, the series are the same for all moves of a unit.
    series[:] = 0
    r0, r1, r2, r3, r4 = series[0], series[1], series[2], series[3], series[4]
    on_likeliest = effects[answer.likeliest, j : j + LANES]
    for k in range(answer.y.size):
        effect, y = effects[k, j : j + LANES], answer.y[k]
        for i in range(LANES):
            w = effect[i] - on_likeliest[i]
            r0[i] += y * w
            r1[i] += y * (w * w) / 2
            r2[i] += y * (w * w * w) / 6
            r3[i] += y * (w * w * (w * w)) / 24
            r4[i] += y * (w * w * (w * w) * w) / 120
    effect, y = effects[answer.label, j : j + LANES], answer.y[answer.label]
    for i in range(LANES):
        power = effect[i] - on_likeliest[i]
        w = power
        for n in range(5):
            series[5 + n, i] = y / (y + kernels.EPSILON) * (power - series[n, i])
            power *= w / (n + 2)


@jit(inline=True)
def _change3(v: float, r0: float, r1: float, r2: float, t0: float, t1: float, t2: float) -> float:
    # log1p(t / (1 + r)), with t and r polynomials in v, all in series of third order.
    r = v * (r0 + v * (r1 + v * r2))
    x = v * (t0 + v * (t1 + v * t2)) * (1 - r * (1 - r * (1 - r)))
    return x * (1 - x * (1 / 2 - x * (1 / 3 - x * (1 / 4))))


@jit(inline=True)
def _by_series3(series: FloatArray, above: FloatArray, below: FloatArray, odd: FloatArray) -> None:
    # above, below (LANES,): changes of a unit's value by a move and by its opposite -> odd (LANES,)
    r0, r1, r2, t0, t1, t2 = series[0], series[1], series[2], series[5], series[6], series[7]
    for i in range(LANES):
        rise = _change3(below[i], r0[i], r1[i], r2[i], t0[i], t1[i], t2[i])
        odd[i] = rise - _change3(above[i], r0[i], r1[i], r2[i], t0[i], t1[i], t2[i])


@jit(inline=True)
def _change5(r: float, t: float) -> float:
    # log1p(t / (1 + r)) in series of fifth order
    x = t * (1 - r * (1 - r * (1 - r * (1 - r * (1 - r)))))
    return x * (1 - x * (1 / 2 - x * (1 / 3 - x * (1 / 4 - x * (1 / 5 - x * (1 / 6))))))


@jit(inline=True)
def _power_series(v: float, c0: float, c1: float, c2: float, c3: float, c4: float) -> float:
    return v * (c0 + v * (c1 + v * (c2 + v * (c3 + v * c4))))


@jit(inline=True)
def _by_series5(series: FloatArray, above: FloatArray, below: FloatArray, odd: FloatArray) -> None:
    # The same in series of fifth order.
    r0, r1, r2, r3, r4 = series[0], series[1], series[2], series[3], series[4]
    t0, t1, t2, t3, t4 = series[5], series[6], series[7], series[8], series[9]
    for i in range(LANES):
        v, w = below[i], above[i]
        r, t = _power_series(v, r0[i], r1[i], r2[i], r3[i], r4[i]), _power_series(v, t0[i], t1[i], t2[i], t3[i], t4[i])
        p, q = _power_series(w, r0[i], r1[i], r2[i], r3[i], r4[i]), _power_series(w, t0[i], t1[i], t2[i], t3[i], t4[i])
        odd[i] = _change5(r, t) - _change5(p, q)


@jit(inline=True)
def _evaluate_last(job: Job, row: int, number: int, j: int, d: FloatArray, odd: FloatArray, work: _Work) -> None:
    # Units j to j + LANES of one of the last two layers: d (2 * moves, LANES), changes of their values by each move
    # and by its opposite -> odd (moves, units)[:, j : j + LANES], flat; adds to work.met.
    depth, classes = len(job.layers), job.y.shape[1]
    layer, answer, effects = job.layers[number], _answer(job, row), job.effects[depth - 1 - number]
    kind = job.layers[-1, KIND] if number < depth - 1 else Activation.IDENTITY
    for v in range(0, len(d), 2):
        to = odd[v // 2 * layer[PADDED] + j : v // 2 * layer[PADDED] + j + LANES]
        for sign in (1.0, -1.0):
            move = d[v] if sign > 0 else d[v + 1]
            for k in range(classes):
                effect, dz = effects[k, j : j + LANES], work.dz[k]
                for i in range(LANES):
                    dz[i] = move[i] * effect[i]
            _finish(job, row, kind, answer, work.met, work)
            if sign > 0:
                to[:] = work.change
            else:
                for i in range(LANES):
                    to[i] -= work.change[i]


@jit(inline=True)
def _evaluate_deep(
    job: Job, row: int, number: int, j: int, units: int, d: FloatArray, odd: FloatArray, work: _Work
) -> None:
    # The same for an earlier layer: differences go through those behind it as the rows of a matrix product.
    depth, classes, layer = len(job.layers), job.y.shape[1], job.layers[number]
    now, then = work.rows[0], work.rows[1]
    width, count = job.layers[number + 1, OUTPUTS], 0
    for v in range(len(d)):
        to = odd[v // 2 * layer[PADDED] + j : v // 2 * layer[PADDED] + j + LANES]
        to[:] = 0
        for i in range(units):
            if d[v, i] != 0:
                begin = job.layers[number + 1, WEIGHTS] + (j + i) * width
                weight, to_row = job.theta[begin : begin + width], now[count * width : (count + 1) * width]
                move = d[v, i]
                for m in range(width):
                    to_row[m] = move * weight[m]
                work.source[count], work.row_met[count] = v * LANES + i, 0
                count += 1
    for q in range(number + 1, depth - 1):
        _differ_rows(job, row, q, now[: count * width].reshape((count, width)), work)
        following = job.layers[q + 1]
        weight = job.theta[following[WEIGHTS] : following[BIASES]].reshape((width, following[OUTPUTS]))
        out = then[: count * following[OUTPUTS]].reshape((count, following[OUTPUTS]))
        products.product(now, width, products.ONE, weight, out)
        now, then, width = then, now, following[OUTPUTS]

    answer = _answer(job, row)
    for first in range(0, count, LANES):
        lanes = min(LANES, count - first)
        work.dz[:] = 0
        for i in range(lanes):
            for k in range(classes):
                work.dz[k, i] = now[(first + i) * classes + k]
        met = work.row_met[first : first + LANES]
        _finish(job, row, job.layers[-1, KIND], answer, met, work)
        for i in range(lanes):
            v, unit = work.source[first + i] // LANES, work.source[first + i] % LANES
            odd[v // 2 * layer[PADDED] + j + unit] += work.change[i] if v % 2 == 0 else -work.change[i]
            work.met[unit] |= met[i]


@jit(inline=True)
def _differ_rows(job: Job, row: int, number: int, d: FloatArray, work: _Work) -> None:
    # d (rows, outputs), moves of layer number's pre-activations -> of its units; adds to work.row_met (rows,).
    kind, units, width = job.layers[number, KIND], job.layers[number, UNITS], job.layers[number, OUTPUTS]
    a, s, c = job.a[row, units:], job.s[row, units : units + width], job.c[row, units : units + width]
    long = 0
    for r in range(len(d)):
        from_ = d[r]
        for m in range(width):
            long |= 0 if abs(from_[m]) <= job.small else 1
    kink, far = KINK if has_kink(kind) else 0, FAR if _bends(kind) else 0
    near = FAR if kink and job.smooth else 0
    if kink or (long and far):
        for r in range(len(d)):
            from_, met = d[r], 0
            for m in range(width):
                met |= _obstacles(kink, near, far, a[m], from_[m])
            work.row_met[r] |= met
    kernels.differ(kind, job.slope, not long, a, s, c, d)


@jit()
def evaluate(begin: int, end: int, job: Job) -> None:
    # Elements begin to end: their part of odd and of element_met.
    job = borrowed(job)
    depth, classes = len(job.layers), job.y.shape[1]
    deep_rows = ROWS * job.widest if depth > 2 else 0
    work = _Work(
        np.empty((2 * BATCH, LANES)),
        np.empty((classes, LANES)),
        np.empty((classes + 2, LANES)),
        np.empty(LANES),
        np.empty((10, LANES)),
        np.empty(classes * LANES),
        np.empty(classes * LANES),
        np.empty(classes * LANES),
        np.empty(LANES, np.int64),
        np.empty((2, deep_rows), job.theta.dtype),
        np.empty(ROWS, np.int64),
        np.empty(ROWS, np.int64),
    )
    pair, row_of_places = int(np.searchsorted(job.elements, job.first + begin, side="right")) - 1, -1
    for element in range(job.first + begin, job.first + end):
        while element >= job.elements[pair + 1]:
            pair += 1
        row, number = pair // depth, pair % depth
        layer, most = job.layers[number], job.element_moves[number]
        parts = max((job.counts[pair] + most - 1) // most, 1)
        j = (element - job.elements[pair]) // parts * LANES
        first = (element - job.elements[pair]) % parts * most
        count = min(most, job.counts[pair] - first)
        if row != row_of_places and job.layers[-1, KIND] != Activation.IDENTITY:
            _spread_places(job, row, work)
            row_of_places = row
        work.met[:] = 0
        at = layer[PLACES] + job.skip + first
        odd_begin = job.tables[pair] + (job.skip + first) * layer[PADDED]
        odd = job.odd[odd_begin : odd_begin + count * layer[PADDED]]
        _evaluate_element(job, row, number, j, job.moves[row, at : at + count], odd, work)
        slot = (element - job.first) * LANES
        job.element_met[slot : slot + LANES] = work.met


@jit(inline=True)
def _evaluate_element(job: Job, row: int, number: int, j: int, moves: FloatArray, odd: FloatArray, work: _Work) -> None:
    # moves (count,) of units j to j + LANES of layer number -> odd (count, units)[:, j : j + LANES], flat;
    # sets work.met.
    depth, layer = len(job.layers), job.layers[number]
    units, kind, at = min(LANES, layer[OUTPUTS] - j), layer[KIND], layer[UNITS] + j
    a, s, c = job.a[row, at : at + LANES], job.s[row, at : at + LANES], job.c[row, at : at + LANES]
    if job.wanted.size > 0:
        wanted, any_wanted = job.wanted[row, at : at + LANES], 0
        for i in range(LANES):
            any_wanted |= wanted[i]
        if any_wanted == 0:
            for v in range(len(moves)):
                odd[v * layer[PADDED] + j : v * layer[PADDED] + j + LANES] = 0
            return
    longest = 0.0
    for v in range(len(moves)):
        longest = max(longest, abs(moves[v]))
    if has_kink(kind):
        for v in range(len(moves)):
            for i in range(LANES):
                work.met[i] |= _obstacles(KINK, 0, 0, a[i], moves[v]) | _obstacles(KINK, 0, 0, a[i], -moves[v])
    if _bends(kind) and longest > 1:
        work.met[:] |= FAR

    # The longest move of softmax's argument decides whether series do for it, and of which order.
    steep = _steepest(kind, job.slope) * longest * 2 * (1.0 if number == depth - 1 else job.steepest)
    small = longest <= job.small
    linear = number == depth - 1 or job.layers[-1, KIND] == Activation.IDENTITY
    soft = job.output == Output.SOFTMAX and job.loss == Loss.CROSS_ENTROPY and job.labels[row] >= 0
    by_series = small and linear and soft and number >= depth - 2 and steep <= 2 * job.small
    if by_series:
        _make_series(_answer(job, row), job.effects[depth - 1 - number], j, work.series)
    for first in range(0, len(moves), BATCH):
        count = min(BATCH, len(moves) - first)
        d = work.d[: 2 * count]
        for v in range(count):
            above, below, move = d[2 * v], d[2 * v + 1], moves[first + v]
            for i in range(LANES):
                above[i] = move
                below[i] = -move
        kernels.differ(kind, job.slope, small, a, s, c, d)
        to = odd[first * layer[PADDED] :]
        if number < depth - 2:
            if job.wanted.size > 0:  # what is 0 goes no further
                for v in range(2 * count):
                    for i in range(units):
                        d[v, i] = d[v, i] if job.wanted[row, at + i] else 0.0
            _evaluate_deep(job, row, number, j, units, d, to, work)
        elif by_series:
            for v in range(count):
                lanes = to[v * layer[PADDED] + j : v * layer[PADDED] + j + LANES]
                if steep <= job.short:
                    _by_series3(work.series, d[2 * v], d[2 * v + 1], lanes)
                else:
                    _by_series5(work.series, d[2 * v], d[2 * v + 1], lanes)
        else:
            _evaluate_last(job, row, number, j, d, to, work)
    if job.wanted.size > 0:
        for i in range(LANES):
            if not job.wanted[row, at + i]:
                work.met[i] = 0
                for v in range(len(moves)):
                    odd[v * layer[PADDED] + j + i] = 0

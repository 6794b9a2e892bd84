"""Softmax and cross entropy with a label, for short moves: the loss's change as a series in the change of one unit.

Summed over the classes first, the coefficients are the same for all moves of a unit in the last two layers.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastnet._tools.types import FloatArray
from fastnet.backends._numba.elementary import LANES
from fastnet.backends._numba.jit import jit
from fastnet.backends._numba.losses import EPSILON, Answer


def short_move(dtype: npt.DTypeLike) -> float:
    """Return the longest move of softmax's argument for which `third_order` is exact to rounding."""
    return 5e-3 if dtype == np.float32 else 1e-5


@jit(inline=True)
def coefficients(answer: Answer, effects: FloatArray, j: int, series: FloatArray) -> None:
    # effects (classes, units) -> series (10, LANES): for units j to j + LANES the first five coefficients of r, then of
    # R (q_t - r), as polynomials in the change v of the unit. With w_k the effect on class k less that on the likeliest
    # class, v changes the loss by -log1p(R (q_t - r) / (1 + r)), where q_k = e^(w_k v) - 1, r = sum_k y_k q_k, and
    # R = y_t / (y_t + epsilon).
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
            series[5 + n, i] = y / (y + EPSILON) * (power - series[n, i])
            power *= w / (n + 2)


@jit(inline=True)
def _change3(v: float, r0: float, r1: float, r2: float, t0: float, t1: float, t2: float) -> float:
    # log1p(t / (1 + r)) in series of third order; so are the polynomials r and t of v.
    r = v * (r0 + v * (r1 + v * r2))
    x = v * (t0 + v * (t1 + v * t2)) * (1 - r * (1 - r * (1 - r)))
    return x * (1 - x * (1 / 2 - x * (1 / 3 - x * (1 / 4))))


@jit(inline=True)
def third_order(series: FloatArray, above: FloatArray, below: FloatArray, odd: FloatArray) -> None:
    # above, below (LANES,), differences of a unit by a move and by its opposite -> odd (LANES,).
    r0, r1, r2, t0, t1, t2 = series[0], series[1], series[2], series[5], series[6], series[7]
    for i in range(LANES):
        rise = _change3(below[i], r0[i], r1[i], r2[i], t0[i], t1[i], t2[i])
        odd[i] = rise - _change3(above[i], r0[i], r1[i], r2[i], t0[i], t1[i], t2[i])


@jit(inline=True)
def _change5(r: float, t: float) -> float:
    # log1p(t / (1 + r)) in series of fifth order.
    x = t * (1 - r * (1 - r * (1 - r * (1 - r * (1 - r)))))
    return x * (1 - x * (1 / 2 - x * (1 / 3 - x * (1 / 4 - x * (1 / 5 - x * (1 / 6))))))


@jit(inline=True)
def _power_series(v: float, c0: float, c1: float, c2: float, c3: float, c4: float) -> float:
    return v * (c0 + v * (c1 + v * (c2 + v * (c3 + v * c4))))


@jit(inline=True)
def fifth_order(series: FloatArray, above: FloatArray, below: FloatArray, odd: FloatArray) -> None:
    # The same in series of fifth order.
    r0, r1, r2, r3, r4 = series[0], series[1], series[2], series[3], series[4]
    t0, t1, t2, t3, t4 = series[5], series[6], series[7], series[8], series[9]
    for i in range(LANES):
        v, w = below[i], above[i]
        r, t = _power_series(v, r0[i], r1[i], r2[i], r3[i], r4[i]), _power_series(v, t0[i], t1[i], t2[i], t3[i], t4[i])
        p, q = _power_series(w, r0[i], r1[i], r2[i], r3[i], r4[i]), _power_series(w, t0[i], t1[i], t2[i], t3[i], t4[i])
        odd[i] = _change5(r, t) - _change5(p, q)

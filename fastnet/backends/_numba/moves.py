"""What a move of one unit's pre-activation does to the loss.

ψ(d) is the change of one row's loss when the pre-activation of one unit moves by d. For one row, the central difference
with respect to a weight is (ψ(d) - ψ(-d)) / 2h at d = h times the weight's input. The move is carried from the unit to
the loss as an exact difference, so that nothing cancels, however small d is.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fastnet._tools.types import FloatArray, IntArray
from fastnet.backends._numba import activations, losses, products, series
from fastnet.backends._numba.base_point import Chunk, answer_of
from fastnet.backends._numba.elementary import LANES
from fastnet.backends._numba.jit import borrowed, jit
from fastnet.backends._numba.losses import Answer
from fastnet.backends._numba.network import BATCH, Net
from fastnet.backends.spec import Activation, Loss, Output

ROWS = 2 * BATCH * LANES  # Differences that go through a deep network together, as the rows of a matrix.

# What a move can meet on its way to the loss, as bits.
KINK = 1  # A unit changed the side of its kink.
FAR = 2  # Something smooth moved further than about the distance over which it is curved.


class Table(NamedTuple):
    """What moves of a range of pairs do to the loss.

    The table is filled element by element: LANES units of a pair, and up to `layer.most` of its moves. The elements of
    a pair are in the order of the units, and for the same units in the order of the moves.
    """

    begin: int  # of the range of pairs
    end: int
    counts: IntArray  # (pairs,): how many of each pair's moves are evaluated
    skip: int  # how many moves come before these
    wanted: npt.NDArray[np.uint8]  # (rows, units): whether a unit is evaluated, or (0, 0) where all are
    elements: IntArray  # (pairs + 1,): how many elements come before each pair's
    element_met: IntArray  # (elements * LANES,): what the moves of each unit met, as bits
    begins: IntArray  # (pairs,): where the pair's effects begin in `odd`: (moves, units), moves to skip included
    odd: FloatArray  # the effects ψ(d) - ψ(-d); NaN where a move loses digits


class _Work(NamedTuple):
    """A call's workspace."""

    d: FloatArray  # (2 * BATCH, LANES): differences of units, by each move and by its opposite
    dz: FloatArray  # (classes, LANES): what they do to the last layer
    soft: FloatArray  # (classes + 2, LANES): scratch of `losses.loss_differences`
    change: FloatArray  # (LANES,): what they do to the loss
    lost: FloatArray  # (LANES,): NaN where a move loses digits, and 0 elsewhere
    coefficients: FloatArray  # (10, LANES): of `series`
    a: FloatArray  # (classes * LANES,): `Chunk.a` of the last layer, each unit's in every lane
    s: FloatArray  # likewise
    c: FloatArray
    met: IntArray  # (LANES,): what moves of each unit met, as bits
    rows: FloatArray  # (2, ROWS * widest): differences in a deep network, in its dtype
    source: IntArray  # (ROWS,): the element of d that each row comes from
    row_met: IntArray  # (ROWS,): what each row met, as bits
    lost_rows: FloatArray  # (ROWS,): NaN where a move loses digits, and 0 elsewhere


@jit(inline=True)
def _obstacles(kink: int, near: int, far: int, a: float, d: float) -> int:
    # What a move d from a meets. Each of `kink`, `near` and `far` is the bit to set, or 0. In a network with curved
    # activations a shorter move may cross a kink although the longest one does not: `near` is set close to a kink.
    met = kink if (a > 0) != (a + d > 0) else 0
    met |= near if (a > 0) != (a + 2 * d > 0) else 0
    return met | (far if abs(d) > 1 else 0)


@jit(inline=True)
def _bits(net: Net, kind: int, constant: float) -> tuple[int, int, int]:
    # `kink`, `near` and `far` of `_obstacles` for an activation on the way.
    kink = KINK if activations.has_kink(kind, constant) else 0
    near = FAR if (kink and net.smooth) or activations.has_seam(kind, constant) else 0
    return kink, near, FAR if activations.is_smooth(kind) else 0


@jit(inline=True)
def _mark_lost(a: float, moves: FloatArray, effects: FloatArray) -> None:
    # Makes NaN of the effects, where moves from a lose digits.
    for i in range(moves.size):
        effects[i] = np.nan if activations.loses_digits(a, moves[i]) else effects[i]


@jit(inline=True)
def _meet_loss(net: Net, answer: Answer, dy: FloatArray, met: IntArray) -> None:
    # What changes dy (classes, LANES) of the answers meet in a loss that bends, or is not smooth everywhere. Adds to
    # met.
    for k in range(answer.y.size):
        move, r = dy[k], answer.y[k] - losses.target_of(answer, k)
        for i in range(LANES):
            if net.loss == Loss.BINARY_CROSS_ENTROPY:
                met[i] |= _obstacles(0, 0, FAR, r, move[i])
            elif net.loss == Loss.HUBER:
                met[i] |= _obstacles(0, FAR, 0, r - net.loss_constant, move[i])
                met[i] |= _obstacles(0, FAR, 0, r + net.loss_constant, move[i])
            else:
                met[i] |= _obstacles(KINK, FAR if net.smooth or net.output == Output.SOFTMAX else 0, 0, r, move[i])


@jit(inline=True)
def _spread_places(net: Net, chunk: Chunk, row: int, work: _Work) -> None:
    # Fills work.a, work.s and work.c.
    units = net.layers[-1].units
    for k in range(chunk.y.shape[1]):
        work.a[k * LANES : (k + 1) * LANES] = chunk.a[row, units + k]
        work.s[k * LANES : (k + 1) * LANES] = chunk.s[row, units + k]
        work.c[k * LANES : (k + 1) * LANES] = chunk.c[row, units + k]


@jit(inline=True)
def _finish(net: Net, chunk: Chunk, row: int, kind: int, answer: Answer, met: IntArray, work: _Work) -> None:
    # work.dz (classes, LANES), moves of the last layer's pre-activations -> work.change (LANES,) of the loss. Adds to
    # met (LANES,). `kind` is the activation that is still to be applied.
    dz, classes = work.dz, chunk.y.shape[1]
    far, lost = chunk.far[row] != 0, work.lost
    lost[:] = 0
    if far:
        for k in range(classes):
            _mark_lost(chunk.a[row, net.layers[-1].units + k], dz[k], lost)
    if kind != Activation.IDENTITY:
        constant = net.layers[-1].constant
        kink, near, long = _bits(net, kind, constant)
        for k in range(classes):
            move, a = dz[k], chunk.a[row, net.layers[-1].units + k]
            for i in range(LANES):
                # Rounded as `a` was, so that a move which takes the unit back to 0 takes it to exactly 0.
                move[i] = net.theta.dtype.type(move[i])
                met[i] |= _obstacles(kink, near, long, a, move[i])
        flat = dz.reshape((1, classes * LANES))
        activations.differ(kind, constant, activations.ANY_MOVE, work.a, work.s, work.c, flat)
    # For softmax 1 is far, for a logarithm a quarter of its argument. The squared error is a polynomial.
    if net.output == Output.SOFTMAX or net.loss == Loss.CROSS_ENTROPY:
        for k in range(classes):
            move, limit = dz[k], 1.0
            if net.output != Output.SOFTMAX:
                limit = (abs(answer.y[k]) + losses.EPSILON) / 4
            for i in range(LANES):
                met[i] |= FAR if abs(move[i]) > limit else 0
    losses.loss_differences(net.output, net.loss, net.loss_constant, answer, dz, work.soft, work.change)
    if far:
        for k in range(classes):
            _mark_lost(answer.z[k], dz[k], lost)
        _mark_lost(float(chunk.losses[row]), work.change, lost)
        for i in range(LANES):
            work.change[i] += lost[i]
    if net.loss != Loss.CROSS_ENTROPY and net.loss != Loss.MEAN_SQUARED_ERROR:
        _meet_loss(net, answer, work.soft if net.output == Output.SOFTMAX else dz, met)


@jit(inline=True)
def _evaluate_last(
    net: Net, chunk: Chunk, row: int, number: int, j: int, d: FloatArray, odd: FloatArray, work: _Work
) -> None:
    # Units j to j + LANES of one of the last two layers: d (2 * moves, LANES), differences of the units by each move
    # and by its opposite -> odd (moves, units)[:, j : j + LANES], flat. Adds to work.met.
    depth, classes = len(net.layers), chunk.y.shape[1]
    layer, answer, effects = net.layers[number], answer_of(chunk, row), net.effects[depth - 1 - number]
    kind = net.layers[-1].kind if number < depth - 1 else Activation.IDENTITY
    for v in range(0, len(d), 2):
        to = odd[v // 2 * layer.padded + j : v // 2 * layer.padded + j + LANES]
        for sign in (1.0, -1.0):
            move = d[v] if sign > 0 else d[v + 1]
            for k in range(classes):
                effect, dz = effects[k, j : j + LANES], work.dz[k]
                for i in range(LANES):
                    dz[i] = move[i] * effect[i]
            _finish(net, chunk, row, kind, answer, work.met, work)
            if sign > 0:
                for i in range(LANES):
                    to[i] = work.change[i]
            else:
                for i in range(LANES):
                    to[i] -= work.change[i]


@jit(inline=True)
def _evaluate_deep(
    net: Net, chunk: Chunk, row: int, number: int, j: int, units: int, d: FloatArray, odd: FloatArray, work: _Work
) -> None:
    # The same for an earlier layer: its differences go through the layers behind it as the rows of matrix products.
    depth, classes, layer = len(net.layers), chunk.y.shape[1], net.layers[number]
    now, then = work.rows[0], work.rows[1]
    width, count = net.layers[number + 1].outputs, 0
    for v in range(len(d)):
        to = odd[v // 2 * layer.padded + j : v // 2 * layer.padded + j + LANES]
        to[:] = 0
        for i in range(units):
            if d[v, i] != 0:
                begin = net.layers[number + 1].weights + (j + i) * width
                weight, to_row = net.theta[begin : begin + width], now[count * width : (count + 1) * width]
                move = d[v, i]
                for m in range(width):
                    to_row[m] = move * weight[m]
                work.source[count], work.row_met[count], work.lost_rows[count] = v * LANES + i, 0, 0.0
                count += 1
    for q in range(number + 1, depth - 1):
        _differ_rows(net, chunk, row, q, now[: count * width].reshape((count, width)), work)
        following = net.layers[q + 1]
        weight = net.theta[following.weights : following.biases].reshape((width, following.outputs))
        out = then[: count * following.outputs].reshape((count, following.outputs))
        products.product(now, width, products.ONE, weight, out)
        now, then, width = then, now, following.outputs

    answer = answer_of(chunk, row)
    for first in range(0, count, LANES):
        lanes = min(LANES, count - first)
        work.dz[:] = 0
        for i in range(lanes):
            for k in range(classes):
                work.dz[k, i] = now[(first + i) * classes + k]
        met = work.row_met[first : first + LANES]
        _finish(net, chunk, row, net.layers[-1].kind, answer, met, work)
        for i in range(lanes):
            v, unit = work.source[first + i] // LANES, work.source[first + i] % LANES
            change = work.change[i] + work.lost_rows[first + i]
            odd[v // 2 * layer.padded + j + unit] += change if v % 2 == 0 else -change
            work.met[unit] |= met[i]


@jit(inline=True)
def _differ_rows(net: Net, chunk: Chunk, row: int, number: int, d: FloatArray, work: _Work) -> None:
    # d (rows, outputs), moves of a layer's pre-activations -> differences of its units. Adds to work.row_met (rows,).
    layer = net.layers[number]
    kind, units, width = layer.kind, layer.units, layer.outputs
    a, s, c = chunk.a[row, units:], chunk.s[row, units : units + width], chunk.c[row, units : units + width]
    long = 0
    for r in range(len(d)):
        from_ = d[r]
        for m in range(width):
            long |= 0 if abs(from_[m]) <= net.small else 1
    kink, near, far = _bits(net, kind, layer.constant)
    if kink or near or (long and far):
        for r in range(len(d)):
            from_, met = d[r], 0
            for m in range(width):
                met |= _obstacles(kink, near, far, a[m], from_[m])
            work.row_met[r] |= met
    for r in range(len(d) if long and chunk.far[row] else 0):
        lost, from_ = 0, d[r]
        for m in range(width):
            lost |= 1 if activations.loses_digits(a[m], from_[m]) else 0
        work.lost_rows[r] += np.nan if lost else 0.0
    activations.differ(kind, layer.constant, not long, a, s, c, d)


@jit()
def evaluate(begin: int, end: int, net: Net, chunk: Chunk, table: Table) -> None:
    # Elements begin to end of the table: their part of odd and of element_met.
    net, chunk, table = borrowed(net), borrowed(chunk), borrowed(table)
    depth, classes = len(net.layers), chunk.y.shape[1]
    deep_rows = ROWS * net.widest if depth > 2 else 0
    work = _Work(
        d=np.empty((2 * BATCH, LANES)),
        dz=np.empty((classes, LANES)),
        soft=np.empty((classes + 2, LANES)),
        change=np.empty(LANES),
        lost=np.empty(LANES),
        coefficients=np.empty((10, LANES)),
        a=np.empty(classes * LANES),
        s=np.empty(classes * LANES),
        c=np.empty(classes * LANES),
        met=np.empty(LANES, np.int64),
        rows=np.empty((2, deep_rows), net.theta.dtype),
        source=np.empty(ROWS, np.int64),
        row_met=np.empty(ROWS, np.int64),
        lost_rows=np.empty(ROWS),
    )
    first_element = table.elements[table.begin]
    pair, row_of_places = int(np.searchsorted(table.elements, first_element + begin, side="right")) - 1, -1
    for element in range(first_element + begin, first_element + end):
        while element >= table.elements[pair + 1]:
            pair += 1
        row, number = pair // depth, pair % depth
        layer = net.layers[number]
        parts = max((table.counts[pair] + layer.most - 1) // layer.most, 1)
        j = (element - table.elements[pair]) // parts * LANES
        first = (element - table.elements[pair]) % parts * layer.most
        count = min(layer.most, table.counts[pair] - first)
        if row != row_of_places and net.layers[-1].kind != Activation.IDENTITY:
            _spread_places(net, chunk, row, work)
            row_of_places = row
        work.met[:] = 0
        at = layer.places + table.skip + first
        moves = chunk.moves[row, at : at + count]
        begin_odd = table.begins[pair] + (table.skip + first) * layer.padded
        odd = table.odd[begin_odd : begin_odd + count * layer.padded]
        _evaluate_element(net, chunk, table.wanted, row, number, j, moves, odd, work)
        slot = (element - first_element) * LANES
        for i in range(LANES):
            table.element_met[slot + i] = work.met[i]


@jit(inline=True)
def _evaluate_element(
    net: Net,
    chunk: Chunk,
    wanted: npt.NDArray[np.uint8],
    row: int,
    number: int,
    j: int,
    moves: FloatArray,
    odd: FloatArray,
    work: _Work,
) -> None:
    # moves (count,) of units j to j + LANES of layer `number` -> odd (count, units)[:, j : j + LANES], flat. Adds to
    # work.met.
    depth, layer = len(net.layers), net.layers[number]
    units, kind, at = min(LANES, layer.outputs - j), layer.kind, layer.units + j
    a, s, c = chunk.a[row, at : at + LANES], chunk.s[row, at : at + LANES], chunk.c[row, at : at + LANES]
    if wanted.size > 0:
        any_wanted = 0
        for i in range(LANES):
            any_wanted |= wanted[row, at + i]
        if any_wanted == 0:
            for v in range(len(moves)):
                odd[v * layer.padded + j : v * layer.padded + j + LANES] = 0
            return
    longest = 0.0
    for v in range(len(moves)):
        longest = max(longest, abs(moves[v]))
    if activations.has_kink(kind, layer.constant) or activations.has_seam(kind, layer.constant):
        met = KINK if activations.has_kink(kind, layer.constant) else FAR
        for v in range(len(moves)):
            for i in range(LANES):
                work.met[i] |= _obstacles(met, 0, 0, a[i], moves[v]) | _obstacles(met, 0, 0, a[i], -moves[v])
    if activations.is_smooth(kind) and longest > 1:
        for i in range(LANES):
            work.met[i] |= FAR

    # The longest move of softmax's argument decides whether series serve for it, and of which order.
    steep = activations.steepest(kind, layer.constant) * longest * 2 * (1.0 if number == depth - 1 else net.steepest)
    small = longest <= net.small
    linear = number == depth - 1 or net.layers[-1].kind == Activation.IDENTITY
    soft = net.output == Output.SOFTMAX and net.loss == Loss.CROSS_ENTROPY and chunk.labels[row] >= 0
    by_series = small and linear and soft and number >= depth - 2 and steep <= 2 * net.small
    if by_series:
        series.coefficients(answer_of(chunk, row), net.effects[depth - 1 - number], j, work.coefficients)
    for first in range(0, len(moves), BATCH):
        count = min(BATCH, len(moves) - first)
        d = work.d[: 2 * count]
        for v in range(count):
            above, below, move = d[2 * v], d[2 * v + 1], moves[first + v]
            for i in range(LANES):
                above[i] = move
                below[i] = -move
        activations.differ(kind, layer.constant, small, a, s, c, d)
        for v in range(count if chunk.far[row] and not small else 0):
            for i in range(LANES):
                d[2 * v, i] = np.nan if activations.loses_digits(a[i], moves[first + v]) else d[2 * v, i]
                d[2 * v + 1, i] = np.nan if activations.loses_digits(a[i], -moves[first + v]) else d[2 * v + 1, i]
        to = odd[first * layer.padded :]
        if number < depth - 2:
            if wanted.size > 0:  # Differences of 0 go no further.
                for v in range(2 * count):
                    for i in range(units):
                        d[v, i] = d[v, i] if wanted[row, at + i] else 0.0
            _evaluate_deep(net, chunk, row, number, j, units, d, to, work)
        elif by_series:
            for v in range(count):
                lanes = to[v * layer.padded + j : v * layer.padded + j + LANES]
                if steep <= net.short:
                    series.third_order(work.coefficients, d[2 * v], d[2 * v + 1], lanes)
                else:
                    series.fifth_order(work.coefficients, d[2 * v], d[2 * v + 1], lanes)
        else:
            _evaluate_last(net, chunk, row, number, j, d, to, work)
    if wanted.size > 0:
        for i in range(LANES):
            if not wanted[row, at + i]:
                work.met[i] = 0
                for v in range(len(moves)):
                    odd[v * layer.padded + j + i] = 0

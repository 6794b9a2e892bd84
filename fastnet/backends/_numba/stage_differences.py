"""The finite-difference gradients `incremental` and `nodal` of a network of stages.

A parameter moves one column of its stage's units: a unit of all rows, or a filter's positions of all images.
`incremental` carries that column to the loss, twice. `nodal` serves the affine stages behind which a row's loss changes
by a function of the move of one unit alone. It carries a few moves of that unit, fits a polynomial for each row, and
does as `incremental` does for a unit of which a row's polynomial misses. All of it is computed in float64.
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from fastnet._tools.types import FloatArray, IntArray
from fastnet.backends import _numpy
from fastnet.backends._numba import activations, columns, products, stage_pass, threads, windows
from fastnet.backends._numba.affine import affine
from fastnet.backends._numba.base_point import labels_and_targets
from fastnet.backends._numba.elementary import LANES
from fastnet.backends._numba.jit import borrowed, jit
from fastnet.backends._numba.stage_moves import Base, Work, carry, change_losses, new_work
from fastnet.backends._numba.stage_network import Pass
from fastnet.backends.spec import Couples, NetworkSpec, Stage, StageKind

Scalar = TypeVar("Scalar", bound=np.generic)

ITEM_PRODUCTS = threads.CALL_SECONDS * threads.PRODUCTS_PER_SECOND / 4  # at most, for an item of several parameters


class Columns(NamedTuple):
    """The columns whose parameters are moved one by one, and what comes out. A bias is a column's last parameter."""

    which: IntArray  # (columns,): their numbers
    weights: int  # of a column
    parameters: int  # of a column
    together: int  # parameters whose losses are computed together
    scale: float  # 1 / (2 h batch)
    found: FloatArray  # (all columns, parameters): the central differences
    kinked: npt.NDArray[np.uint8]  # (all columns, parameters): whether a move met a kink
    evaluations: IntArray  # (items,)


@jit(merge=True)
def _fill_column(at: Pass, number: int, column: int, k: int, is_bias: bool, h: float, moves: FloatArray) -> bool:
    # moves (units of a column * rows,) for a step h of a column's parameter. Returns whether any of them is not 0.
    stage, rows = at.stages[number], at.rows
    if is_bias:
        moves[:] = h
        return True
    if stage.kind == StageKind.CONVOLUTION:
        for position in range(stage.positions):
            to, place = moves[position * rows : (position + 1) * rows], windows.source_of(stage, position, k)
            from_ = at.units[(stage.source + max(place, 0)) * rows :]
            for i in range(rows):
                to[i] = from_[i] if place >= 0 else 0.0
    else:
        from_ = at.units[(stage.source + k) * rows :]
        if stage.kind == StageKind.BATCH_NORM:
            from_ = at.kept[stage.kept * rows + column * moves.size :]
        for i in range(moves.size):
            moves[i] = from_[i]
    moved = 0
    for i in range(moves.size):
        moves[i] *= h
        moved |= 1 if moves[i] != 0 else 0  # NaN is not 0.
    return moved != 0


@jit()
def move_columns(begin: int, end: int, number: int, at: Pass, base: Base, to: Columns) -> None:
    # Items begin to end: some parameters of a column.
    at, base, to = borrowed(at), borrowed(base), borrowed(to)
    work, groups = new_work(base, at.rows), (to.parameters + to.together - 1) // to.together
    stage, totals = at.stages[number], np.empty(LANES)
    units = stage.positions if stage.kind != StageKind.AFFINE else stage.positions // stage.positions
    for item in range(begin, end):
        column, first = to.which[item // groups], item % groups * to.together
        to.evaluations[item] = 0
        several = min(to.together, to.parameters - first)
        for k in range(first, first + several):
            for side in range(2):
                lane, h = 2 * (k - first) + side, base.h if side == 0 else -base.h
                if _fill_column(at, number, column, k, k == to.weights, h, work.now[: units * at.rows]):
                    met = carry(at, base, number, column * units, units, lane, work)
                    to.kinked[column, k] |= 1 if met else 0
                    to.evaluations[item] += at.rows
                else:
                    work.answers[:, :, lane] = 0
        totals[:] = 0
        work.crossed[:] = 0
        for row in range(at.rows):
            change_losses(base, row, work)
            for lane in range(LANES):
                totals[lane] += work.change[lane]
        for k in range(several):
            to.kinked[column, first + k] |= work.crossed[2 * k] | work.crossed[2 * k + 1]
            to.found[column, first + k] = (totals[2 * k] - totals[2 * k + 1]) * to.scale


class Nodal(NamedTuple):
    """An affine stage for `nodal`, and what comes out."""

    normed: bool  # whether a batch normalisation follows
    by_input: FloatArray  # (inputs, rows): its inputs; less their means before a batch normalisation
    by_row: FloatArray  # (rows, inputs)
    squares: FloatArray  # (inputs,): sums over the rows
    widest: FloatArray  # (rows,): the furthest input, or that of the bias
    with_normal: FloatArray  # (units, inputs): sums of inputs times normalised values
    biased: bool
    scale: float  # 1 / (2 h batch)
    tolerance: float  # of the polynomials, relative to the greatest change
    found: FloatArray  # (units, inputs + bias): the central differences
    unfit: npt.NDArray[np.uint8]  # (units,): whether a row's polynomial misses


@jit(merge=True)
def _fit(
    at: Pass, base: Base, number: int, unit: int, tolerance: float, furthest: FloatArray, terms: FloatArray, work: Work
) -> bool:
    # terms (4, rows): the polynomial of each row's change of the loss in the move of a unit of stage `number`, through
    # ±1 and ±1/2 of the furthest move, checked at ±3/4. Returns whether all rows pass.
    rows, changes = at.rows, np.empty((at.rows, 6))
    nodes = (1.0, -1.0, 0.5, -0.5, 0.75, -0.75)
    for lane in range(6):
        for i in range(rows):
            work.now[i] = nodes[lane] * furthest[i]
        carry(at, base, number, unit, products.ONE, lane, work)
    greatest = 0.0
    for row in range(rows):
        change_losses(base, row, work)
        for lane in range(6):
            changes[row, lane] = work.change[lane]
        for lane in range(2):
            size = abs(work.change[lane])
            greatest = size if size > greatest or size != size else greatest
    limit, fits = greatest * tolerance, True
    for i in range(rows):
        change = changes[i]
        odd, even = (change[0] - change[1]) / 2, (change[0] + change[1]) / 2
        odd_half, even_half = (change[2] - change[3]) / 2, (change[2] + change[3]) / 2
        c3, c4 = (odd - 2 * odd_half) * 4 / 3, (even - 4 * even_half) * 4 / 3
        c1, c2 = odd - c3, even - c4
        odd_there, even_there = 0.75 * (c1 + 0.5625 * c3), 0.5625 * (c2 + 0.5625 * c4)
        fits &= abs(odd_there + even_there - change[4]) <= limit
        fits &= abs(even_there - odd_there - change[5]) <= limit
        v = 1 / furthest[i] if furthest[i] > 0 else 0.0
        terms[0, i], terms[1, i], terms[2, i], terms[3, i] = c1 * v, c2 * v * v, c3 * v * v * v, c4 * v * v * (v * v)
    return fits


@jit()
def interpolate(begin: int, end: int, number: int, at: Pass, base: Base, to: Nodal) -> None:
    # Units begin to end of an affine stage.
    at, base, to = borrowed(at), borrowed(base), borrowed(to)
    rows, inputs, h = at.rows, len(to.by_input), base.h
    work, norm = new_work(base, rows), at.stages[min(number + 1, len(at.stages) - 1)]
    furthest, terms, total = np.empty(rows), np.empty((4, rows)), np.empty(inputs)
    # What the two moves of a weight make of its input e: p e + q x, with the normalised values x.
    p0, p1, q0, q1 = np.empty(inputs), np.empty(inputs), np.empty(inputs), np.empty(inputs)
    for unit in range(begin, end):
        normal = at.kept[(norm.kept + unit) * rows :] if to.normed else furthest
        if to.normed:
            furthest[:] = 0
            inverse, gamma = at.inverse[norm.columns + unit], float(at.theta[norm.weights + unit])
            for k in range(inputs):
                of_move, square = h * to.with_normal[unit, k], h * h * to.squares[k]
                a, b = columns.factors(of_move, square, rows, inverse)
                c, d = columns.factors(-of_move, square, rows, inverse)
                p0[k], q0[k], p1[k], q1[k] = gamma * h * a, gamma * b, -gamma * h * c, gamma * d
                e = to.by_input[k]
                for i in range(rows):
                    one, other = abs(p0[k] * e[i] + q0[k] * normal[i]), abs(p1[k] * e[i] + q1[k] * normal[i])
                    one = other if other > one else one
                    furthest[i] = one if one > furthest[i] else furthest[i]
        else:
            for i in range(rows):
                furthest[i] = h * to.widest[i]
        of_stage = number + 1 if to.normed else number
        if not _fit(at, base, of_stage, unit, to.tolerance, furthest, terms, work):
            to.unfit[unit] = 1
            continue
        total[:] = 0
        of_bias = 0.0
        for i in range(rows):
            c1, c2, c3, c4, e = terms[0, i], terms[1, i], terms[2, i], terms[3, i], to.by_row[i]
            if to.normed:
                for k in range(inputs):
                    x, y = p0[k] * e[k] + q0[k] * normal[i], p1[k] * e[k] + q1[k] * normal[i]
                    above = x * (c1 + x * (c2 + x * (c3 + x * c4)))
                    total[k] += above - y * (c1 + y * (c2 + y * (c3 + y * c4)))
            else:  # The two moves are opposite: the even terms cancel.
                c1, c3 = 2 * h * c1, 2 * h * h * h * c3
                of_bias += c1 + c3
                for k in range(inputs):
                    total[k] += e[k] * (c1 + e[k] * e[k] * c3)
        for k in range(inputs):
            to.found[unit, k] = total[k] * to.scale if to.squares[k] != 0 else 0.0
        if to.biased:
            to.found[unit, inputs] = of_bias * to.scale


class Differences:
    """The finite-difference gradient of a network of stages in the making."""

    def __init__(self, spec: NetworkSpec, work: Pass, t: FloatArray | IntArray, h: float) -> None:
        self.spec, self.at = spec, work
        self.h = float(spec.dtype.type(h))
        self.evaluations = self.fallbacks = 0
        a, s, c = (np.zeros(work.kept.size) for _ in range(3))
        for number, stage in enumerate(work.stages):
            if stage.kind == StageKind.ACTIVATION:
                size, rows = stage.outputs * work.rows, work.rows
                at = slice(stage.kept * rows, stage.kept * rows + size)
                a[at] = work.units[stage.source * rows : stage.source * rows + size]
                activations.place(int(stage.activation), a[at], s[at], c[at])
            stage_pass.forward_one(number, work)
        last = stage_pass.last_units(work, spec)
        y = stage_pass.answer(work, spec)
        labels, targets = labels_and_targets(t)
        row_losses = _numpy.row_losses(spec, last, _numpy.target_rows(t, last))
        self.base = Base(
            a=a,
            s=s,
            c=c,
            output=int(spec.output),
            loss=int(spec.loss),
            loss_constant=float(spec.dtype.type(spec.loss_constant)),
            last=last,
            y=y,
            likeliest=y.argmax(axis=1).astype(np.int64),
            labels=labels,
            targets=targets,
            h=self.h,
            losses=row_losses.astype(np.float64),
            far=int(not all((np.abs(v) <= activations.FAR_FROM_ZERO).all() for v in (a, last, row_losses))),
            widest=max(self._column_units(0), spec.classes, *map(self._widest, range(1, len(spec.stages)))),
        )

    def run(self, nodal: bool) -> tuple[list[FloatArray], list[npt.NDArray[np.bool_]]]:
        """Return the gradient without that of the penalty, and which parameters met a kink."""
        gradients: list[FloatArray] = []
        kinks: list[npt.NDArray[np.bool_]] = []
        for number, stage in enumerate(self.spec.stages):
            if stage.weight is None:
                continue
            columns = stage.outputs // self._column_units(number)
            weights = stage.weight.size // columns
            shape = columns, weights + (stage.bias is not None)
            found, kinked, which = np.zeros(shape), np.zeros(shape, np.uint8), np.arange(columns)
            if nodal and self.spec.has_nodes[number]:
                unfit = self._interpolate(number, found)
                which = np.flatnonzero(unfit)
                self.fallbacks += len(which)
            if len(which):
                self._move(number, which, weights, found, kinked)
            gradients += _as_parameters(stage, weights, found.astype(self.spec.dtype))
            kinks += _as_parameters(stage, weights, kinked.astype(bool))
        return gradients, kinks

    def _column_units(self, number: int) -> int:
        """How many neighbouring units a parameter of a stage moves."""
        stage, record = self.spec.stages[number], self.at.stages[number]
        return int(record.positions) if stage.weight is not None and stage.kind != StageKind.AFFINE else 1

    def _widest(self, number: int) -> int:
        """The most units that moves are of before or behind a later stage, which may take its inputs by channels."""
        stage = self.spec.stages[number]
        spreads = stage.windows is not None and self._column_units(0) % (stage.windows.height * stage.windows.width)
        spreads = spreads or (stage.kind == StageKind.BATCH_NORM and self._column_units(0) % stage.positions)
        return max(stage.outputs, stage.inputs if spreads else 0)

    def _tail(self, number: int) -> float:
        """What it costs, in products, to carry the moves of a column of a stage to the answers."""
        units, cost = self._column_units(number), 0.0
        for record in self.at.stages[number + 1 :]:
            if record.kind == StageKind.AFFINE:
                cost, units = cost + units * record.outputs, record.outputs
            elif record.kind == StageKind.CONVOLUTION:
                share = max(units / record.inputs, 1 / record.channels)
                cost, units = cost + record.tasks * record.products * share, record.outputs
            else:
                cost, units = cost + 20 * units, min(units, record.outputs)
        return self.at.rows * (cost + threads.UNIT_PRODUCTS * self.spec.classes)

    def _move(
        self, number: int, which: IntArray, weights: int, found: FloatArray, kinked: npt.NDArray[np.uint8]
    ) -> None:
        """Move the parameters of some columns one by one."""
        count, cost = found.shape[1], 2 * self._tail(number)
        together = min(max(int(ITEM_PRODUCTS / cost), 1), LANES // 2, count)
        items = len(which) * -(-count // together)
        scale, evaluations = 1 / (2 * self.h * self.at.rows), np.zeros(items, np.int64)
        to = Columns(which, weights, count, together, scale, found, kinked, evaluations)
        threads.share(move_columns, (number, self.at, self.base, to), items, together * cost)
        self.evaluations += int(evaluations.sum())

    def _interpolate(self, number: int, found: FloatArray) -> npt.NDArray[np.uint8]:
        """Fill what `nodal` finds of an affine stage; return which units are unfit."""
        stage, record, rows = self.spec.stages[number], self.at.stages[number], self.at.rows
        normed = any(Couples.ROWS in later.couples for later in self.spec.stages[number + 1 : number + 2])
        units = self.at.units[record.source * rows : (record.source + record.inputs) * rows].reshape(-1, rows)
        e = units - units.mean(axis=1, keepdims=True) if normed else units.copy()
        by_row = np.ascontiguousarray(e.T)
        with_normal: FloatArray = np.empty((0, 0))
        if normed:
            norm = self.at.stages[number + 1]
            normal = self.at.kept[norm.kept * rows : (norm.kept + norm.outputs) * rows].reshape(-1, rows)
            with_normal = affine(normal, by_row)
        to = Nodal(
            normed=normed,
            by_input=e,
            by_row=by_row,
            squares=(e * e).sum(axis=1),
            widest=np.abs(e).max(axis=0, initial=1.0 if stage.bias is not None else 0.0),
            with_normal=with_normal,
            biased=stage.bias is not None,
            scale=1 / (2 * self.h * rows),
            tolerance=100 * float(np.finfo(self.spec.dtype).eps),
            found=found,
            unfit=np.zeros(stage.outputs, np.uint8),
        )
        cost = 6 * self._tail(number) + 5.0 * rows * stage.inputs * (3 if normed else 1)
        threads.share(interpolate, (number, self.at, self.base, to), stage.outputs, cost)
        self.evaluations += 6 * rows * stage.outputs
        return to.unfit


def _as_parameters(stage: Stage, weights: int, found: npt.NDArray[Scalar]) -> list[npt.NDArray[Scalar]]:
    """Numbers for each parameter of each column, (columns, count), as arrays like the parameters."""
    assert stage.weight is not None
    weight = found[:, :weights].T if stage.kind == StageKind.AFFINE else found[:, :weights]
    arrays = [np.ascontiguousarray(weight).reshape(stage.weight.shape)]
    return arrays if stage.bias is None else [*arrays, found[:, weights].copy()]

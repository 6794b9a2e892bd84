"""Second derivatives of any scalar function."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastnet._tools import checks
from fastnet._tools.types import FloatArray, IntArray
from fastnet.differentiation.calling import Function, narrowest
from fastnet.differentiation.engine import as_method, check_found, evaluator_of, in_blocks, progress_of
from fastnet.differentiation.evaluators import Evaluator
from fastnet.differentiation.extrapolation import Found, automatic, with_steps
from fastnet.differentiation.lanes import noise_of
from fastnet.differentiation.methods import METHODS, Plan, as_bounds, inward, plan_search, plan_steps
from fastnet.differentiation.points import Bounds, Moves, Point
from fastnet.differentiation.quotients import Quotient, check_numbers, noise_at
from fastnet.differentiation.result import DerivativeResult
from fastnet.differentiation.steps import Steps, is_auto

Array = npt.NDArray[Any]


class Second:
    """The quotients (f(x + a + b) − f(x + a − b) − f(x − a + b) + f(x − a − b)) / 4ab, a and b steps of two elements.

    For one element twice, this is (f(x + 2a) − 2f(x) + f(x − 2a)) / 4a². From one side, x ± a become x + 2a and x.

    Parameters
    ----------
    evaluator : Evaluator
    pairs : ndarray of int
        Flat numbers of two elements, shape (pairs, 2), the first not the larger.
    plan : Plan
        For each element its side, and its step where that of a pair is 1.
    eps : float
        The rounding unit of the values.
    noise : ndarray or None
        What their rounding errors hardly exceed, shape (1,).
    bounds : tuple of ndarray or None
    """

    def __init__(
        self, evaluator: Evaluator, pairs: IntArray, plan: Plan, eps: float, noise: Array | None, bounds: Bounds | None
    ) -> None:
        self._evaluator, self._pairs, self._plan, self._eps, self._bounds = evaluator, pairs, plan, eps, bounds
        self._noise = noise
        self.count = len(pairs)
        self.powers = np.where((plan.sides[pairs] == 0).all(axis=1), 2, 1)
        self._centers = evaluator.point.numbers().astype(np.float64)

    def take(self, which: IntArray, steps: FloatArray, guarded: bool = False) -> Quotient:
        pairs = self._pairs[which]
        same = pairs[:, 0] == pairs[:, 1]
        # Of each element the two positions: shape (pairs, elements, 2).
        sides, unit = self._plan.sides[pairs][..., None], (self._plan.steps[pairs] * steps[:, None])[..., None]
        ends = np.array([1.0, -1.0]) + sides
        offsets = ends * unit
        # The four points: of the first element the end i, of the second the end j; of one element twice, both.
        first, second = offsets[:, 0][:, [0, 0, 1, 1]], offsets[:, 1][:, [0, 1, 0, 1]]
        centers = self._centers[pairs][:, :, None]
        moved = np.stack([np.where(same[:, None], first + second, first), second], axis=1)
        moved[same, 1] = moved[same, 0]
        point = self._evaluator.point
        entries = np.broadcast_to(pairs[:, :, None], moved.shape)
        positions = centers + moved
        if self._bounds is not None:
            low, high = (bound[pairs][:, :, None] for bound in self._bounds)
            positions = np.clip(positions, low, high)
        positions = point.rounded(entries, positions)
        away = positions.astype(np.float64) - centers
        values = self._values(np.moveaxis(entries, 1, 2), np.moveaxis(positions, 1, 2), away, guarded)
        with np.errstate(all="ignore"):
            sums = (values[:, 0] - values[:, 1]) - (values[:, 2] - values[:, 3])
            spans = self._spans(away, same)
            slopes = sums / spans
            noise = 2 * noise_at(self._noise, self._eps, values, which) / np.abs(spans)
        if (spans == 0).any() and not guarded:
            at = int(np.argmax(spans == 0))
            entry = int(pairs[at, 0])
            raise ValueError(
                f"h = {float(unit[at, 0, 0]):g} is lost in rounding at {point.where(entry)} = {self._centers[entry]:g}"
            )
        if not guarded:
            check_numbers(slopes, values, lambda pair, k: self._written(pairs[pair], positions[pair, :, k]))
        return Quotient(slopes, noise)

    def where(self, pair: int) -> str:
        """Return how one writes x as far as it concerns a pair, for messages."""
        return self._written(self._pairs[pair], self._centers[self._pairs[pair]])

    def _written(self, pair: IntArray, positions: Array) -> str:
        point = self._evaluator.point
        first, second = (f"{point.where(int(entry))} = {at}" for entry, at in zip(pair, positions, strict=True))
        return first if pair[0] == pair[1] else f"{first}, {second}"

    def _spans(self, away: FloatArray, same: npt.NDArray[np.bool_]) -> FloatArray:
        """Return the area that the four points really span, by which the sum of values is divided."""
        spans = (away[:, 0, 0] - away[:, 0, 2]) * (away[:, 1, 0] - away[:, 1, 1])
        above, below = away[:, 0, 0] - away[:, 0, 1], away[:, 0, 2] - away[:, 0, 3]
        return np.where(same, above * below, spans)

    def _values(self, entries: IntArray, positions: Array, away: FloatArray, guarded: bool) -> FloatArray:
        """Return the values at the four points of each pair; those at x itself are evaluated once."""
        count = len(entries)
        still = (away == 0).all(axis=1)
        found = np.empty((count, 4))
        if still.any():
            found[still] = self._evaluator.base()
        moves = Moves(entries[~still], positions[~still])
        if len(moves.entries):
            found[~still] = self._evaluator.evaluate(moves, guarded)
        return found


def numerical_hessian(
    f: Function,
    x: Any,
    h: Any = None,
    *,
    method: str = "central",
    bounds: Any = None,
    vectorized: bool = False,
    executor: Any = None,
    progress: bool | None = None,
    full_output: bool = False,
) -> Any:
    """The second derivatives of a scalar function by differences of its values: exactly symmetric.

    Parameters
    ----------
    f : callable
        As for `numerical_gradient`: takes `x` and returns one real number, or is native.
    x : ndarray, or list or dict of ndarray
        Floating-point numbers, any shape, writeable; changed in place and restored.
    h : float, array_like, list, dict or "auto", optional
        The step, or a step for each element; by default 4·eps^(1/4), which is 5e-4 in float64, times the larger of 1
        and ``|x|``. The error is of order h² and about ``4·eps·|f|/h²`` by rounding.
    method : {"central", "forward", "backward", "five-point", "richardson"}
        As for `numerical_gradient`.
    bounds, vectorized, executor, progress, full_output
        As for `numerical_gradient`. Where bounds leave no room, the difference is one-sided.

    Returns
    -------
    ndarray, list, dict or DerivativeResult
        Shape ``x.shape + x.shape``. For a list or dict, a list of lists or a dict of dicts: ``hessian[a][b]`` has the
        shape ``x[a].shape + x[b].shape``.

    Raises
    ------
    TypeError, ValueError
        As `numerical_gradient`; ValueError also for ``method="complex"``.

    Examples
    --------
    >>> import numpy as np, fastnet
    >>> fastnet.numerical_hessian(lambda x: x[0] ** 2 * x[1], np.array([1.0, 3.0]), h=0.5)
    array([[6., 2.],
           [2., 0.]])
    """
    how, wants_all = as_method(method), checks.as_flag(full_output, "full_output")
    if how == "complex":
        raise ValueError("method='complex' is for first derivatives: take the Jacobian of a gradient by it")
    point = Point(x)
    auto, bounds_ = is_auto(h, x), as_bounds(bounds, point)
    pairs = np.stack(np.triu_indices(point.size), axis=1)
    with progress_of(progress, "Hessian", 0 if auto else 4 * len(pairs)) as tick:
        evaluator = evaluator_of(f, point, True, vectorized, executor, tick)
        sizes = Steps(None if auto else h, point)
        evaluator.check(inward(sizes(point.dtype), point, bounds_))
        evaluator.base()
        digits = narrowest(evaluator.dtype, point.dtype)
        eps = float(np.finfo(digits).eps)
        centers = point.numbers().astype(np.float64)
        scheme = METHODS[how]
        noise = noise_of(evaluator, bounds_)[None] if auto or wants_all else None
        if auto:
            plan, most = plan_search(scheme, centers, eps, bounds_)
            # The step of a pair is a power of 2 of each element's own, which may differ in size.
            reach = np.where((plan.sides[pairs] == 0), 2.0, 4.0)
            highest = (most[pairs] / (reach * plan.steps[pairs])).min(axis=1, initial=np.inf)
            quotients = Second(evaluator, pairs, plan, eps, noise, bounds_)

            def differentiate(which: IntArray) -> Found:
                return automatic(quotients, which, np.ones(len(which)), highest[which])

        else:
            steps = sizes(digits) if h is not None else _default(centers, eps)
            plan = _plan(scheme, centers, steps, bounds_)
            quotients = Second(evaluator, pairs, plan, eps, noise, bounds_)

            def differentiate(which: IntArray) -> Found:
                return with_steps(quotients, which, np.ones(len(which)), scheme.multiples, wants_all)

        found = in_blocks(len(pairs), differentiate)
        if auto:
            check_found(found, quotients.where)
    unit = np.sqrt(plan.steps[pairs].prod(axis=1))
    matrices = [_matrix(values, pairs, point) for values in (found.value, found.error, found.step * unit)]
    value = matrices[0]
    if not wants_all:
        return value
    return DerivativeResult(value, matrices[1], matrices[2], evaluator.evaluations)


def _default(centers: FloatArray, eps: float) -> FloatArray:
    steps: FloatArray = 4 * eps**0.25 * np.maximum(np.abs(centers), 1.0)
    return np.where(np.isfinite(steps), steps, 4 * eps**0.25)


def _plan(scheme: Any, centers: FloatArray, steps: FloatArray, bounds: Bounds | None) -> Plan:
    """Return sides and steps: an element moves by twice the step, or by four times from one side."""
    plan = plan_steps(scheme, centers, 2 * steps, bounds)
    return Plan(plan.sides, np.where(plan.sides == 0, plan.steps / 2, np.minimum(plan.steps / 4, steps)))


def _matrix(values: FloatArray, pairs: IntArray, point: Point) -> Any:
    """Return values of pairs as the symmetric matrix, cut into the arrays of x."""
    whole = np.empty((point.size, point.size))
    whole[pairs[:, 0], pairs[:, 1]] = whole[pairs[:, 1], pairs[:, 0]] = values
    starts = point.starts

    def block(row: int, column: int) -> Array:
        a, b = point.arrays[row], point.arrays[column]
        part = whole[starts[row] : starts[row + 1], starts[column] : starts[column + 1]]
        return part.reshape(a.shape + b.shape).astype(np.result_type(a, b).newbyteorder("="))

    return point.like(lambda row: point.like(lambda column: block(row, column)))

"""Numbers with bounds: an exact value, and how far a computation in float32 or float64 may end up from it.

In whatever order the computation adds up, and whether or not its multiply-adds are fused (Higham, Accuracy and
Stability of Numerical Algorithms, ch. 3).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Long = np.longdouble

# What one call may lose, in units of 2^-24 (float32) or 2^-53 (float64); an ulp is at most two of these.
EXP_UNITS = 6  # NumPy's float32 exp stays below 2.6 ulp, fastnet's below 2
LOG_UNITS = 8  # NumPy's float32 log stays below 4 ulp


class Bounded:
    """An exact value, and how far its computation in `dtype` may be from it, element by element."""

    def __init__(self, value: Any, error: Any, dtype: npt.DTypeLike) -> None:
        self.value, self.error = np.asarray(value, Long), np.asarray(error, Long)
        self.dtype = np.dtype(dtype)
        self.unit, self.tiny = unit(dtype), Long(np.finfo(dtype).smallest_subnormal)

    @classmethod
    def exact(cls, array: npt.ArrayLike, dtype: npt.DTypeLike) -> Bounded:
        return cls(array, np.zeros(np.shape(array), Long), dtype)

    def _like(self, value: Any, error: Any, units: float = 1) -> Bounded:
        """A result of an operation that loses `units` more units of its last place."""
        return Bounded(value, error + units * (self.unit * (abs(value) + error) + self.tiny), self.dtype)

    def _other(self, other: Any) -> Bounded:
        return other if isinstance(other, Bounded) else Bounded.exact(other, self.dtype)

    def __add__(self, other: Any) -> Bounded:
        other = self._other(other)
        return self._like(self.value + other.value, self.error + other.error)

    def __sub__(self, other: Any) -> Bounded:
        other = self._other(other)
        return self._like(self.value - other.value, self.error + other.error)

    def __mul__(self, other: Any) -> Bounded:
        other = self._other(other)
        error = abs(self.value) * other.error + self.error * abs(other.value) + self.error * other.error
        return self._like(self.value * other.value, error)

    def __truediv__(self, other: Any) -> Bounded:
        other = self._other(other)
        value = self.value / other.value
        assert np.all(other.error < abs(other.value)), "the bound of a denominator reaches 0"
        return self._like(value, (self.error + abs(value) * other.error) / (abs(other.value) - other.error))

    def __matmul__(self, other: Bounded) -> Bounded:
        left, right = abs(self.value), abs(other.value)
        error = _product(left, other.error) + _product(self.error, right) + _product(self.error, other.error)
        left, right = left + self.error, right + other.error
        # Adding a product with 0 is exact. Two more additions, for sums that are put together from blocks.
        terms = ((left != 0).astype(float) @ (right != 0).astype(float)).astype(Long) + 2
        growth = terms * self.unit / (1 - terms * self.unit)
        return Bounded(self.value @ other.value, error + growth * (left @ right) + terms * self.tiny, self.dtype)

    def sum(self, axis: int, keepdims: bool = False) -> Bounded:
        terms = self.value.shape[axis]
        growth = terms * self.unit / (1 - terms * self.unit)
        size = (abs(self.value) + self.error).sum(axis=axis, keepdims=keepdims)
        error = self.error.sum(axis=axis, keepdims=keepdims) + growth * size
        return Bounded(self.value.sum(axis=axis, keepdims=keepdims), error, self.dtype)

    def exp(self) -> Bounded:
        value = np.exp(self.value)
        small = np.minimum(self.error, 1)
        grown = np.where(self.error < 1, value * np.expm1(small), np.exp(self.value + self.error) - value)
        return self._like(value, grown, EXP_UNITS)

    def log(self) -> Bounded:
        assert np.all(self.error < self.value), "the bound of a logarithm's argument reaches 0"
        return self._like(np.log(self.value), -np.log1p(-self.error / self.value), LOG_UNITS)

    def __getitem__(self, at: Any) -> Bounded:
        return Bounded(self.value[at], self.error[at], self.dtype)

    @property
    def T(self) -> Bounded:  # noqa: N802
        return Bounded(self.value.T, self.error.T, self.dtype)

    def assert_holds(self, answer: npt.ArrayLike, what: str = "answer") -> None:
        """Fail unless `answer` has this shape and each of its elements is within its bound."""
        answer = np.asarray(answer)
        assert answer.shape == self.value.shape, f"{what} has shape {answer.shape}, not {self.value.shape}"
        off = abs(answer.astype(Long) - self.value)
        wrong = ~(off <= self.error)  # NaN is wrong too
        if np.any(wrong):
            ratio = np.where(wrong, np.where(np.isnan(off), np.inf, off / (self.error + self.tiny)), 0)
            at = np.unravel_index(np.argmax(ratio), ratio.shape)
            raise AssertionError(
                f"{what}{[int(i) for i in at]} is {answer[at]!r}, not {self.value[at]!r}: off by {off[at]!r}, more "
                f"than rounding's {self.error[at]!r}; {np.count_nonzero(wrong)} of {answer.size} are wrong"
            )


def _product(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> Any:
    """Return a @ b, which is slow in long double: most errors are all 0."""
    return a @ b if a.any() and b.any() else Long(0)


def unit(dtype: npt.DTypeLike) -> Any:
    """The largest relative error of one rounding to nearest."""
    return Long(np.finfo(dtype).eps) / 2

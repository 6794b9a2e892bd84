"""A derivative with what is known of it: the answer of the functions here with ``full_output=True``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class DerivativeResult:
    """A derivative, its estimated error, the steps that it was found with, and what it cost.

    Attributes
    ----------
    value : float, ndarray, or list or dict of ndarray
        What is returned without ``full_output``.
    error : same as value
        The estimated absolute error of each number of `value`: truncation and rounding. Where the method is
        ``"complex"``, that of rounding.
    step : same as value
        The least step that each number was found with.
    evaluations : int
        The number of points at which f was evaluated, those of the checks before the work included.

    Examples
    --------
    >>> import math, fastnet
    >>> result = fastnet.derivative(math.exp, 0.0, h="auto", full_output=True)
    >>> abs(result.value - 1) <= result.error
    True
    """

    value: Any
    error: Any
    step: Any
    evaluations: int

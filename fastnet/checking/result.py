"""The result of comparing two gradients."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass
from typing import Any

from fastnet._tools.text import html_lines, html_table

COLUMNS = ("analytic", "numerical", "difference", "allowed")


class GradientCheckError(AssertionError):
    """A gradient did not pass; the message is the result with its worst entries.

    Examples
    --------
    >>> import numpy as np, fastnet
    >>> x = np.array([3.0, 4.0])
    >>> try:
    ...     fastnet.check_gradient(lambda x: np.sum(x**2), [6.0, -8.0], x, raise_exception=True)
    ... except fastnet.GradientCheckError as error:
    ...     print(str(error).splitlines()[0])
    FAILED: 1 of 2 entries differ
    """


@dataclass(frozen=True, slots=True)
class EntryCheck:
    """One entry of two gradients.

    Attributes
    ----------
    name : str
        The name of the array: of the parameter, or ``"x"`` if there is one array without a name.
    index : tuple of int
        The position in that array.
    analytic, numerical : float
        The entry in each gradient.
    difference : float
        ``abs(analytic - numerical)``; NaN or infinite if one of them is.
    allowed : float
        The difference up to which the entry passes.

    Examples
    --------
    >>> import numpy as np, fastnet
    >>> x = np.array([3.0, 4.0])
    >>> check = fastnet.check_gradient(lambda x: np.sum(x**2), [6.0, -8.0], x)
    >>> check.worst[0].index, check.worst[0].analytic
    ((1,), -8.0)
    """

    name: str
    index: tuple[int, ...]
    analytic: float
    numerical: float
    difference: float
    allowed: float

    @property
    def label(self) -> str:
        """Where the entry is, as in ``W1[3, 4]``."""
        return f"{self.name}[{', '.join(map(str, self.index))}]" if self.index else self.name

    def to_dict(self) -> dict[str, Any]:
        """Return the record in types that JSON has; NaN and infinities become None."""
        return {
            "name": self.name,
            "index": list(self.index),
            "analytic": finite(self.analytic),
            "numerical": finite(self.numerical),
            "difference": finite(self.difference),
            "allowed": finite(self.allowed),
        }


@dataclass(frozen=True, repr=False)
class GradientCheck:
    """The result of comparing two gradients. True in a condition if, and only if, the check passed.

    Attributes
    ----------
    entries : int
        The number of entries compared.
    failed : int
        The number of entries that differ by more than is allowed, or are NaN or infinite in either gradient.
    non_finite : int
        The number of failed entries that are NaN or infinite.
    excused : int
        The number of entries that differ by more than the limit, but within the uncertainty of the numerical gradient,
        or at a kink of the function. `failed` does not count them.
    agreeing : int
        The number of all others.
    inconclusive : bool
        Whether that uncertainty exceeds a tenth of the largest entry of the numerical gradient, so that gross
        mistakes would have been excused, or all entries are at a kink. The check does not pass then.
    largest : EntryCheck or None
        The finite entry with the largest absolute difference, if there is one.
    largest_entry : float
        The largest finite absolute value in either gradient.
    worst : tuple of EntryCheck
        The entries with the largest difference relative to what is allowed, the worst first.
    orders : dict of str to float
        For each array, the order of the Taylor remainder ``|f(x + s·p) − f(x) − s·g·p|`` over halved distances s, for a
        random direction p and the analytic gradient g: 2 if g is right, near 1 if it is wrong on the whole. NaN where
        the remainder is no more than rounding, as for a linear function.
    first_wrong : str or None
        Where failed entries begin, going back from the loss: the last array that has some; in a network, its layer.
    h : float
        The step of the numerical gradient, the median if the entries have steps of their own.
    rtol : float
        The allowed difference, relative to the larger of the two entries.
    atol : float or None
        The difference allowed in addition; None if it was estimated as `check_gradient` describes.

    Examples
    --------
    >>> import numpy as np, fastnet
    >>> x = np.array([3.0, 4.0])
    >>> check = fastnet.check_gradient(lambda x: np.sum(x**2), [6.0, -8.0], x)
    >>> check.passed, check.failed, check.worst[0].label
    (False, 1, 'x[1]')
    """

    entries: int
    failed: int
    non_finite: int
    excused: int
    inconclusive: bool
    largest: EntryCheck | None
    largest_entry: float
    worst: tuple[EntryCheck, ...]
    orders: dict[str, float]
    first_wrong: str | None
    h: float
    rtol: float
    atol: float | None

    @property
    def passed(self) -> bool:
        """Whether the two gradients agree."""
        return self.failed == 0 and not self.inconclusive

    @property
    def agreeing(self) -> int:
        """The number of entries that neither failed nor are excused."""
        return self.entries - self.failed - self.excused

    @property
    def order(self) -> float:
        """The smallest of `orders`; NaN if there is none."""
        return min((order for order in self.orders.values() if not math.isnan(order)), default=math.nan)

    @property
    def largest_absolute(self) -> float:
        """The largest absolute difference among the finite entries; NaN if there are none."""
        return math.nan if self.largest is None else self.largest.difference

    @property
    def largest_relative(self) -> float:
        """`largest_absolute` relative to the largest entry of either gradient; 0 if both are all zeros."""
        return self.largest_absolute / self.largest_entry if self.largest_entry else self.largest_absolute

    def __bool__(self) -> bool:
        return self.passed

    def __repr__(self) -> str:
        return (
            f"GradientCheck(passed={self.passed}, entries={self.entries}, failed={self.failed}, "
            f"non_finite={self.non_finite}, excused={self.excused}, "
            f"largest_absolute={self.largest_absolute:.2g}, largest_relative={self.largest_relative:.2g})"
        )

    def __str__(self) -> str:
        return "\n".join([self.verdict, *self._details(), *([] if self.passed else self._table())])

    @property
    def verdict(self) -> str:
        """The result in one line."""
        if self.failed:
            non_finite = f", {self.non_finite:,} of them NaN or infinite" if self.non_finite else ""
            return f"FAILED: {self.failed:,} of {self.entries:,} entries differ{non_finite}"
        if self.inconclusive:
            return (
                f"INCONCLUSIVE: at h = {self.h:g} the numerical gradient is itself so uncertain "
                "that it would hide gross mistakes"
            )
        excused = f", {self.excused:,} of {self.entries:,} are excused" if self.excused else ""
        return f"passed: {self.agreeing:,} entries agree{excused}"

    def _details(self) -> list[str]:
        lines = []
        if self.largest is not None:
            lines.append(
                f"  largest difference {self.largest_absolute:.2g}, "
                f"{self.largest_relative:.2g} of the largest entry, at {self.largest.label}"
            )
        if self.first_wrong is not None:
            lines.append(f"  going back from the loss, the mistakes begin in {self.first_wrong}")
        if self.excused:
            lines.append("  excused: the numerical gradient is uncertain there, or the function has a kink")
        if not math.isnan(self.order):
            shown = ", ".join(f"{name} {'-' if math.isnan(k) else f'{k:.2f}'}" for name, k in self.orders.items())
            lines.append(f"  order of the Taylor remainder (2 if right, 1 if wrong): {shown}")
        return lines

    def _table(self) -> list[str]:
        title = "worst entries"
        width = max([len(title), *(len(entry.label) for entry in self.worst)])
        widths = (13, 13, 11, 8)
        rows = [(title, COLUMNS), *((entry.label, _cells(entry)) for entry in self.worst)]
        return [
            f"  {label:{width}} " + " ".join(f"{cell:>{n}}" for cell, n in zip(cells, widths, strict=True))
            for label, cells in rows
        ]

    def _repr_html_(self) -> str:
        """Return the result for notebooks: the verdict, and the worst entries as a table if it did not pass."""
        parts = [f"<p><b>{html.escape(self.verdict)}</b></p>", html_lines(line.strip() for line in self._details())]
        if not self.passed:
            rows = ((entry.label, *_cells(entry)) for entry in self.worst)
            parts.append(html_table(("worst entries", *COLUMNS), rows))
        return "\n".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Return the result in types that JSON has; NaN and infinities become None."""
        return {
            "passed": self.passed,
            "entries": self.entries,
            "failed": self.failed,
            "non_finite": self.non_finite,
            "excused": self.excused,
            "agreeing": self.agreeing,
            "inconclusive": self.inconclusive,
            "largest_absolute": finite(self.largest_absolute),
            "largest_relative": finite(self.largest_relative),
            "largest": None if self.largest is None else self.largest.to_dict(),
            "largest_entry": self.largest_entry,
            "first_wrong": self.first_wrong,
            "orders": {name: finite(order) for name, order in self.orders.items()},
            "worst": [entry.to_dict() for entry in self.worst],
            "h": self.h,
            "rtol": self.rtol,
            "atol": self.atol,
        }


def _cells(entry: EntryCheck) -> tuple[str, str, str, str]:
    return f"{entry.analytic:.6g}", f"{entry.numerical:.6g}", f"{entry.difference:.2g}", f"{entry.allowed:.2g}"


def finite(value: float) -> float | None:
    """Return `value`, or None where JSON has no number for it."""
    return value if math.isfinite(value) else None

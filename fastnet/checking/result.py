"""The result of comparing two gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


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
        The number of entries that differ by more than `rtol` and `atol` allow, but within the uncertainty of
        the numerical gradient, or where it straddles a kink of the network. `failed` does not count them.
    inconclusive : bool
        Whether that uncertainty exceeds a tenth of the largest entry of the numerical gradient, so that gross
        mistakes would have been excused, or all entries straddle a kink. The check does not pass then.
    largest : EntryCheck or None
        The finite entry with the largest absolute difference, if there is one.
    largest_entry : float
        The largest finite absolute value in either gradient.
    worst : tuple of EntryCheck
        The entries with the largest difference relative to what is allowed, the worst first.
    h : float
        The step of the numerical gradient.
    rtol : float
        The allowed difference, relative to the larger of the two entries.
    atol : float or None
        The difference allowed in addition; None if it was estimated as `check_gradient` describes.
    """

    entries: int
    failed: int
    non_finite: int
    excused: int
    inconclusive: bool
    largest: EntryCheck | None
    largest_entry: float
    worst: tuple[EntryCheck, ...]
    h: float
    rtol: float
    atol: float | None

    @property
    def passed(self) -> bool:
        """Whether the two gradients agree."""
        return self.failed == 0 and not self.inconclusive

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
        return f"passed: {self.entries:,} entries agree"

    def _details(self) -> list[str]:
        lines = []
        if self.largest is not None:
            lines.append(
                f"  largest difference {self.largest_absolute:.2g}, "
                f"{self.largest_relative:.2g} of the largest entry, at {self.largest.label}"
            )
        if self.excused:
            lines.append(
                f"  {self.excused:,} entries excused: the numerical gradient is uncertain there, or straddles a kink"
            )
        return lines

    def _table(self) -> list[str]:
        title = "worst entries"
        width = max([len(title), *(len(entry.label) for entry in self.worst)])
        head = f"  {title:{width}} {'analytic':>13} {'numerical':>13} {'difference':>11} {'allowed':>8}"
        return [head] + [
            f"  {entry.label:{width}} {entry.analytic:13.6g} {entry.numerical:13.6g} "
            f"{entry.difference:11.2g} {entry.allowed:8.2g}"
            for entry in self.worst
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return the result in types that JSON has; NaN and infinities become None."""
        return {
            "passed": self.passed,
            "entries": self.entries,
            "failed": self.failed,
            "non_finite": self.non_finite,
            "excused": self.excused,
            "inconclusive": self.inconclusive,
            "largest_absolute": finite(self.largest_absolute),
            "largest_relative": finite(self.largest_relative),
            "largest": None if self.largest is None else self.largest.to_dict(),
            "largest_entry": self.largest_entry,
            "worst": [entry.to_dict() for entry in self.worst],
            "h": self.h,
            "rtol": self.rtol,
            "atol": self.atol,
        }


def finite(value: float) -> float | None:
    """Return `value`, or None where JSON has no number for it."""
    return value if math.isfinite(value) else None

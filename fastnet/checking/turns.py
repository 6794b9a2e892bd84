"""What the times of several turns say, where other programs may have slowed down some of them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from fastnet._tools.text import format_seconds, three_digits

MOST_DIFFERENCE = 2.0  # between the slowest and the fastest turn, before a warning says so


def times_faster(baseline: Sequence[float], own: Sequence[float]) -> float:
    """Return how many times faster `own` is: the ratio of the medians, but never above that of the fastest turns.

    Another program only ever adds to a time. If it slowed down most turns of the baseline, their median says nothing,
    and the fastest turns still do.

    Parameters
    ----------
    baseline, own : sequence of float
        Seconds, turn by turn.

    Examples
    --------
    >>> times_faster([15, 16, 17], [1, 1, 1])
    15.0
    >>> times_faster([15, 635, 635], [1, 1, 1])
    15.0
    """
    return min(statistics.median(baseline) / statistics.median(own), min(baseline) / min(own))


def difference(turns: Sequence[float]) -> float:
    """Return how many times as long as the fastest turn the slowest one took; 1 if the clock did not see the former."""
    return max(turns) / min(turns) if min(turns) > 0 else 1.0


def describe_spread(turns: Sequence[float]) -> str:
    """Write the times of the fastest and of the slowest turn, if there were several."""
    return "-" if len(turns) < 2 else f"{format_seconds(min(turns))} to {format_seconds(max(turns))}"


def warnings(name: str, turns: Sequence[float]) -> list[str]:
    """Return a line that warns of turns that differ too much, if they do."""
    times = difference(turns)
    if times <= MOST_DIFFERENCE:
        return []
    return [
        f"{name}: its turns differ by {three_digits(times)}×: other programs were running, so don't rely on its time"
    ]

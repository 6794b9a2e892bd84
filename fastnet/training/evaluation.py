"""The accuracy of a network on many rows."""

from __future__ import annotations

from typing import Any

from fastnet.training.inputs import Rows

ROWS_AT_ONCE = 1000  # so that the values of their units take little memory


def accuracy(net: Any, data: Rows) -> float:
    """Return the share of the rows that the network gets right."""
    right = 0
    for first in range(0, len(data), ROWS_AT_ONCE):
        rows = data[first : first + ROWS_AT_ONCE]
        right += round(net.accuracy(rows.x, rows.t) * len(rows))
    return right / len(data)

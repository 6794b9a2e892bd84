"""The accuracy of a network on many rows."""

from __future__ import annotations

from typing import Any

from fastnet._tools.types import FloatArray
from fastnet.backends import TrainingBackend, active
from fastnet.networks.answers import count_right
from fastnet.networks.base import BaseNetwork
from fastnet.networks.chain import Chain
from fastnet.networks.overriding import overridden
from fastnet.networks.staged import Staged
from fastnet.training.inputs import Rows

ROWS_AT_ONCE = 1000  # so that the values of their units take little memory


def accuracy(net: Any, data: Rows, *, again: bool) -> float:
    """Return the share of the rows that the network gets right.

    Rows that are asked for again are prepared by the backend, which takes about as long as answering them once.
    """
    backend = active()
    if isinstance(backend, TrainingBackend) and (again or data.is_prepared(backend)):
        y = _answers_to_prepared(net, data, backend)
        if y is not None:
            return count_right(y, data.t) / len(data)
    right = 0
    for first in range(0, len(data), ROWS_AT_ONCE):
        rows = data[first : first + ROWS_AT_ONCE]
        right += round(net.accuracy(rows.x, rows.t) * len(rows))
    return right / len(data)


def _answers_to_prepared(net: Any, data: Rows, backend: TrainingBackend) -> FloatArray | None:
    """Return the answers of a network to rows that the backend prepares once; None if it is not computed as a whole."""
    if not isinstance(net, BaseNetwork) or overridden(net, "accuracy", "predict"):
        return None
    computation = net._computation()
    if not isinstance(computation, (Chain, Staged)):
        return None
    return computation.forward_prepared(data.prepared(backend), data.x)

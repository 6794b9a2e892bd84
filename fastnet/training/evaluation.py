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


def accuracy(net: Any, data: Rows) -> float:
    """Return the share of the rows that the network gets right."""
    if (y := _answers(net, data)) is not None:
        return count_right(y, data.t) / len(data)
    right = 0
    for first in range(0, len(data), ROWS_AT_ONCE):
        rows = data[first : first + ROWS_AT_ONCE]
        right += round(net.accuracy(rows.x, rows.t) * len(rows))
    return right / len(data)


def _answers(net: Any, data: Rows) -> FloatArray | None:
    """Return the network's answers to rows that the backend has prepared once; None where it does not do that."""
    backend = active()
    if not isinstance(backend, TrainingBackend) or not isinstance(net, BaseNetwork):
        return None
    if overridden(net, "accuracy", "predict"):
        return None
    computation = net._computation()
    if not isinstance(computation, (Chain, Staged)):
        return None
    return computation.forward_prepared(data.prepared(backend), data.x)

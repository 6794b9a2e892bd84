"""The accuracy of a network on many rows."""

from __future__ import annotations

from typing import Any

from fastnet._tools.types import FloatArray
from fastnet.backends import active
from fastnet.backends.choice import training_backend
from fastnet.networks.answers import count_right
from fastnet.networks.base import BaseNetwork
from fastnet.networks.overriding import overridden
from fastnet.training.inputs import Rows

ROWS_AT_ONCE = 1000  # so that the values of their units take little memory


def accuracy(net: Any, data: Rows, *, again: bool) -> float:
    """Return the share of the rows that the network gets right.

    Rows that are asked for again are prepared by the backend, which takes about as long as answering them once.
    """
    if (y := _answers(net, data, again)) is not None:
        return count_right(y, data.t) / len(data)
    right = 0
    for first in range(0, len(data), ROWS_AT_ONCE):
        rows = data[first : first + ROWS_AT_ONCE]
        right += round(net.accuracy(rows.x, rows.t) * len(rows))
    return right / len(data)


def _answers(net: Any, data: Rows, again: bool) -> FloatArray | None:
    """Return the answers to all rows at once; None where the backend does not compute the network as a whole."""
    backend = training_backend()
    if backend is None or not isinstance(net, BaseNetwork) or overridden(net, "accuracy", "predict"):
        return None
    spec = net._computation().spec_of(data.x)
    if spec is None:
        return None
    if again or data.is_prepared(backend):
        return data.prepared(backend).forward(spec)
    return active().forward(spec, data.x.reshape(len(data), -1))

"""A stretch of training as backends are given it: batches, where gradients come from, and the optimizer's update."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

from fastnet._tools.types import FloatArray, IntArray


class Rule(enum.IntEnum):
    """How an optimizer changes a parameter; the numbers are those of ``cpp/core/training.hpp``."""

    SGD = 0
    MOMENTUM = 1
    NESTEROV = 2
    ADAGRAD = 3
    RMSPROP = 4
    ADAM = 5


class GradientKind(enum.IntEnum):
    """Where a training step's gradient comes from; the numbers are those of ``cpp/core/training.hpp``."""

    BACKPROP = 0
    INCREMENTAL = 1
    NODAL = 2


@dataclass(frozen=True, slots=True)
class Batches:
    """The minibatches of a stretch of training: each `size` rows in turn, the last one of an epoch maybe fewer.

    Attributes
    ----------
    data : object
        All rows, as `TrainingBackend.prepare` returned them.
    targets : ndarray
        The targets of all rows: labels (rows,) or shape (rows, classes).
    order : ndarray of int64
        The numbers of the rows to train with, batch after batch: shape (rows,), or (epochs, rows) where each epoch has
        an order of its own.
    size : int
        Rows of a batch.
    epochs : int
        How often all of this is done. Between two epochs, all parameters must be finite.
    """

    data: Any
    targets: FloatArray | IntArray
    order: IntArray
    size: int
    epochs: int = 1


@dataclass(frozen=True, slots=True)
class Update:
    """What an optimizer changes the parameters by, as `fastnet.optimizers.Optimizer` describes it.

    Attributes
    ----------
    rule : Rule
    constants : tuple of float
        The scalars that are the same in every step.
    coefficients : ndarray of float64
        Those that change, shape (steps, coefficients).
    slots : tuple of tuple of ndarray
        What the optimizer keeps: for each slot, an array for each parameter, changed in place.
    """

    rule: Rule
    constants: tuple[float, ...]
    coefficients: FloatArray
    slots: tuple[tuple[FloatArray, ...], ...]

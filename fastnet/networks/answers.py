"""What a network answers: predictions, losses and the accuracy, however it is computed."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnet._tools import checks
from fastnet._tools.types import FloatArray, IntArray
from fastnet.networks.computation import Computation
from fastnet.networks.overriding import overridden


def count_right(y: FloatArray, t: FloatArray | IntArray) -> int:
    """Return in how many rows of `y` the likeliest class is that of the target: a label, or a row of `t`."""
    labels = t if t.ndim == 1 else t.argmax(axis=1)
    return int(np.count_nonzero(y.argmax(axis=1) == labels))


class Answering:
    """The methods of a network for its answers."""

    params: dict[str, FloatArray]

    @functools.cached_property
    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Arrays that are not trained but kept between training passes, by name. Most networks have none."""
        return {}

    def _computation(self) -> Computation:
        """Return how the network computes with its present parameters; raise if some are missing or do not fit."""
        raise NotImplementedError

    def _answers(self, rows: FloatArray, computation: Computation) -> FloatArray:
        """Return the answers that the loss is of, in inference mode: those of a subclass's `predict` if it has one."""
        if not overridden(self, "predict"):
            return computation.forward(rows)
        y = checks.as_floating(self.predict(rows), "what predict gave", computation.dtype)
        if y.ndim != 2 or len(y) != len(rows):
            raise ValueError(f"predict gave shape {y.shape} for {len(rows)} row(s): it must give (batch, classes)")
        return self._answers_of(y)

    def _answers_of(self, predicted: FloatArray) -> FloatArray:
        """Return the answers that the loss is of, from what `predict` gives; the same but for `SimpleNet`."""
        return predicted

    def predict(self, x: npt.ArrayLike) -> FloatArray:
        """The network's answers, in inference mode.

        Parameters
        ----------
        x : array_like
            Shape (batch, inputs), or (inputs,) for one row.

        Returns
        -------
        ndarray
            Shape (batch, classes) or (classes,), in the dtype of the parameters.

        Raises
        ------
        ValueError
            If the shapes do not fit or the batch is empty.
        TypeError
            If `x` or a parameter does not hold real numbers.
        """
        return self._computation().predict(x)

    def __call__(self, x: npt.ArrayLike) -> FloatArray:
        """The same as `predict`: ``net(x)``."""
        return self.predict(x)

    def loss(self, x: npt.ArrayLike, t: npt.ArrayLike) -> float:
        """The loss, averaged over the batch, in inference mode.

        Parameters
        ----------
        x : array_like
            Shape (batch, inputs), or (inputs,) for one row.
        t : array_like
            Integer labels, shape (batch,), or one-hot rows or probabilities, shape (batch, classes); for one row, one
            label or shape (classes,). For a regression loss, such as ``IdentityWithLoss()``, numbers of shape (batch,
            outputs), or (batch,) for one output.

        Returns
        -------
        float

        Raises
        ------
        ValueError
            If the shapes do not fit, a label is out of range, or the batch is empty.
        TypeError
            If labels are not integers, or `x`, `t` or a parameter does not hold real numbers.
        """
        computation = self._computation()
        rows, targets = computation.batch(x, t)
        if overridden(self, "predict"):
            return computation.loss_of_answers(self._answers(rows, computation), targets)
        return computation.loss(rows, targets)

    def accuracy(self, x: npt.ArrayLike, t: npt.ArrayLike, batch_size: int | None = None) -> float:
        """The share of rows whose likeliest class is that of the target, in inference mode.

        Parameters
        ----------
        x : array_like
            Shape (batch, inputs).
        t : array_like
            Integer labels, shape (batch,), or one-hot rows or probabilities, shape (batch, classes), whatever the loss.
        batch_size : int, optional
            Rows to pass through the network at a time; all by default. The result does not depend on it.

        Returns
        -------
        float
            From 0 to 1.

        Raises
        ------
        ValueError, TypeError
            As `loss`; also if `batch_size` is not a positive integer, or the network has one output.
        """
        computation = self._computation()
        rows, targets = computation.batch(x, t, for_accuracy=True)
        if targets.ndim == 2 and targets.shape[1] == 1:
            raise ValueError("the network has one output, and every row has the same likeliest class: use loss")
        size = len(rows) if batch_size is None else checks.as_count(batch_size, "batch_size")
        correct = 0
        for first in range(0, len(rows), size):
            y = self._answers(rows[first : first + size], computation)
            correct += count_right(y, targets[first : first + size])
        return correct / len(rows)

    def training_loss(self, x: npt.ArrayLike, t: npt.ArrayLike) -> float:
        """The loss as `gradient` takes it, with no gradient: a pass in training.

        It differs from `loss` with Dropout, which draws new masks, and with BatchNorm, which takes the statistics of
        this batch and mixes them into the running ones. `numerical_gradient` does neither, so to train with it alone,
        call this before it, at each step.

        Parameters
        ----------
        x, t : array_like
            As for `loss`.

        Returns
        -------
        float

        Raises
        ------
        ValueError, TypeError
            As `loss`.
        """
        if overridden(self, "predict", "loss"):
            return self.loss(x, t)
        computation = self._computation()
        return computation.training_loss(*computation.batch(x, t))

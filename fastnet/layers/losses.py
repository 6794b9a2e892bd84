"""What ends a network: its answers from the last layer, and how far they are from the targets."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastnet._tools import checks
from fastnet._tools.types import FloatArray, IntArray
from fastnet.backends import active
from fastnet.layers.base import Layer, as_gradient, quietly

EPSILON = 1e-7  # inside the logarithm, so that an answer of 0 has a finite loss


class LossLayer(Layer):
    """The base of what ends a network, also of your own: ``forward(x, t)`` gives a number, ``backward(dout)`` dx.

    Attributes
    ----------
    loss : float or None
        What the last `forward` gave.
    y, t : ndarray or None
        Its answers, shape (batch, classes), and its targets: int64 labels or the shape of `y`.
    """

    loss: float | None = None
    y: FloatArray | None = None
    t: FloatArray | IntArray | None = None

    def answer(self, x: FloatArray) -> FloatArray:
        """What a network predicts, if its last layer gave `x`, shape (batch, classes)."""
        return x


class _MeanLoss(LossLayer):
    """A loss of answers and targets, averaged over the batch."""

    def forward(self, x: npt.ArrayLike, t: npt.ArrayLike) -> float:
        """The loss, averaged over the batch.

        Parameters
        ----------
        x : array_like
            Shape (batch, classes), or (classes,) for one row.
        t : array_like
            Integer labels, shape (batch,), or one-hot rows or other targets, shape (batch, classes).

        Returns
        -------
        float

        Raises
        ------
        ValueError
            If the shapes do not fit, a label is out of range, or the batch is empty.
        TypeError
            If labels are not integers, or `x` or `t` does not hold real numbers.
        """
        array = checks.as_floating(x, "x")
        rows = checks.as_rows(array, "x")
        if len(rows) == 0:
            raise ValueError(f"x of shape {array.shape} is an empty batch")
        targets = checks.as_targets(t, len(rows), rows.shape[1], rows.dtype, single=array.ndim == 1)
        self.y, self.t = self.answer(rows), targets
        self.loss = self._error(self.y, targets)
        self._saved = array.shape
        return self.loss

    @quietly
    def backward(self, dout: float = 1.0) -> FloatArray:
        """The derivative by `x`.

        Parameters
        ----------
        dout : float, default 1
            The derivative by the loss.

        Returns
        -------
        ndarray
            The shape of `x`.

        Raises
        ------
        RuntimeError
            If `forward` was not called.
        ValueError
            If `dout` is not one number.
        """
        shape = self._last()
        assert self.y is not None
        assert self.t is not None
        factor = as_gradient(dout, (), self.y.dtype)
        rows = np.zeros_like(self.y)  # the targets: labels become one-hot
        if self.t.ndim == 1:
            rows[np.arange(len(self.t)), self.t] = 1
        else:
            rows[:] = self.t
        dx: FloatArray = factor * (self._derivative(self.y, rows) / self.y.dtype.type(len(self.y)))
        return dx.reshape(shape)

    def _error(self, y: FloatArray, t: FloatArray | IntArray) -> float:
        raise NotImplementedError

    def _derivative(self, y: FloatArray, t: FloatArray) -> FloatArray:
        """Each row's own loss by what went into the answer y; both (batch, classes)."""
        raise NotImplementedError


class SoftmaxWithLoss(_MeanLoss):
    """Softmax, and the cross entropy −Σ t·log(y + 1e-7) of its answers y, averaged over the batch.

    `backward` is the derivative of exactly that. The book's, (y − t)/batch, leaves out the 1e-7.
    """

    def answer(self, x: FloatArray) -> FloatArray:
        """The probabilities softmax(x), shape (batch, classes)."""
        return active().softmax(x)

    def _error(self, y: FloatArray, t: FloatArray | IntArray) -> float:
        return active().cross_entropy_error(y, t)

    def _derivative(self, y: FloatArray, t: FloatArray) -> FloatArray:
        by_answer = -t / (y + y.dtype.type(EPSILON))
        derivative: FloatArray = y * (by_answer - (y * by_answer).sum(axis=1, keepdims=True))
        return derivative


class IdentityWithLoss(_MeanLoss):
    """The answers y = x themselves, and their mean squared error ½·Σ(y − t)², averaged over the batch."""

    def _error(self, y: FloatArray, t: FloatArray | IntArray) -> float:
        return active().mean_squared_error(y, t)

    def _derivative(self, y: FloatArray, t: FloatArray) -> FloatArray:
        return y - t

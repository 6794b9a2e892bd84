"""Loss layers, which end a network: its answers, and how far they are from the targets."""

from __future__ import annotations

from typing import ClassVar

import numpy.typing as npt

from fastnet._tools import checks
from fastnet._tools.types import FloatArray, IntArray
from fastnet.backends import active
from fastnet.backends._numpy import loss_derivative, softmax_backward, target_rows
from fastnet.backends.spec import Loss
from fastnet.layers.base import Layer, as_gradient, quietly


class LossLayer(Layer):
    """The base class of loss layers, including your own.

    ``forward(x, t)`` returns the loss as a number, ``backward(dout)`` the derivative with respect to `x`.

    Attributes
    ----------
    loss : float or None
        The value that the last `forward` returned.
    y, t : ndarray or None
        The answers of the last `forward`, shape (batch, classes), and its targets: int64 labels or the shape of `y`.
    regression : bool
        Of the class: whether targets are numbers, so that shape (batch,) is for one output; False if they may be class
        labels.

    Examples
    --------
    >>> import numpy as np, fastnet
    >>> class Largest(fastnet.layers.LossLayer):
    ...     regression = True
    ...     def forward(self, x, t):
    ...         self.y, self.t = x, t
    ...         return float(np.abs(x - t).max())
    >>> Largest().forward(np.array([[1.0, 5.0]]), np.array([[1.0, 2.0]]))
    3.0
    """

    regression: ClassVar[bool] = False
    loss: float | None = None
    y: FloatArray | None = None
    t: FloatArray | IntArray | None = None

    def answer(self, x: FloatArray) -> FloatArray:
        """The network's prediction from the output `x` of its last layer; both of shape (batch, classes)."""
        return x

    def error(self, y: FloatArray, t: FloatArray | IntArray) -> float:
        """The loss of the answers `y`, which a network needs whose `predict` is its own."""
        if type(self).answer is not LossLayer.answer:
            raise NotImplementedError(f"{type(self).__name__} has its own answer(x), but no error(y, t): give it one")
        value: float = self.forward(y, t)
        return value


class MeanLoss(LossLayer):
    """A loss of answers and targets, averaged over the batch.

    `kind` says which; `constant` is the δ of the Huber loss.
    """

    kind: ClassVar[Loss]
    constant: float = 0.0

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
            If the shapes do not match, a label is out of range, or the batch is empty.
        TypeError
            If labels are not integers, or `x` or `t` does not contain real numbers.
        """
        array = checks.as_floating(x, "x")
        rows, targets = checks.as_rows_and_targets(array, t, "x", self.regression)
        if self.kind == Loss.BINARY_CROSS_ENTROPY:
            checks.check_fractions(targets, "t")
        self.y, self.t = self.answer(rows), targets
        self.loss = self.error(self.y, targets)
        self._saved = array.shape
        return self.loss

    @quietly
    def backward(self, dout: float = 1.0) -> FloatArray:
        """The derivative with respect to `x`.

        Parameters
        ----------
        dout : float, default 1
            The derivative with respect to the loss.

        Returns
        -------
        ndarray
            The shape of `x`.

        Raises
        ------
        RuntimeError
            If `forward` was not called before.
        ValueError
            If `dout` is not one number.
        """
        shape = self._last()
        assert self.y is not None
        assert self.t is not None
        factor = as_gradient(dout, (), self.y.dtype)
        derivative = self._derivative(self.y, target_rows(self.t, self.y))
        dx: FloatArray = factor * (derivative / self.y.dtype.type(len(self.y)))
        return dx.reshape(shape)

    def error(self, y: FloatArray, t: FloatArray | IntArray) -> float:
        return active().mean_loss(self.kind, y, t, self.constant)

    def _derivative(self, y: FloatArray, t: FloatArray) -> FloatArray:
        """The derivative of each row's loss with respect to its x, where y = answer(x); all (batch, classes)."""
        return loss_derivative(self.kind, y, t, self.constant)


class SoftmaxWithLoss(MeanLoss):
    """Softmax and the cross entropy −Σ t·log(y + 1e-7) of its answers y, averaged over the batch.

    `backward` is the exact derivative of that. The book's derivative, (y − t)/batch, ignores the 1e-7.

    Examples
    --------
    >>> import numpy as np, fastnet
    >>> layer = fastnet.layers.SoftmaxWithLoss()
    >>> round(layer.forward(np.array([[0.0, 0.0]]), np.array([0])), 4)
    0.6931
    >>> layer.backward().round(4)
    array([[-0.5,  0.5]])
    """

    kind = Loss.CROSS_ENTROPY

    def answer(self, x: FloatArray) -> FloatArray:
        """The probabilities softmax(x), shape (batch, classes)."""
        return active().softmax(x)

    def _derivative(self, y: FloatArray, t: FloatArray) -> FloatArray:
        return softmax_backward(y, super()._derivative(y, t))


class IdentityWithLoss(MeanLoss):
    """The answers y = x and their mean squared error ½·Σ(y − t)², averaged over the batch.

    Its targets are numbers of the shape of x, or of shape (batch,) for one output: there are no class labels.

    Examples
    --------
    >>> import numpy as np, fastnet
    >>> layer = fastnet.layers.IdentityWithLoss()
    >>> layer.forward(np.array([[0.0, 3.0]]), np.array([[0.0, 1.0]]))
    2.0
    >>> layer.backward()
    array([[0., 2.]])
    """

    kind = Loss.MEAN_SQUARED_ERROR
    regression = True


class BinaryCrossEntropyWithLogits(MeanLoss):
    """The answers y = x, which are logits, and the cross entropy of sigmoid(y) with targets from 0 to 1.

    It is Σ(softplus(y) − t·y) over the outputs, averaged over the batch. Its targets are of the shape of x, or of shape
    (batch,) for one output; integers 0 and 1 will do. ``fastnet.sigmoid(net.predict(x))`` are the probabilities.

    Examples
    --------
    >>> import numpy as np, fastnet
    >>> layer = fastnet.layers.BinaryCrossEntropyWithLogits()
    >>> round(layer.forward(np.array([[0.0]]), np.array([[1.0]])), 4)
    0.6931
    >>> layer.backward()
    array([[-0.5]])
    """

    kind = Loss.BINARY_CROSS_ENTROPY
    regression = True


class HuberLoss(MeanLoss):
    """The answers y = x, and ½·r² for errors r = y − t of at most δ, ``δ·(|r| − ½δ)`` beyond.

    It is summed over the outputs and averaged over the batch. Its targets are as those of `IdentityWithLoss`.

    Parameters
    ----------
    delta : float, default 1
        Positive.

    Examples
    --------
    >>> import numpy as np, fastnet
    >>> layer = fastnet.layers.HuberLoss()
    >>> layer.forward(np.array([[0.5, 3.0]]), np.array([[0.0, 0.0]]))
    2.625
    """

    kind = Loss.HUBER
    regression = True

    def __init__(self, delta: float = 1.0) -> None:
        self.constant = checks.as_positive(delta, "delta")

    @property
    def delta(self) -> float:
        return self.constant


class L1Loss(MeanLoss):
    """The answers y = x, and ``Σ|y − t|``, averaged over the batch.

    At y = t, where there is a kink, the derivative is 0.
    Its targets are as those of `IdentityWithLoss`.

    Examples
    --------
    >>> import numpy as np, fastnet
    >>> layer = fastnet.layers.L1Loss()
    >>> layer.forward(np.array([[1.0, 2.0]]), np.array([[0.0, 4.0]]))
    3.0
    """

    kind = Loss.ABSOLUTE_ERROR
    regression = True

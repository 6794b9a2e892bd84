"""`common/layers.py` of the book: layers with its names, arguments and attributes.

Each is the layer of fastnet, with what the book's has beside it. Nothing that is passed to `forward` or `backward` is
modified, unlike in the book, whose `Relu` changes `dout`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnet import layers
from fastnet._tools import checks
from fastnet._tools.types import FloatArray
from fastnet.book.common.functions import (
    as_targets,
    cross_entropy_error,
    identity_function,
    relu,
    relu_grad,
    sigmoid,
    sigmoid_grad,
    softmax,
    softmax_loss,
    step_function,
    sum_squared_error,
)
from fastnet.book.common.util import col2im, im2col

__all__ = [
    "Affine",
    "BatchNormalization",
    "Convolution",
    "Dropout",
    "Pooling",
    "Relu",
    "Sigmoid",
    "SoftmaxWithLoss",
    "col2im",
    "cross_entropy_error",
    "identity_function",
    "im2col",
    "np",
    "relu",
    "relu_grad",
    "sigmoid",
    "sigmoid_grad",
    "softmax",
    "softmax_loss",
    "step_function",
    "sum_squared_error",
]


class Relu(layers.ReLU):
    """max(x, 0). `fastnet.layers.ReLU`."""

    @property
    def mask(self) -> npt.NDArray[np.bool_] | None:
        """Where the last x was not positive; None before `forward`."""
        return None if self._saved is None else self._saved <= 0


class Sigmoid(layers.Sigmoid):
    """1 / (1 + exp(−x)). `fastnet.layers.Sigmoid`.

    Attributes
    ----------
    out : ndarray or None
        What the last `forward` gave.
    """

    out: FloatArray | None = None

    def forward(self, x: npt.ArrayLike) -> Any:
        """1 / (1 + exp(−x)) of each element."""
        self.out = super().forward(x)
        return self.out


class Affine(layers.Affine):
    """x·W + b, of images as well as of rows. `fastnet.layers.Affine`.

    Parameters
    ----------
    W : ndarray
        Shape (inputs, outputs), float32 or float64.
    b : ndarray
        Shape (outputs,), of the same dtype.

    Attributes
    ----------
    W, b, dW, db : ndarray
        The given arrays, and the gradients with respect to them from the last `backward`.
    x : ndarray or None
        The last x, shape (batch, inputs).
    original_x_shape : tuple of int or None
        The shape in which it was given.
    """

    original_x_shape: tuple[int, ...] | None = None

    def __init__(self, W: FloatArray, b: FloatArray) -> None:
        super().__init__(W, b)

    @property
    def x(self) -> FloatArray | None:
        saved: FloatArray | None = self._saved
        return saved

    def forward(self, x: npt.ArrayLike) -> FloatArray:
        """x·W + b, shape (batch, outputs), of `x` of shape (batch, …) with as many elements in each row as inputs."""
        given = checks.as_floating(x, "x")
        y = super().forward(as_rows(given))
        self.original_x_shape = given.shape
        return y

    def backward(self, dout: npt.ArrayLike) -> FloatArray:
        """The derivative with respect to `x`, in its shape, from `dout`, shape (batch, outputs)."""
        d = super().backward(dout)
        return d if self.original_x_shape is None else d.reshape(self.original_x_shape)


class SoftmaxWithLoss(layers.SoftmaxWithLoss):
    """Softmax and the cross entropy of its answers. `fastnet.layers.SoftmaxWithLoss`.

    Its `backward` is the derivative of −Σ t·log(y + 1e-7). The book's, (y − t)/batch, leaves out the 1e-7.
    """

    def forward(self, x: npt.ArrayLike, t: npt.ArrayLike) -> float:
        """The loss, averaged over the batch; labels may stand in a column, shape (batch, 1)."""
        return super().forward(x, as_targets(t))


class Dropout(layers.Layer):
    """Set elements to 0 at random in training, and multiply by 1 − dropout_ratio in inference.

    `fastnet.layers.Dropout` divides by 1 − dropout_ratio in training instead, and draws its masks from a seed of its
    own. Here they come from ``np.random.rand``, as in the book.

    Parameters
    ----------
    dropout_ratio : float, default 0.5
        The probability of a zero, from 0 to less than 1.

    Attributes
    ----------
    mask : ndarray or None
        Which elements the last `forward` in training kept.

    Raises
    ------
    TypeError, ValueError
        If the ratio is not a number, or out of range.
    """

    def __init__(self, dropout_ratio: float = 0.5) -> None:
        self.dropout_ratio = checks.as_fraction(dropout_ratio, "dropout_ratio")
        self.mask: npt.NDArray[np.bool_] | None = None

    def widths(self) -> layers.base.Widths:
        return "same"

    def forward(self, x: npt.ArrayLike, train_flg: bool = True) -> FloatArray:
        """`x` times a new mask in training, and times 1 − dropout_ratio in inference.

        Parameters
        ----------
        x : array_like
            Real numbers, any shape.
        train_flg : bool, default True
            Whether this is a training pass.

        Returns
        -------
        ndarray
            The shape of `x`; float32 or float64.
        """
        array, training = checks.as_floating(x, "x"), checks.as_flag(train_flg, "train_flg")
        if training:
            self.mask = self.draw_mask(array.shape)
        factor: Any = self.mask if training else array.dtype.type(1 - self.dropout_ratio)
        self._saved = array.shape, array.dtype, factor
        y: FloatArray = array * factor
        return y

    def draw_mask(self, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
        """A new mask of this shape: which elements are kept."""
        return np.random.rand(*shape) > self.dropout_ratio

    def backward(self, dout: npt.ArrayLike) -> FloatArray:
        """The derivative with respect to `x`: `dout` times what `forward` multiplied by."""
        shape, dtype, factor = self._last()
        dx: FloatArray = layers.base.as_gradient(dout, shape, dtype) * factor
        return dx


class BatchNormalization(layers.BatchNorm):
    """gamma·(x − mean) / √(var + 1e-6) + beta, each column with its own mean and variance. `fastnet.layers.BatchNorm`.

    The running statistics start at 0, as in the book, so that inference is of little use in the first iterations.
    Images, shape (batch, channels, height, width), are taken as rows: each pixel of each channel is a column.

    Parameters
    ----------
    gamma, beta : ndarray
        Shape (columns,), both float32 or both float64.
    momentum : float, default 0.9
        From 0 to 1.
    running_mean, running_var : ndarray, optional
        Where the running statistics start, shape (columns,); by default at 0.

    Attributes
    ----------
    gamma, beta, dgamma, dbeta : ndarray
        The given arrays, and the gradients with respect to them from the last `backward`.
    running_mean, running_var : ndarray
        Shape (columns,).
    input_shape : tuple of int or None
        The shape of the last x.
    batch_size : int or None
        The number of rows of the last `forward` in training.
    """

    input_shape: tuple[int, ...] | None = None
    batch_size: int | None = None

    def __init__(
        self,
        gamma: FloatArray,
        beta: FloatArray,
        momentum: float = 0.9,
        running_mean: FloatArray | None = None,
        running_var: FloatArray | None = None,
    ) -> None:
        start = np.zeros_like(checks.as_parameter(gamma, "gamma", 1))
        mean, var = (start if given is None else given for given in (running_mean, running_var))
        super().__init__(gamma, beta, momentum, mean, var)

    def forward(self, x: npt.ArrayLike, train_flg: bool = True) -> FloatArray:
        """Normalise each column, multiply by gamma and add beta.

        Parameters
        ----------
        x : array_like
            Shape (batch, columns), or (batch, channels, height, width) with as many elements in each row.
        train_flg : bool, default True
            Whether to use the statistics of this batch, and to update the running statistics.

        Returns
        -------
        ndarray
            The shape of `x`, in the dtype of `gamma`.
        """
        given = checks.as_floating(x, "x")
        y = super().forward(as_rows(given), train_flg)
        self.input_shape = given.shape
        if train_flg:
            self.batch_size = len(given)
        return y.reshape(given.shape)

    def backward(self, dout: npt.ArrayLike) -> FloatArray:
        """The derivative with respect to `x`, in its shape, from `dout`, in the same shape."""
        d = checks.as_floating(dout, "dout")
        return super().backward(as_rows(d) if d.ndim > 2 else d).reshape(d.shape)


class Convolution(layers.Convolution):
    """Filters that slide over images. `fastnet.layers.Convolution`.

    Parameters
    ----------
    W : ndarray
        Filters, shape (filters, channels, height, width), float32 or float64.
    b : ndarray or float
        Biases, shape (filters,), of the same dtype; or one number for all filters.
    stride : int, default 1
    pad : int, default 0

    Attributes
    ----------
    W, b, dW, db : ndarray
        The given arrays, and the gradients with respect to them from the last `backward`.
    x : ndarray or None
        The images of the last `forward`.
    """

    def __init__(self, W: FloatArray, b: FloatArray | float, stride: int = 1, pad: int = 0) -> None:
        if np.ndim(b) == 0:
            weight = checks.as_parameter(W, "W", 4)
            b = np.full(len(weight), checks.as_real(b, "b"), weight.dtype)
        super().__init__(W, np.asarray(b), stride, pad)

    @property
    def x(self) -> FloatArray | None:
        saved: FloatArray | None = self._saved
        return saved


class Pooling(layers.MaxPooling):
    """The largest element of each window. `fastnet.layers.MaxPooling`.

    Parameters
    ----------
    pool_h, pool_w : int
        The height and the width of the windows.
    stride : int, default 1
        From one window to the next. The usual choice is the size of the windows.
    pad : int, default 0
        How much is added on each side; it never wins.
    """


def as_rows(x: FloatArray) -> FloatArray:
    """`x` of shape (batch, …) as (batch, columns)."""
    return x.reshape(len(x), math.prod(x.shape[1:])) if x.ndim > 2 else x

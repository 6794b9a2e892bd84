"""The affine layer: a matrix product plus a bias."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastnet._tools import checks
from fastnet._tools.types import FloatArray
from fastnet.backends import active
from fastnet.layers.base import Layer, Widths, as_columns, as_gradient, entry, quietly


class Affine(Layer):
    """x·W + b.

    Parameters
    ----------
    W : ndarray
        Weights, shape (inputs, outputs), float32 or float64.
    b : ndarray, optional
        Biases, shape (outputs,), of the same dtype; without it, the layer is x·W.

    Attributes
    ----------
    W, b : ndarray
        ``params["W"]`` and ``params["b"]``: the given arrays, not copies.
    dW, db : ndarray or None
        The gradients with respect to `W` and `b` from the last `backward`.

    Raises
    ------
    TypeError
        If `W` or `b` is not an array of float32 or float64, or their dtypes differ.
    ValueError
        If the shapes do not match.

    Examples
    --------
    >>> import numpy as np, fastnet
    >>> layer = fastnet.layers.Affine(np.eye(2), np.array([1.0, 2.0]))
    >>> layer.forward(np.array([[3.0, 4.0]]))
    array([[4., 6.]])
    >>> layer.backward(np.array([[1.0, 1.0]]))
    array([[1., 1.]])
    """

    decayed = ("W",)
    W, b = entry("params", "W"), entry("params", "b")
    dW, db = entry("grads", "W"), entry("grads", "b")  # noqa: N815

    def __init__(self, W: FloatArray, b: FloatArray | None = None) -> None:
        self.params = {"W": checks.as_parameter(W, "W", 2)}
        if b is not None:
            self.params["b"] = checks.as_parameter(b, "b", 1)
            if b.shape != W.shape[1:]:
                raise ValueError(f"b must have shape ({W.shape[1]},) for W of shape {W.shape}, not {b.shape}")
            if b.dtype != W.dtype:
                raise TypeError(f"b is {b.dtype}, but W is {W.dtype}")

    def widths(self) -> Widths:
        inputs, outputs = self.params["W"].shape
        return inputs, outputs

    def forward(self, x: npt.ArrayLike) -> FloatArray:
        """x·W + b.

        Parameters
        ----------
        x : array_like
            Shape (batch, inputs).

        Returns
        -------
        ndarray
            Shape (batch, outputs), in the dtype of `W`.

        Raises
        ------
        ValueError
            If `x` has another shape.
        TypeError
            If `x` does not contain real numbers.
        """
        weight = checks.as_floating(self.W, "W")
        rows = as_columns(x, weight.shape[0], weight.dtype, f"weights of shape {weight.shape}")
        self._saved = rows
        products = active().matmul(rows, weight)
        return products if self.b is None else active().add_bias(products, checks.as_floating(self.b, "b"))

    @quietly
    def backward(self, dout: npt.ArrayLike) -> FloatArray:
        """The derivative with respect to `x`, shape (batch, inputs), from `dout`, shape (batch, outputs).

        The derivatives with respect to `W` and `b` are stored in `grads`.
        """
        rows = self._last()
        weight = checks.as_floating(self.W, "W")
        d = as_gradient(dout, (len(rows), weight.shape[1]), weight.dtype)
        self.grads = {"W": active().matmul(rows, d, transpose_a=True)}
        if self.b is not None:
            self.grads["b"] = d.sum(axis=0, dtype=np.float64).astype(d.dtype)
        return active().matmul(d, weight, transpose_b=True)

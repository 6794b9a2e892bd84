"""Layers with two inputs: the nodes of a computation graph of numbers or arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastnet._tools import checks
from fastnet._tools.types import FloatArray
from fastnet.layers.base import Layer, as_gradient, quietly


class _Binary(Layer):
    """A layer with two inputs: numbers, or arrays whose shapes broadcast."""

    def _operands(self, x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
        left, right = checks.as_floating(x, "x"), checks.as_floating(y, "y")
        if type(x) in (int, float):  # A Python number does not promote float32 to float64.
            left = left.astype(right.dtype)
        elif type(y) in (int, float):
            right = right.astype(left.dtype)
        try:
            np.broadcast_shapes(left.shape, right.shape)
        except ValueError as error:
            raise ValueError(f"x of shape {left.shape} and y of shape {right.shape} do not broadcast") from error
        self._saved = left, right
        return left, right

    def _gradients(self, dout: npt.ArrayLike, factors: tuple[Any, Any]) -> tuple[Any, Any]:
        """`dout` times the derivative with respect to each input, summed over the broadcast axes."""
        inputs = self._last()
        shape = np.broadcast_shapes(*(array.shape for array in inputs))
        d = as_gradient(dout, shape, np.result_type(*inputs))
        gradients = []
        for array, factor in zip(inputs, factors, strict=True):
            gradient = d * factor
            added = d.ndim - array.ndim
            axes = [axis for axis in range(d.ndim) if axis < added or array.shape[axis - added] != d.shape[axis]]
            gradients.append(gradient.sum(axis=tuple(axes)).reshape(array.shape).astype(array.dtype)[()])
        return gradients[0], gradients[1]


class Add(_Binary):
    """x + y.

    Examples
    --------
    >>> from fastnet.layers import Add
    >>> add = Add()
    >>> float(add.forward(200, 450))
    650.0
    >>> [float(d) for d in add.backward(1.1)]
    [1.1, 1.1]
    """

    @quietly
    def forward(self, x: npt.ArrayLike, y: npt.ArrayLike) -> Any:
        """The sum.

        Parameters
        ----------
        x, y : array_like
            Numbers, or arrays whose shapes broadcast.

        Returns
        -------
        ndarray or scalar
            float32 if one is a float32 array and the other a float32 array or a Python number; else float64.

        Raises
        ------
        ValueError
            If the shapes do not broadcast.
        TypeError
            If `x` or `y` does not contain real numbers.
        """
        left, right = self._operands(x, y)
        return left + right

    @quietly
    def backward(self, dout: npt.ArrayLike) -> tuple[Any, Any]:
        """The derivatives with respect to `x` and `y`, in their shapes and dtypes, from `dout`, that of the sum."""
        return self._gradients(dout, (1, 1))


class Mul(_Binary):
    """x · y.

    Examples
    --------
    Two apples of 100 yen, and a tax of 10 %:

    >>> from fastnet.layers import Mul
    >>> apples, tax = Mul(), Mul()
    >>> round(float(tax.forward(apples.forward(100, 2), 1.1)), 9)
    220.0
    >>> dprice, dtax = tax.backward(1)
    >>> [round(float(d), 9) for d in (*apples.backward(dprice), dtax)]
    [2.2, 110.0, 200.0]
    """

    @quietly
    def forward(self, x: npt.ArrayLike, y: npt.ArrayLike) -> Any:
        """The product; parameters, return value and exceptions are those of `Add`."""
        left, right = self._operands(x, y)
        return left * right

    @quietly
    def backward(self, dout: npt.ArrayLike) -> tuple[Any, Any]:
        """The derivatives with respect to `x` and `y`, in their shapes and dtypes, from `dout`, that of the product."""
        left, right = self._last()
        return self._gradients(dout, (right, left))

"""Dropout, with masks from a seed of its own or given ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastnet._tools import checks
from fastnet._tools.types import FloatArray
from fastnet.layers.base import Layer, Widths, as_gradient, quietly


class Dropout(Layer):
    """Set randomly chosen elements to 0 in training, with a new mask for each pass; do nothing in inference.

    In training, the other elements are divided by 1 − dropout_ratio ("inverted dropout"), so that the expected value
    is x, and inference returns x unchanged. The book does not scale in training, but multiplies by 1 − dropout_ratio in
    inference. In expectation both are the same network, up to a scale of the weights. The inverted form is now usual,
    and gives the loss and gradient the same scale in training as in inference.

    Mask number k depends on the seed and k alone: `state` holds the generator's key and k.

    Parameters
    ----------
    dropout_ratio : float, default 0.5
        The probability of a zero, from 0 to less than 1.
    seed : int, optional
        The same seed gives the same masks; by default they differ each time.

    Attributes
    ----------
    mask : ndarray or None
        The factors of the last `forward` in training, 0 or 1 / (1 − dropout_ratio); None after one in inference.

    Raises
    ------
    ValueError
        If the ratio or the seed is out of range.
    TypeError
        If the ratio is not a number, or the seed is not an integer.

    Examples
    --------
    >>> import numpy as np, fastnet
    >>> layer = fastnet.layers.Dropout(0.5, seed=0)
    >>> layer.forward(np.ones((1, 4)), train_flg=False)
    array([[1., 1., 1., 1.]])
    """

    def __init__(self, dropout_ratio: float = 0.5, seed: int | None = None) -> None:
        self.dropout_ratio = checks.as_fraction(dropout_ratio, "dropout_ratio")
        key = np.random.SeedSequence(checks.as_seed(seed)).generate_state(2, np.uint64)
        self.state = {"masks": np.array([*key, 0], dtype=np.uint64)}
        self.mask: FloatArray | None = None

    def widths(self) -> Widths:
        return "same"

    @quietly
    def forward(self, x: npt.ArrayLike, train_flg: bool = True) -> Any:
        """Multiply `x` by a new mask in training; return a copy of `x` in inference.

        Parameters
        ----------
        x : array_like
            Real numbers, any shape.
        train_flg : bool, default True
            Whether this is a training pass.

        Returns
        -------
        ndarray or scalar
            The shape of `x`; float32 or float64.

        Raises
        ------
        TypeError
            If `x` does not contain real numbers, or `train_flg` is not True or False.
        """
        array, training = checks.as_floating(x, "x"), checks.as_flag(train_flg, "train_flg")
        self._saved = array.shape, array.dtype
        self.mask = None
        if not training:
            return array.copy()[()]
        *key, number = self.state["masks"]
        # The number is the third of the counter's four words, so each mask has its own 2^128 blocks of random bits.
        generator = np.random.Generator(np.random.Philox(key=key, counter=[0, 0, int(number), 0]))
        kept = generator.random(array.shape) >= self.dropout_ratio
        self.mask = kept * array.dtype.type(1 / (1 - self.dropout_ratio))
        self.state["masks"] = np.array([*key, number + np.uint64(1)], dtype=np.uint64)
        return (array * self.mask)[()]

    @quietly
    def backward(self, dout: npt.ArrayLike) -> Any:
        """The derivative with respect to `x`, in its shape and dtype: `dout` times the mask."""
        d = as_gradient(dout, *self._last())
        return (d.copy() if self.mask is None else d * self.mask)[()]


class GivenMask(Layer):
    """Multiply by a mask that somebody else draws in training, and by one number in inference.

    `Network` computes it as a stage, as it does `Dropout`. It stands for dropout layers with random numbers from
    elsewhere, as the book's has them.

    Parameters
    ----------
    units : int
        The number of columns of x.

    Attributes
    ----------
    mask : ndarray
        The factors of the next passes in training, shape (batch, units); no rows as long as there is none.
    scale : float
        The factor in inference.
    """

    def __init__(self, units: int) -> None:
        self.units = units
        self.mask: FloatArray = np.empty((0, units))
        self.scale = 1.0

    def widths(self) -> Widths:
        return self.units, self.units

    @quietly
    def forward(self, x: npt.ArrayLike, train_flg: bool = True) -> Any:
        """Multiply `x`, shape (batch, units), by the mask in training, and by `scale` in inference."""
        array = checks.as_floating(x, "x")
        factor: Any = self.mask.astype(array.dtype) if train_flg else array.dtype.type(self.scale)
        if train_flg and self.mask.shape != array.shape:
            raise ValueError(f"the mask has shape {self.mask.shape} for x of shape {array.shape}")
        self._saved = array.shape, array.dtype, factor
        return array * factor

    @quietly
    def backward(self, dout: npt.ArrayLike) -> Any:
        """The derivative with respect to `x`, in its shape and dtype: `dout` times what `forward` multiplied by."""
        shape, dtype, factor = self._last()
        return as_gradient(dout, shape, dtype) * factor

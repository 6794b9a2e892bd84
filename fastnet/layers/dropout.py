"""Dropout."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastnet._tools import checks
from fastnet._tools.types import FloatArray
from fastnet.layers.base import Layer, as_gradient, quietly


class Dropout(Layer):
    """Zeros for a share of the numbers, drawn anew for each pass in training; nothing in inference.

    What is kept is divided by 1 − dropout_ratio in training ("inverted dropout"), so that the expected value is x and
    inference passes x on as it is. The book leaves training as it is and multiplies by 1 − dropout_ratio in inference.
    In expectation both are the same network, up to a scale of the weights; the inverted form is today's usual one,
    and loss and gradient in training have the scale of those in inference.

    Mask number k depends on the seed and k alone: `state` holds the generator's key and k.

    Parameters
    ----------
    dropout_ratio : float, default 0.5
        The probability of a zero, from 0 to less than 1.
    seed : int, optional
        For the same masks each time.

    Attributes
    ----------
    mask : ndarray or None
        What the last `forward` in training multiplied by: 0 or 1 / (1 − dropout_ratio); None after one in inference.

    Raises
    ------
    ValueError
        If the ratio or the seed is out of range.
    TypeError
        If either is no number.
    """

    def __init__(self, dropout_ratio: float = 0.5, seed: int | None = None) -> None:
        self.dropout_ratio = checks.as_ratio(dropout_ratio, "dropout_ratio")
        if self.dropout_ratio == 1:
            raise ValueError("dropout_ratio must be less than 1: with 1, nothing is left")
        key = np.random.SeedSequence(checks.as_seed(seed)).generate_state(2, np.uint64)
        self.state = {"masks": np.array([*key, 0], dtype=np.uint64)}
        self.mask: FloatArray | None = None

    @quietly
    def forward(self, x: npt.ArrayLike, train_flg: bool = True) -> Any:
        """A new mask times x; in inference x itself.

        Parameters
        ----------
        x : array_like
            Real numbers, any shape.
        train_flg : bool, default True
            Whether this is training.

        Returns
        -------
        ndarray or scalar
            The shape of `x`; float32 or float64.

        Raises
        ------
        TypeError
            If `x` does not hold real numbers.
        """
        array = checks.as_floating(x, "x")
        self._saved = array.shape, array.dtype
        self.mask = None
        if not train_flg:
            return array.copy()[()]
        *key, number = self.state["masks"]
        # The number as the third of four words: each mask has 2^128 blocks of random bits of its own.
        generator = np.random.Generator(np.random.Philox(key=key, counter=[0, 0, int(number), 0]))
        kept = generator.random(array.shape) >= self.dropout_ratio
        self.mask = kept * array.dtype.type(1 / (1 - self.dropout_ratio))
        self.state["masks"] = np.array([*key, number + np.uint64(1)], dtype=np.uint64)
        return (array * self.mask)[()]

    @quietly
    def backward(self, dout: npt.ArrayLike) -> Any:
        """The derivative by `x`, of its shape and dtype, from `dout`: times the mask."""
        d = as_gradient(dout, *self._last())
        return (d.copy() if self.mask is None else d * self.mask)[()]

"""The batch normalisation layer."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastnet._tools import checks
from fastnet._tools.types import FloatArray
from fastnet.layers.base import Layer, Widths, as_columns, as_gradient, entry, quietly

EPSILON = 1e-6  # The book's 10e-7, added to the variance so that a constant column is not divided by 0.


class BatchNorm(Layer):
    """gamma·(x − mean) / √(var + 1e-6) + beta, each column with its own mean and variance.

    Training uses the statistics of the batch, with the biased variance Σ(x − mean)²/batch. Each training pass updates
    the running statistics as the book does: running ← momentum·running + (1 − momentum)·batch, with the same biased
    variance (PyTorch uses the unbiased variance there, and calls 1 − momentum the momentum). Inference uses the running
    statistics, which start at mean 0 and variance 1. In training, the output for a batch of one row is beta.

    Means, variances and sums are computed in float64, even for float32 data.

    Parameters
    ----------
    gamma, beta : ndarray
        Shape (columns,), both float32 or both float64. The usual initial values are ones and zeros.
    momentum : float, default 0.9
        From 0 to 1.

    Attributes
    ----------
    gamma, beta : ndarray
        ``params["gamma"]`` and ``params["beta"]``: the given arrays, not copies.
    dgamma, dbeta : ndarray or None
        The gradients with respect to `gamma` and `beta` from the last `backward`.
    running_mean, running_var : ndarray
        ``state["running_mean"]`` and ``state["running_var"]``, shape (columns,).

    Raises
    ------
    TypeError
        If `gamma` or `beta` is not an array of float32 or float64, or their dtypes differ.
    ValueError
        If their shapes differ, or `momentum` is out of range.

    References
    ----------
    S. Ioffe, C. Szegedy, Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate
    Shift, 2015.
    """

    gamma, beta = entry("params", "gamma"), entry("params", "beta")
    dgamma, dbeta = entry("grads", "gamma"), entry("grads", "beta")
    running_mean, running_var = entry("state", "running_mean"), entry("state", "running_var")

    def __init__(self, gamma: FloatArray, beta: FloatArray, momentum: float = 0.9) -> None:
        self.params = {"gamma": checks.as_parameter(gamma, "gamma", 1), "beta": checks.as_parameter(beta, "beta", 1)}
        if beta.shape != gamma.shape:
            raise ValueError(f"beta must have the shape of gamma, {gamma.shape}, not {beta.shape}")
        if beta.dtype != gamma.dtype:
            raise TypeError(f"beta is {beta.dtype}, but gamma is {gamma.dtype}")
        self.momentum = checks.as_ratio(momentum, "momentum")
        dtype = checks.native(gamma)
        self.state = {"running_mean": np.zeros(len(gamma), dtype), "running_var": np.ones(len(gamma), dtype)}

    def widths(self) -> Widths:
        columns = len(self.params["gamma"])
        return columns, columns

    @quietly
    def forward(self, x: npt.ArrayLike, train_flg: bool = True) -> FloatArray:
        """Normalise each column, multiply by gamma and add beta.

        Parameters
        ----------
        x : array_like
            Shape (batch, columns).
        train_flg : bool, default True
            Whether to use the statistics of this batch, and to update the running statistics.

        Returns
        -------
        ndarray
            The shape of `x`, in the dtype of `gamma`.

        Raises
        ------
        ValueError
            If `x` has another shape, or the batch is empty.
        TypeError
            If `x` does not contain real numbers, or `train_flg` is not True or False.
        """
        gamma, training = checks.as_floating(self.gamma, "gamma"), checks.as_flag(train_flg, "train_flg")
        rows = as_columns(x, len(gamma), gamma.dtype, f"BatchNorm of {len(gamma)}")
        if len(rows) == 0:
            raise ValueError(f"x of shape {rows.shape} is an empty batch")
        if training:
            mean = rows.mean(axis=0, dtype=np.float64)
            centred = rows - mean
            variance = np.square(centred).mean(axis=0)
            for name, new in (("running_mean", mean), ("running_var", variance)):
                mixed = self.momentum * self.state[name].astype(np.float64) + (1 - self.momentum) * new
                self.state[name] = mixed.astype(gamma.dtype)
        else:
            centred = rows - self.running_mean.astype(np.float64)
            variance = self.running_var.astype(np.float64)
        deviation = np.sqrt(variance + EPSILON)
        normal = centred / deviation
        self._saved = normal, deviation, training
        out: FloatArray = (gamma * normal + self.beta).astype(gamma.dtype)
        return out

    @quietly
    def backward(self, dout: npt.ArrayLike) -> FloatArray:
        """The derivative with respect to `x` from `dout`, both of shape (batch, columns).

        The derivatives with respect to `gamma` and `beta` are stored in `grads`. Mean and variance count as functions
        of `x` after a `forward` in training, and as constants after a `forward` in inference.
        """
        normal, deviation, training = self._last()
        dtype = checks.native(self.gamma)
        d = as_gradient(dout, normal.shape, dtype)
        dgamma, dbeta = (d * normal).sum(axis=0), d.sum(axis=0, dtype=np.float64)
        self.grads = {"gamma": dgamma.astype(dtype), "beta": dbeta.astype(dtype)}
        through = d - (dbeta + normal * dgamma) / len(d) if training else d
        dx: FloatArray = (self.gamma / deviation * through).astype(dtype)
        return dx

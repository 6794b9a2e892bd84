"""Batch normalisation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastnet._tools import checks
from fastnet._tools.types import FloatArray
from fastnet.layers.base import Layer, as_columns, as_gradient, entry, quietly

BATCH_NORM_EPSILON = 1e-6  # the book's 10e-7: under the root, so that a column without variance has a quotient


class BatchNorm(Layer):
    """gamma·(x − mean) / √(var + 1e-6) + beta, each column with its own mean and variance.

    In training these are the batch's, the variance the biased one, Σ(x − mean)²/batch. Each pass in training mixes
    them into the running ones, as the book does: running ← momentum·running + (1 − momentum)·batch, with that same
    biased variance (PyTorch takes the unbiased one there, and calls 1 − momentum the momentum). Inference takes the
    running ones, which start at mean 0 and variance 1. In training, a batch of one row becomes beta.

    Means, variances and sums are computed in float64, also for float32.

    Parameters
    ----------
    gamma, beta : ndarray
        Shape (columns,), both float32 or both float64; ones and zeros to begin with.
    momentum : float, default 0.9
        From 0 to 1.

    Attributes
    ----------
    gamma, beta : ndarray
        ``params["gamma"]`` and ``params["beta"]``: the arrays that were given, not copies.
    dgamma, dbeta : ndarray or None
        The gradient by them, of the last `backward`.
    running_mean, running_var : ndarray
        ``state["running_mean"]`` and ``state["running_var"]``, shape (columns,).

    Raises
    ------
    TypeError
        If `gamma` or `beta` is no array of float32 or float64, or they differ in dtype.
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

    @quietly
    def forward(self, x: npt.ArrayLike, train_flg: bool = True) -> FloatArray:
        """Each column normalised, times gamma, plus beta.

        Parameters
        ----------
        x : array_like
            Shape (batch, columns).
        train_flg : bool, default True
            Whether to take, and to keep, the statistics of this batch.

        Returns
        -------
        ndarray
            The shape of `x`, in the dtype of `gamma`.

        Raises
        ------
        ValueError
            If the shape is another one, or the batch is empty.
        TypeError
            If `x` does not hold real numbers.
        """
        gamma = checks.as_floating(self.gamma, "gamma")
        rows = as_columns(x, len(gamma), gamma.dtype, f"BatchNorm of {len(gamma)}")
        if len(rows) == 0:
            raise ValueError(f"x of shape {rows.shape} is an empty batch")
        if train_flg:
            mean = rows.mean(axis=0, dtype=np.float64)
            centred = rows - mean
            variance = np.square(centred).mean(axis=0)
            for name, new in (("running_mean", mean), ("running_var", variance)):
                mixed = self.momentum * self.state[name].astype(np.float64) + (1 - self.momentum) * new
                self.state[name] = mixed.astype(gamma.dtype)
        else:
            centred = rows - self.running_mean.astype(np.float64)
            variance = self.running_var.astype(np.float64)
        deviation = np.sqrt(variance + BATCH_NORM_EPSILON)
        normal = centred / deviation
        self._saved = normal, deviation, bool(train_flg)
        out: FloatArray = (gamma * normal + self.beta).astype(gamma.dtype)
        return out

    @quietly
    def backward(self, dout: npt.ArrayLike) -> FloatArray:
        """The derivative by `x` from `dout`, both of shape (batch, columns).

        Those by `gamma` and `beta` are in `grads`. After a `forward` in training, mean and variance are functions of
        `x`; after one in inference, constants.
        """
        normal, deviation, training = self._last()
        dtype = checks.native(self.gamma)
        d = as_gradient(dout, normal.shape, dtype)
        dgamma, dbeta = (d * normal).sum(axis=0), d.sum(axis=0, dtype=np.float64)
        self.grads = {"gamma": dgamma.astype(dtype), "beta": dbeta.astype(dtype)}
        through = d - (dbeta + normal * dgamma) / len(d) if training else d
        dx: FloatArray = (self.gamma / deviation * through).astype(dtype)
        return dx

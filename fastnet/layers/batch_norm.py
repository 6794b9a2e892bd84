"""The batch normalisation layer."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastnet._tools import checks
from fastnet._tools.types import FloatArray
from fastnet.layers.base import Layer, Widths, as_gradient, entry, quietly

EPSILON = 1e-6  # The book's 10e-7, added to the variance so that a constant column is not divided by 0.


class BatchNorm(Layer):
    """gamma·(x − mean) / √(var + 1e-6) + beta, each column, or each channel of images, with its own mean and variance.

    Training uses the statistics of the batch, with the biased variance Σ(x − mean)²/n over all n numbers of the column
    or channel. Inference uses the running statistics, which are averages of those of all training passes so far. The
    n-th pass moves them by w·(batch − running), with w = (1 − momentum) / (1 − momentum^n): the later a pass, the more
    it counts, and the weights of all passes sum to 1, as for the moments of Adam. So they serve from the first pass on.
    Before it, they are mean 0 and variance 1. With momentum 1, w is 1/n, and all passes count the same. (The book's
    running statistics start at 0, and PyTorch's at mean 0 and variance 1; w is 1 − momentum there, which PyTorch calls
    the momentum, and PyTorch's variance is the unbiased one.)

    In training, the output for a single row is beta. Means, variances and sums are computed in float64, even for
    float32 data.

    Parameters
    ----------
    gamma, beta : ndarray
        Shape (columns,), or (channels,) for images, both float32 or both float64. The usual initial values are ones and
        zeros.
    momentum : float, default 0.9
        From 0 to 1.
    running_mean, running_var : array_like, optional
        Running statistics to go on from, of the shape of `gamma`; both or neither. Then w is 1 − momentum in every
        pass. They are copied.

    Attributes
    ----------
    gamma, beta : ndarray
        ``params["gamma"]`` and ``params["beta"]``: the given arrays, not copies.
    dgamma, dbeta : ndarray or None
        The gradients with respect to `gamma` and `beta` from the last `backward`.
    running_mean, running_var : ndarray
        ``state["running_mean"]`` and ``state["running_var"]``, of the shape of `gamma`.
    passes : ndarray of int64 or None
        ``state["passes"]``, shape (1,): how many training passes there were; None if running statistics were given.

    Raises
    ------
    TypeError
        If `gamma` or `beta` is not an array of float32 or float64, their dtypes differ, or the running statistics are
        not real numbers.
    ValueError
        If shapes differ, `momentum` is out of range, only one of the running statistics is given, or `running_var` is
        negative somewhere.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnet.layers import BatchNorm
    >>> norm = BatchNorm(np.ones(2), np.zeros(2))
    >>> y = norm.forward([[1.0, 10.0], [3.0, 30.0]])
    >>> norm.running_mean, norm.running_var
    (array([ 2., 20.]), array([  1., 100.]))

    References
    ----------
    S. Ioffe, C. Szegedy, Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate
    Shift, 2015.
    """

    gamma, beta = entry("params", "gamma"), entry("params", "beta")
    dgamma, dbeta = entry("grads", "gamma"), entry("grads", "beta")
    running_mean, running_var = entry("state", "running_mean"), entry("state", "running_var")
    passes = entry("state", "passes")

    def __init__(
        self,
        gamma: FloatArray,
        beta: FloatArray,
        momentum: float = 0.9,
        running_mean: npt.ArrayLike | None = None,
        running_var: npt.ArrayLike | None = None,
    ) -> None:
        self.params = {"gamma": checks.as_parameter(gamma, "gamma", 1), "beta": checks.as_parameter(beta, "beta", 1)}
        if beta.shape != gamma.shape:
            raise ValueError(f"beta must have the shape of gamma, {gamma.shape}, not {beta.shape}")
        if beta.dtype != gamma.dtype:
            raise TypeError(f"beta is {beta.dtype}, but gamma is {gamma.dtype}")
        self.momentum = checks.as_ratio(momentum, "momentum")
        dtype = checks.native(gamma)
        if running_mean is None and running_var is None:
            mean, variance = np.zeros(len(gamma), dtype), np.ones(len(gamma), dtype)
            self.state = {"running_mean": mean, "running_var": variance, "passes": np.zeros(1, np.int64)}
        elif running_mean is None or running_var is None:
            given, missing = ("mean", "var") if running_var is None else ("var", "mean")
            raise ValueError(f"running_{given} is given, but running_{missing} is not: give both or neither")
        else:
            mean = _as_statistic(running_mean, "running_mean", gamma)
            variance = _as_statistic(running_var, "running_var", gamma)
            if np.any(variance < 0):
                raise ValueError(f"running_var has a negative number, {variance[variance < 0][0]:g}")
            self.state = {"running_mean": mean, "running_var": variance}

    def widths(self) -> Widths:
        columns = len(self.params["gamma"])
        return columns, columns

    @quietly
    def forward(self, x: npt.ArrayLike, train_flg: bool = True) -> FloatArray:
        """Normalise each column or channel, multiply by gamma and add beta.

        Parameters
        ----------
        x : array_like
            Rows, shape (batch, columns), or images, shape (batch, channels, height, width).
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
        array = _as_rows_or_images(x, gamma)
        others = _others(array)
        if training:
            mean = array.mean(axis=others, dtype=np.float64)
            centred = array - _beside(mean, array)
            variance = np.square(centred).mean(axis=others)
            self._update(mean, variance)
        else:
            centred = array - _beside(self.running_mean.astype(np.float64), array)
            variance = self.running_var.astype(np.float64)
        deviation = np.sqrt(variance + EPSILON)
        normal = centred / _beside(deviation, array)
        self._saved = normal, deviation, training
        out: FloatArray = (_beside(gamma, array) * normal + _beside(self.beta, array)).astype(gamma.dtype)
        return out

    def _update(self, mean: FloatArray, variance: FloatArray) -> None:
        """Move the running statistics towards those of a batch."""
        weight = 1 - self.momentum
        if self.passes is not None:
            passes = int(self.passes[0]) + 1
            weight = 1 / passes if self.momentum == 1 else weight / (1 - self.momentum**passes)
            self.passes = np.array([passes], np.int64)
        for name, new in (("running_mean", mean), ("running_var", variance)):
            running = self.state[name].astype(np.float64)
            self.state[name] = (running + weight * (new - running)).astype(checks.native(self.gamma))

    @quietly
    def backward(self, dout: npt.ArrayLike) -> FloatArray:
        """The derivative with respect to `x` from `dout`, both of the shape of the output.

        The derivatives with respect to `gamma` and `beta` are stored in `grads`. Mean and variance count as functions
        of `x` after a `forward` in training, and as constants after a `forward` in inference.
        """
        normal, deviation, training = self._last()
        dtype = checks.native(self.gamma)
        d = as_gradient(dout, normal.shape, dtype)
        others = _others(d)
        dgamma, dbeta = (d * normal).sum(axis=others), d.sum(axis=others, dtype=np.float64)
        self.grads = {"gamma": dgamma.astype(dtype), "beta": dbeta.astype(dtype)}
        if training:
            numbers = d.size // len(dbeta)  # in each column or channel
            through = d - (_beside(dbeta, d) + normal * _beside(dgamma, d)) / numbers
        else:
            through = d
        dx: FloatArray = (_beside(self.gamma / deviation, d) * through).astype(dtype)
        return dx


def _as_statistic(value: npt.ArrayLike, name: str, gamma: FloatArray) -> FloatArray:
    """A copy of `value`, which must have the shape of `gamma`, in its dtype."""
    array = checks.as_floating(value, name, checks.native(gamma))
    if array.shape != gamma.shape:
        raise ValueError(f"{name} must have the shape of gamma, {gamma.shape}, not {array.shape}")
    return array.copy()


def _as_rows_or_images(x: npt.ArrayLike, gamma: FloatArray) -> FloatArray:
    """`x` as an array of shape (batch, columns) or (batch, channels, height, width), none of which is 0."""
    array, columns = checks.as_floating(x, "x", checks.native(gamma)), len(gamma)
    if array.ndim not in (2, 4):
        raise ValueError(
            f"x must have shape (batch, {columns}) or (batch, {columns}, height, width), not {array.shape}"
        )
    if array.shape[1] != columns:
        kind = "columns" if array.ndim == 2 else "channel(s)"
        raise ValueError(f"x has {array.shape[1]} {kind} for BatchNorm of {columns}")
    if array.size == 0:
        raise ValueError(f"x of shape {array.shape} is an empty batch")
    return array


def _others(array: FloatArray) -> tuple[int, ...]:
    """All dimensions but that of the columns or channels."""
    return (0, *range(2, array.ndim))


def _beside(statistic: FloatArray, array: FloatArray) -> FloatArray:
    """`statistic`, shape (columns,), as an array that broadcasts along the columns or channels of `array`."""
    beside: FloatArray = statistic.reshape(-1, *(1 for _ in array.shape[2:]))
    return beside

"""The base of all networks: their methods, whatever a network is made of and however it is computed."""

from __future__ import annotations

import abc
import functools
import os
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnet._tools import checks
from fastnet._tools.types import FloatArray, IntArray
from fastnet.backends.spec import Diagnostics
from fastnet.saving import check_fits, load_arrays, save_arrays

ALGORITHMS = ("auto", "nodal", "incremental", "loop")
KIND = "parameters of a network of fastnet"  # what the file format calls such a file


class NumericalGradient(dict[str, FloatArray]):
    """A gradient by central differences: an array for each parameter's name.

    Attributes
    ----------
    diagnostics : Diagnostics
        The `loss` at the unchanged parameters, the number of `evaluations`, the number of `fallbacks` from ``"nodal"``
        to ``"incremental"``, the number of `kinks` among these, and which units met a kink.
    """

    def __init__(self, gradients: dict[str, FloatArray], diagnostics: Diagnostics) -> None:
        super().__init__(gradients)
        self.diagnostics = diagnostics


class Computation(abc.ABC):
    """How a network computes, after its parameters were checked: as a chain, or layer by layer.

    `batch` checks a batch; the other methods take what it gives: rows (batch, …) of `dtype`, and targets that fit.
    """

    @property
    @abc.abstractmethod
    def dtype(self) -> np.dtype[np.floating[Any]]: ...
    @abc.abstractmethod
    def rows(self, x: npt.ArrayLike) -> FloatArray: ...
    @abc.abstractmethod
    def classes(self, rows: FloatArray) -> int: ...
    @abc.abstractmethod
    def forward(self, rows: FloatArray) -> FloatArray: ...
    @abc.abstractmethod
    def loss(self, rows: FloatArray, t: FloatArray | IntArray) -> float: ...
    @abc.abstractmethod
    def training_loss(self, rows: FloatArray, t: FloatArray | IntArray) -> float: ...
    @abc.abstractmethod
    def loss_and_gradient(self, rows: FloatArray, t: FloatArray | IntArray) -> tuple[float, dict[str, FloatArray]]: ...
    @abc.abstractmethod
    def numerical_gradient(
        self, rows: FloatArray, t: FloatArray | IntArray, h: float, algorithm: str
    ) -> NumericalGradient: ...

    def batch(self, x: npt.ArrayLike, t: npt.ArrayLike) -> tuple[FloatArray, FloatArray | IntArray]:
        """`x` and `t`, checked and converted to what the other methods take."""
        rows = self.rows(x)
        return rows, checks.as_targets(t, len(rows), self.classes(rows), self.dtype, single=np.ndim(x) == 1)

    def predict(self, x: npt.ArrayLike) -> FloatArray:
        """The answers to `x`: one answer if `x` is one row."""
        y = self.forward(self.rows(x))
        return y[0] if np.ndim(x) == 1 else y


class BaseNetwork:
    """What all networks have in common.

    `predict`, `loss` and `accuracy` are inference. `training_loss`, `gradient`, `loss_and_gradient` and
    `numerical_gradient` are training, where Dropout and BatchNorm behave differently.

    Attributes
    ----------
    params : dict of str to ndarray
        The parameters by name, float32 or float64. Update them in place or put new arrays of the same shapes.
    """

    params: dict[str, FloatArray]

    @functools.cached_property
    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Arrays that are not trained but kept between training passes, by name. Most networks have none."""
        return {}

    def _computation(self) -> Computation:
        """Return how the network computes with its present parameters; raise if some are missing or do not fit."""
        raise NotImplementedError

    def predict(self, x: npt.ArrayLike) -> FloatArray:
        """The network's answers, in inference mode.

        Parameters
        ----------
        x : array_like
            Shape (batch, inputs), or (inputs,) for one row.

        Returns
        -------
        ndarray
            Shape (batch, classes) or (classes,), in the dtype of the parameters.

        Raises
        ------
        ValueError
            If the shapes do not fit or the batch is empty.
        TypeError
            If `x` or a parameter does not hold real numbers.
        """
        return self._computation().predict(x)

    def loss(self, x: npt.ArrayLike, t: npt.ArrayLike) -> float:
        """The loss, averaged over the batch, in inference mode.

        Parameters
        ----------
        x : array_like
            Shape (batch, inputs), or (inputs,) for one row.
        t : array_like
            Integer labels, shape (batch,), or one-hot rows or probabilities, shape (batch, classes); for one row, one
            label or shape (classes,).

        Returns
        -------
        float

        Raises
        ------
        ValueError
            If the shapes do not fit, a label is out of range, or the batch is empty.
        TypeError
            If labels are not integers, or `x`, `t` or a parameter does not hold real numbers.
        """
        computation = self._computation()
        return computation.loss(*computation.batch(x, t))

    def accuracy(self, x: npt.ArrayLike, t: npt.ArrayLike, batch_size: int | None = None) -> float:
        """The share of rows whose likeliest class is that of the target, in inference mode.

        Parameters
        ----------
        x : array_like
            Shape (batch, inputs).
        t : array_like
            Integer labels, shape (batch,), or one-hot rows or probabilities, shape (batch, classes).
        batch_size : int, optional
            Rows to pass through the network at a time; all by default. The result does not depend on it.

        Returns
        -------
        float
            From 0 to 1.

        Raises
        ------
        ValueError, TypeError
            As `loss`; also if `batch_size` is not a positive integer.
        """
        computation = self._computation()
        rows, targets = computation.batch(x, t)
        size = len(rows) if batch_size is None else checks.as_count(batch_size, "batch_size")
        labels = targets if targets.ndim == 1 else targets.argmax(axis=1)
        correct = 0
        for first in range(0, len(rows), size):
            y = computation.forward(rows[first : first + size])
            correct += int(np.count_nonzero(y.argmax(axis=1) == labels[first : first + size]))
        return correct / len(rows)

    def training_loss(self, x: npt.ArrayLike, t: npt.ArrayLike) -> float:
        """The loss as `gradient` takes it, with no gradient: a pass in training.

        It differs from `loss` with Dropout, which draws new masks, and with BatchNorm, which takes the statistics of
        this batch and mixes them into the running ones. `numerical_gradient` does neither, so to train with it alone,
        call this before it, at each step.

        Parameters
        ----------
        x, t : array_like
            As for `loss`.

        Returns
        -------
        float

        Raises
        ------
        ValueError, TypeError
            As `loss`.
        """
        computation = self._computation()
        return computation.training_loss(*computation.batch(x, t))

    def gradient(self, x: npt.ArrayLike, t: npt.ArrayLike) -> dict[str, FloatArray]:
        """The gradient of the loss with respect to every parameter, by backprop, in training mode.

        Parameters
        ----------
        x, t : array_like
            As for `loss`.

        Returns
        -------
        dict of str to ndarray
            The names, shapes and dtype of `params`.

        Raises
        ------
        ValueError, TypeError
            As `loss`.
        """
        return self.loss_and_gradient(x, t)[1]

    def loss_and_gradient(self, x: npt.ArrayLike, t: npt.ArrayLike) -> tuple[float, dict[str, FloatArray]]:
        """The loss and its `gradient`, for little more than the cost of `gradient` alone, in training mode.

        Parameters
        ----------
        x, t : array_like
            As for `loss`.

        Returns
        -------
        loss : float
        gradient : dict of str to ndarray
            The names, shapes and dtype of `params`.

        Raises
        ------
        ValueError, TypeError
            As `loss`.
        """
        computation = self._computation()
        return computation.loss_and_gradient(*computation.batch(x, t))

    def numerical_gradient(
        self, x: npt.ArrayLike, t: npt.ArrayLike, h: float = 1e-4, algorithm: str = "auto"
    ) -> NumericalGradient:
        """The gradient of the loss in training mode with respect to every parameter, by central differences.

        It changes nothing. In a network with Dropout or BatchNorm it repeats the last training pass: it uses the same
        masks and leaves the running statistics alone. So it differentiates the function that `gradient` did last.

        Parameters
        ----------
        x, t : array_like
            As for `loss`.
        h : float, default 1e-4
            The step.
        algorithm : {"auto", "nodal", "incremental", "loop"}
            All give the same numbers up to rounding. ``"loop"`` runs the network twice for each parameter, as the
            textbook does; its subtraction of two losses leaves a rounding error of about 1e-16/h (1e-7/h in float32).
            ``"incremental"`` carries each perturbation to the loss as an exact difference: nothing cancels, and what
            a perturbation does not affect is not computed again. ``"nodal"`` evaluates a few moves of each unit and
            derives the entries of all weights into the unit from them, to rounding; where that is not possible it
            uses ``"incremental"``. ``"auto"`` takes the fastest algorithm of the backend. Networks with layers other
            than affine ones and activations have ``"auto"`` and ``"loop"``.

        Returns
        -------
        NumericalGradient
            A dict of (loss(θ + h) − loss(θ − h)) / 2h for each parameter θ: the names, shapes and dtype of `params`.
            Its `diagnostics` say how many evaluations it took and which units met a kink.

        Raises
        ------
        ValueError, TypeError
            As `loss`; also if `h` is not positive and finite, or the algorithm is unknown, or not one of the backend's
            or the network's.
        """
        checks.as_positive(h, "h")
        checks.as_choice(algorithm, "algorithm", ALGORITHMS)
        computation = self._computation()
        step = checks.as_step(h, computation.dtype)
        return computation.numerical_gradient(*computation.batch(x, t), step, algorithm)

    def save_params(self, path: str | os.PathLike[str]) -> None:
        """Write `params` and `state` to a file.

        The file is an ``.npz`` without pickle. It is written beside `path` and replaces it when it is complete.

        Parameters
        ----------
        path : path-like

        Raises
        ------
        OSError
            If the file can't be written. A file that was there before is unchanged.
        ValueError, TypeError
            If parameters are missing or do not fit.
        """
        self._computation()  # raises rather than write a file that could not be loaded
        arrays = {f"params/{name}": array for name, array in self.params.items()}
        arrays |= {f"state/{name}": array for name, array in self.state.items()}
        save_arrays(path, arrays, {"kind": KIND})

    def load_params(self, path: str | os.PathLike[str]) -> None:
        """Replace `params` and `state` by those of a file that `save_params` wrote.

        Each array must have the name and the shape of a present one, whose dtype is kept: a float32 file can be loaded
        into a float64 network, but not the reverse. Either everything is loaded or nothing.

        Parameters
        ----------
        path : path-like

        Raises
        ------
        OSError
            If the file can't be read: FileNotFoundError if it does not exist.
        ValueError
            If it is damaged, was not written by `save_params`, or its names, shapes or dtypes do not fit; it names
            `path`.
        """
        self._computation()
        found, about = load_arrays(path)
        if about.get("kind") != KIND:
            raise ValueError(f"{os.fspath(path)} does not hold {KIND}, but {about.get('kind')!r}")
        groups: dict[str, dict[str, npt.NDArray[Any]]] = {"params/": self.params, "state/": self.state}
        expected = {prefix + name: array for prefix, group in groups.items() for name, array in group.items()}
        check_fits(found, expected, path)
        for key, array in expected.items():
            found[key] = found[key].astype(array.dtype.newbyteorder("="), order="C")
        for prefix, group in groups.items():
            group.update({name: found[prefix + name] for name in group})

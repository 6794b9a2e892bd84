"""What all networks have in common: how they are asked, whatever they are made of and however they are computed."""

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
KIND = "parameters of a network of fastnet"  # what a file of them says it is


class NumericalGradient(dict[str, FloatArray]):
    """A gradient by central differences: an array for each parameter's name.

    Attributes
    ----------
    diagnostics : Diagnostics
        The `loss` at the parameters themselves, how many `evaluations` it took, how many `fallbacks` of ``"nodal"`` to
        ``"incremental"`` there were, how many of these were `kinks`, and which units met one.
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

    `predict`, `loss` and `accuracy` are inference, `training_loss`, `gradient`, `loss_and_gradient` and
    `numerical_gradient` training: a network with Dropout or BatchNorm computes something else in these.

    Attributes
    ----------
    params : dict of str to ndarray
        The parameters by name, float32 or float64. Update them in place or put new arrays of the same shapes.
    """

    params: dict[str, FloatArray]

    @functools.cached_property
    def state(self) -> dict[str, npt.NDArray[Any]]:
        """What is not trained, but kept from one pass in training to the next, by name. Most networks have none."""
        return {}

    def _computation(self) -> Computation:
        """Return how the network computes with its present parameters; raise if some are missing or do not fit."""
        raise NotImplementedError

    def predict(self, x: npt.ArrayLike) -> FloatArray:
        """The network's answers, as in inference.

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
        """The loss, averaged over the batch, as in inference.

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
        """The share of rows whose likeliest class is the target's, as in inference.

        Parameters
        ----------
        x : array_like
            Shape (batch, inputs).
        t : array_like
            Integer labels, shape (batch,), or one-hot rows or probabilities, shape (batch, classes).
        batch_size : int, optional
            How many rows to pass through the network at a time; all by default. The result is the same.

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
        """The gradient of the loss by every parameter, by backprop: a pass in training.

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
        """The loss and its `gradient` together, for little more than `gradient` alone: a pass in training.

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
        """The gradient of the loss by every parameter, by central differences of the loss in training.

        It changes nothing: of a network with Dropout or BatchNorm it repeats the last pass in training, with its masks
        and without a change of the running statistics. It is a gradient of the function that `gradient` took last.

        Parameters
        ----------
        x, t : array_like
            As for `loss`.
        h : float, default 1e-4
            The step.
        algorithm : {"auto", "nodal", "incremental", "loop"}
            All give the same numbers, but for rounding. ``"loop"`` runs the network twice for each parameter, as the
            textbook does; its subtraction of two losses leaves about 1e-16/h of rounding error (1e-7/h in float32).
            ``"incremental"`` carries each perturbation to the loss as an exact difference: nothing cancels, and what
            a perturbation does not touch is not computed again. ``"nodal"`` evaluates a few moves of each unit, from
            which all weights into it follow to rounding, and leaves to ``"incremental"`` what does not.
            ``"auto"`` takes the fastest that the backend has. Networks with other layers than affine ones and
            activations have ``"auto"`` and ``"loop"``.

        Returns
        -------
        NumericalGradient
            A dict of (loss(θ + h) − loss(θ − h)) / 2h for each parameter θ: the names, shapes and dtype of `params`.
            Its `diagnostics` tell how many evaluations it took and which units met a kink.

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

        The file is an ``.npz`` without pickle. It is written beside `path` and takes its place when it is complete.

        Parameters
        ----------
        path : path-like

        Raises
        ------
        OSError
            If it can't be written: what was there before is there still.
        ValueError, TypeError
            If parameters are missing or do not fit.
        """
        self._computation()  # a file that could not be loaded is not written
        arrays = {f"params/{name}": array for name, array in self.params.items()}
        arrays |= {f"state/{name}": array for name, array in self.state.items()}
        save_arrays(path, arrays, {"kind": KIND})

    def load_params(self, path: str | os.PathLike[str]) -> None:
        """Put the `params` and the `state` of a file of `save_params` in the place of the present ones.

        Each must have the name and the shape of a present one, whose dtype is kept: a file of float32 can be loaded
        into a network of float64, not the other way round. Either all is loaded or nothing.

        Parameters
        ----------
        path : path-like

        Raises
        ------
        OSError
            If the file can't be read: FileNotFoundError if there is none.
        ValueError
            If it is damaged, was not written by `save_params`, or its names, shapes or dtypes do not fit; it names
            `path`.
        """
        self._computation()
        found, about = load_arrays(path)
        if about.get("kind") != KIND:
            raise ValueError(f"{os.fspath(path)} has no {KIND}, but {about.get('kind')!r}")
        groups: dict[str, dict[str, npt.NDArray[Any]]] = {"params/": self.params, "state/": self.state}
        expected = {prefix + name: array for prefix, group in groups.items() for name, array in group.items()}
        check_fits(found, expected, path)
        for key, array in expected.items():
            found[key] = found[key].astype(array.dtype.newbyteorder("="), order="C")
        for prefix, group in groups.items():
            group.update({name: found[prefix + name] for name in group})

"""The base of all networks: their methods, whatever a network is made of and however it is computed."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnet._tools import checks
from fastnet._tools.types import FloatArray
from fastnet.backends.spec import Diagnostics
from fastnet.differentiation import numerical_gradient
from fastnet.networks.computation import Computation, NumericalGradient
from fastnet.networks.overriding import FUNCTION, overridden
from fastnet.networks.second_order import SecondOrder
from fastnet.saving import check_fits, load_arrays, save_arrays

ALGORITHMS = ("auto", "nodal", "incremental", "loop")
KIND = "parameters of a network of fastnet"  # what the file format calls such a file


class BaseNetwork(SecondOrder):
    """What all networks have in common.

    `predict`, `loss` and `accuracy` are inference. `training_loss`, `gradient`, `loss_and_gradient` and
    `numerical_gradient` are training, where Dropout and BatchNorm behave differently.

    A subclass may have methods of its own, which the others then use: `loss` and `accuracy` call `predict`, and
    `numerical_gradient` differentiates `loss`, or `training_loss` if the subclass has that. `gradient` is backprop of
    the network that the base class computes; in a subclass with its own `predict` or `loss` it raises TypeError unless
    the subclass has its own `gradient`, too.

    Attributes
    ----------
    params : dict of str to ndarray
        The parameters by name, float32 or float64. Update them in place or put new arrays of the same shapes.
    """

    params: dict[str, FloatArray]
    _in_own = False  # while a subclass's own gradient or loss_and_gradient is running

    @functools.cached_property
    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Arrays that are not trained but kept between training passes, by name. Most networks have none."""
        return {}

    def _computation(self) -> Computation:
        """Return how the network computes with its present parameters; raise if some are missing or do not fit."""
        raise NotImplementedError

    def _answers(self, rows: FloatArray, computation: Computation) -> FloatArray:
        """Return the answers that the loss is of, in inference mode: those of a subclass's `predict` if it has one."""
        if not overridden(self, "predict"):
            return computation.forward(rows)
        y = checks.as_floating(self.predict(rows), "what predict gave", computation.dtype)
        if y.ndim != 2 or len(y) != len(rows):
            raise ValueError(f"predict gave shape {y.shape} for {len(rows)} row(s): it must give (batch, classes)")
        return self._answers_of(y)

    def _answers_of(self, predicted: FloatArray) -> FloatArray:
        """Return the answers that the loss is of, from what `predict` gives; the same but for `SimpleNet`."""
        return predicted

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

    def __call__(self, x: npt.ArrayLike) -> FloatArray:
        """The same as `predict`: ``net(x)``."""
        return self.predict(x)

    def loss(self, x: npt.ArrayLike, t: npt.ArrayLike) -> float:
        """The loss, averaged over the batch, in inference mode.

        Parameters
        ----------
        x : array_like
            Shape (batch, inputs), or (inputs,) for one row.
        t : array_like
            Integer labels, shape (batch,), or one-hot rows or probabilities, shape (batch, classes); for one row, one
            label or shape (classes,). For a regression loss, such as ``IdentityWithLoss()``, numbers of shape (batch,
            outputs), or (batch,) for one output.

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
        rows, targets = computation.batch(x, t)
        if overridden(self, "predict"):
            return computation.loss_of_answers(self._answers(rows, computation), targets)
        return computation.loss(rows, targets)

    def accuracy(self, x: npt.ArrayLike, t: npt.ArrayLike, batch_size: int | None = None) -> float:
        """The share of rows whose likeliest class is that of the target, in inference mode.

        Parameters
        ----------
        x : array_like
            Shape (batch, inputs).
        t : array_like
            Integer labels, shape (batch,), or one-hot rows or probabilities, shape (batch, classes), whatever the loss.
        batch_size : int, optional
            Rows to pass through the network at a time; all by default. The result does not depend on it.

        Returns
        -------
        float
            From 0 to 1.

        Raises
        ------
        ValueError, TypeError
            As `loss`; also if `batch_size` is not a positive integer, or the network has one output.
        """
        computation = self._computation()
        rows, targets = computation.batch(x, t, for_accuracy=True)
        if targets.ndim == 2 and targets.shape[1] == 1:
            raise ValueError("the network has one output, and every row has the same likeliest class: use loss")
        size = len(rows) if batch_size is None else checks.as_count(batch_size, "batch_size")
        labels = targets if targets.ndim == 1 else targets.argmax(axis=1)
        correct = 0
        for first in range(0, len(rows), size):
            y = self._answers(rows[first : first + size], computation)
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
        if overridden(self, "predict", "loss"):
            return self.loss(x, t)
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
            As `loss`; TypeError also in a subclass whose `predict` or `loss` is its own, but not its `gradient`.
        """
        if overridden(self, "loss_and_gradient") and not self._in_own:
            with self._own_method():
                return self.loss_and_gradient(x, t)[1]
        return self._backprop(x, t)[1]

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
            As `gradient`.
        """
        if overridden(self, "gradient") and not self._in_own:
            before = dict(self.state)
            loss = self.training_loss(x, t)
            self.state.update(before)  # the pass of the gradient is the one that counts, with the same masks
            with self._own_method():
                return loss, self.gradient(x, t)
        return self._backprop(x, t)

    @contextlib.contextmanager
    def _own_method(self) -> Iterator[None]:
        """Mark that a method of a subclass is running: what it calls of the base class is backprop."""
        self._in_own = True
        try:
            yield
        finally:
            self._in_own = False

    def _backprop(self, x: npt.ArrayLike, t: npt.ArrayLike) -> tuple[float, dict[str, FloatArray]]:
        own = overridden(self, *FUNCTION)
        if own and not overridden(self, "gradient", "loss_and_gradient"):
            raise TypeError(
                f"{type(self).__name__} has its own {' and '.join(own)}, and backprop would be the gradient of another "
                f"function: give {type(self).__name__} its own gradient, or use numerical_gradient"
            )
        computation = self._computation()
        return computation.loss_and_gradient(*computation.batch(x, t))

    def numerical_gradient(
        self,
        x: npt.ArrayLike,
        t: npt.ArrayLike,
        h: float | None = None,
        *,
        algorithm: str = "auto",
        names: Iterable[str] | None = None,
    ) -> NumericalGradient:
        """The gradient of the loss in training mode with respect to every parameter, by central differences.

        It changes nothing. In a network with Dropout or BatchNorm it repeats the last training pass: it uses the same
        masks and leaves the running statistics alone. So it differentiates the function that `gradient` did last.

        Parameters
        ----------
        x, t : array_like
            As for `loss`.
        h : float, optional
            The step. By default 1e-4; where a float32 network is evaluated twice for each parameter, as by ``"loop"``,
            and by ``"auto"`` with layers of your own, 1e-2, since a smaller step would leave little but rounding error.
        algorithm : {"auto", "nodal", "incremental", "loop"}
            All give the same numbers up to rounding. ``"loop"`` runs the network twice for each parameter, as the
            textbook does; its subtraction of two losses leaves a rounding error of about 1e-16/h (1e-7/h in float32).
            ``"incremental"`` carries each perturbation to the loss as an exact difference: nothing cancels, and what
            a perturbation does not affect is not computed again. ``"nodal"`` evaluates a few moves of each unit and
            derives the entries of all weights into the unit from them, to rounding; where that is not possible it
            uses ``"incremental"``. ``"auto"`` takes the fastest algorithm of the backend. In a network with layers of
            your own, these two are for the parameters behind the last such layer, and ``"auto"`` takes ``"loop"`` for
            the others; with a loss of your own, for all.
        names : iterable of str, optional
            The parameters to differentiate with respect to, as in ``names=("W1",)``; all by default.

        Returns
        -------
        NumericalGradient
            A dict of (loss(θ + h) − loss(θ − h)) / 2h for each parameter θ: the names, shapes and dtype of `params`.
            Its `diagnostics` say how many evaluations it took and which units met a kink, its `algorithms` how each
            parameter was done.

        Raises
        ------
        ValueError, TypeError
            As `loss`; also if `h` is not positive and finite, or the algorithm is unknown, or not one of the backend's
            or not for all of the parameters, or one of `names` is not a parameter.
        """
        _check_options(h, algorithm)
        wanted = self._wanted(names)
        if overridden(self, *FUNCTION):
            return self._numerical_gradient_of_own_loss(x, t, h, algorithm, wanted)
        computation = self._computation()
        step = computation.step(h, algorithm)
        return computation.numerical_gradient(*computation.batch(x, t), step, algorithm, wanted)

    def _wanted(self, names: Iterable[str] | None) -> list[str]:
        """Return the names of the parameters to differentiate with respect to, in the order of `params`."""
        if names is None:
            return list(self.params)
        if isinstance(names, str):
            raise TypeError(f"names must be a tuple of names, not the string {names!r}: write names=({names!r},)")
        chosen = list(names)
        unknown = [name for name in chosen if name not in self.params]
        if unknown or not chosen:
            there = ", ".join(map(repr, self.params))
            raise ValueError(f"names has {', '.join(map(repr, unknown)) or 'nothing'}: the parameters are {there}")
        return [name for name in self.params if name in chosen]

    def input_gradient(self, x: npt.ArrayLike, t: npt.ArrayLike) -> FloatArray:
        """The gradient of the loss with respect to `x`, by backprop, in training mode.

        Parameters
        ----------
        x, t : array_like
            As for `loss`.

        Returns
        -------
        ndarray
            The shape of `x`, in the dtype of `params`.

        Raises
        ------
        ValueError, TypeError
            As `loss`; TypeError also in a subclass whose `predict` or `loss` is its own.

        Examples
        --------
        >>> import numpy as np, fastnet
        >>> net = fastnet.TwoLayerNet(784, 50, 10, seed=0)
        >>> x, t = fastnet.datasets.make_digits(100, seed=0)
        >>> difference = net.numerical_input_gradient(x, t) - net.input_gradient(x, t)
        >>> bool(np.abs(difference).max() < 1e-12)
        True
        """
        if own := overridden(self, *FUNCTION):
            raise TypeError(
                f"{type(self).__name__} has its own {' and '.join(own)}, and backprop would be the gradient of another "
                f"function: use numerical_input_gradient"
            )
        computation = self._computation()
        return computation.input_gradient(*computation.batch(x, t)).reshape(np.shape(x))

    def numerical_input_gradient(
        self, x: npt.ArrayLike, t: npt.ArrayLike, h: float | None = None, *, algorithm: str = "auto"
    ) -> FloatArray:
        """The gradient of the loss with respect to `x`, by central differences, in training mode; it changes nothing.

        Where the first layer is affine, each of its units is moved, and the differences are carried to `x` through its
        weights, as in Madaline Rule III (B. Widrow, M. Lehr, *30 years of adaptive neural networks*, Proc. IEEE 78,
        1990). Otherwise, and by ``"loop"``, each element of `x` is moved. In a network with a layer or a loss of your
        own, it is by the loop.

        Parameters
        ----------
        x, t, h, algorithm
            As for `numerical_gradient`.

        Returns
        -------
        ndarray
            The shape of `x`, in the dtype of `params`.

        Raises
        ------
        ValueError, TypeError
            As `numerical_gradient`.
        """
        _check_options(h, algorithm)
        computation = self._computation()
        rows, targets = computation.batch(x, t)
        if overridden(self, *FUNCTION):
            moving = rows.copy()
            with self._same_pass() as loss:
                return numerical_gradient(lambda _: loss(moving, targets), moving, h).reshape(np.shape(x))
        step = computation.step(h, algorithm)
        return computation.numerical_input_gradient(rows, targets, step, algorithm).reshape(np.shape(x))

    @contextlib.contextmanager
    def _same_pass(self) -> Iterator[Callable[[npt.ArrayLike, npt.ArrayLike], float]]:
        """Give a subclass's training loss as a function that makes the same pass each time, with the same masks."""
        before = dict(self.state)

        def loss(x: npt.ArrayLike, t: npt.ArrayLike) -> float:
            self.state.update(before)
            return self.training_loss(x, t)

        try:
            yield loss
        finally:
            self.state.update(before)

    def _numerical_gradient_of_own_loss(
        self, x: npt.ArrayLike, t: npt.ArrayLike, h: float | None, algorithm: str, names: list[str]
    ) -> NumericalGradient:
        """Return the gradient of a subclass's own loss, which is called twice for each parameter."""
        if algorithm not in ("auto", "loop"):
            raise ValueError(
                f"algorithm {algorithm!r} computes another loss than {type(self).__name__}'s own "
                f"{' and '.join(overridden(self, *FUNCTION))}: use 'loop'"
            )
        chosen = {name: self.params[name] for name in names}
        evaluations = 2 * sum(p.size for p in chosen.values()) * len(np.atleast_2d(x))
        with self._same_pass() as loss:
            gradients = {name: numerical_gradient(lambda _: loss(x, t), p, h) for name, p in chosen.items()}
            diagnostics = Diagnostics(float(loss(x, t)), evaluations)
        return NumericalGradient(gradients, diagnostics, dict.fromkeys(names, "loop"))

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


def _check_options(h: float | None, algorithm: str) -> None:
    """Check the options of a numerical gradient, whatever computes it."""
    if h is not None:
        checks.as_positive(h, "h")
    checks.as_choice(algorithm, "algorithm", ALGORITHMS)

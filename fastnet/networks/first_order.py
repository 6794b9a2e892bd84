"""First derivatives of a network's loss, by backprop and by central differences: of parameters, and of inputs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import numpy.typing as npt

from fastnet._tools import checks
from fastnet._tools.types import FloatArray
from fastnet.backends.spec import Diagnostics
from fastnet.differentiation import numerical_gradient
from fastnet.networks.answers import Answering
from fastnet.networks.computation import NumericalGradient
from fastnet.networks.overriding import FUNCTION, overridden

ALGORITHMS = ("auto", "nodal", "incremental", "loop")


class FirstOrder(Answering):
    """The methods of a network for first derivatives."""

    _in_own = False  # while a subclass's own gradient or loss_and_gradient is running

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


def _check_options(h: float | None, algorithm: str) -> None:
    """Check the options of a numerical gradient, whatever computes it."""
    if h is not None:
        checks.as_positive(h, "h")
    checks.as_choice(algorithm, "algorithm", ALGORITHMS)

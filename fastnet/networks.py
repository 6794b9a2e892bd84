"""Networks: a chain of affine layers with activations, its loss, and the gradient of that by every parameter."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fastnet import _checks
from fastnet.backends import active
from fastnet.backends._spec import Activation, Diagnostics, FloatArray, IntArray, Loss, NetworkSpec, Output

__all__ = ["SimpleNet", "TwoLayerNet"]

ALGORITHMS = ("auto", "nodal", "incremental", "loop")


class _Layer(NamedTuple):
    weight: str  # the layer's names in `params`
    bias: str | None
    activation: Activation


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


class AffineChain:
    """What networks of affine layers and activations have in common: everything but their parameters.

    Attributes
    ----------
    params : dict of str to ndarray
        The parameters by name, float32 or float64. Update them in place or put new arrays of the same shapes.
    """

    _layers: tuple[_Layer, ...]  # of the class, or of the instance where each has its own
    _output = Output.SOFTMAX
    _loss = Loss.CROSS_ENTROPY

    params: dict[str, FloatArray]

    def _spec(self) -> NetworkSpec:
        """The network as the backends take it. Raises for parameters that are missing or do not fit."""
        weights: list[FloatArray] = []
        biases: list[FloatArray | None] = []
        for layer in self._layers:
            weight = self._parameter(layer.weight, 2)
            if weights and weights[-1].shape[1] != weight.shape[0]:
                raise ValueError(
                    f"params[{layer.weight!r}] of shape {weight.shape} does not fit the {weights[-1].shape[1]} units "
                    f"of the layer before it"
                )
            bias = None if layer.bias is None else self._parameter(layer.bias, 1)
            if bias is not None and len(bias) != weight.shape[1]:
                raise ValueError(
                    f"params[{layer.bias!r}] of shape {bias.shape} does not fit params[{layer.weight!r}] of shape "
                    f"{weight.shape}"
                )
            weights.append(weight)
            biases.append(bias)
        return NetworkSpec(
            tuple(weights),
            tuple(biases),
            tuple(layer.activation for layer in self._layers),
            self._output,
            self._loss,
        )

    def _parameter(self, name: str, ndim: int) -> FloatArray:
        value = self.params[name]
        if not isinstance(value, np.ndarray):
            raise TypeError(f"params[{name!r}] must be a NumPy array, not {_checks.type_name(value)}")
        if value.dtype.kind != "f" or value.dtype.itemsize not in (4, 8):
            raise TypeError(f"params[{name!r}] must be float32 or float64, not {value.dtype}")
        if value.ndim != ndim or value.size == 0:
            raise ValueError(f"params[{name!r}] must have {ndim} dimension(s), none of them 0, not {value.shape}")
        first = self.params[self._layers[0].weight].dtype
        if value.dtype != first:
            raise TypeError(f"params[{name!r}] is {value.dtype}, but params[{self._layers[0].weight!r}] is {first}")
        return _checks.as_floating(value, name)

    def _batch(self, spec: NetworkSpec, x: npt.ArrayLike, t: npt.ArrayLike) -> tuple[FloatArray, FloatArray | IntArray]:
        rows = _checks.as_batch(x, spec.inputs, spec.dtype)
        return rows, _checks.as_targets(t, len(rows), spec.classes, spec.dtype, single=np.ndim(x) == 1)

    def _named(self, gradients: list[FloatArray]) -> dict[str, FloatArray]:
        names = [name for layer in self._layers for name in (layer.weight, layer.bias) if name is not None]
        return dict(zip(names, gradients, strict=True))

    def predict(self, x: npt.ArrayLike) -> FloatArray:
        """The network's answers.

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
        return self._predict(self._spec(), x)

    def _predict(self, spec: NetworkSpec, x: npt.ArrayLike) -> FloatArray:
        y = active().forward(spec, _checks.as_batch(x, spec.inputs, spec.dtype))
        return y[0] if np.ndim(x) == 1 else y

    def loss(self, x: npt.ArrayLike, t: npt.ArrayLike) -> float:
        """The loss, averaged over the batch.

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
        spec = self._spec()
        return active().loss(spec, *self._batch(spec, x, t))

    def accuracy(self, x: npt.ArrayLike, t: npt.ArrayLike, batch_size: int | None = None) -> float:
        """The share of rows whose likeliest class is the target's.

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
        spec = self._spec()
        rows, targets = self._batch(spec, x, t)
        size = len(rows) if batch_size is None else _checks.as_count(batch_size, "batch_size")
        labels = targets if targets.ndim == 1 else targets.argmax(axis=1)
        correct = 0
        for first in range(0, len(rows), size):
            y = active().forward(spec, rows[first : first + size])
            correct += int(np.count_nonzero(y.argmax(axis=1) == labels[first : first + size]))
        return correct / len(rows)

    def gradient(self, x: npt.ArrayLike, t: npt.ArrayLike) -> dict[str, FloatArray]:
        """The gradient of `loss` by every parameter, by backprop.

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
        """`loss` and `gradient` together, for little more than `gradient` alone.

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
        spec = self._spec()
        loss, gradients = active().loss_and_gradient(spec, *self._batch(spec, x, t))
        return loss, self._named(gradients)

    def numerical_gradient(
        self, x: npt.ArrayLike, t: npt.ArrayLike, h: float = 1e-4, algorithm: str = "auto"
    ) -> NumericalGradient:
        """The gradient of `loss` by every parameter, by central differences.

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
            ``"auto"`` takes the fastest that the backend has.

        Returns
        -------
        NumericalGradient
            A dict of (loss(θ + h) − loss(θ − h)) / 2h for each parameter θ: the names, shapes and dtype of `params`.
            Its `diagnostics` tell how many evaluations it took and which units met a kink.

        Raises
        ------
        ValueError, TypeError
            As `loss`; also if `h` is not positive and finite, or the algorithm is unknown or not one of the backend's.
        """
        step = _checks.as_positive(h, "h")
        _checks.as_choice(algorithm, "algorithm", ALGORITHMS)
        backend = active()
        chosen = backend.algorithms[0] if algorithm == "auto" else algorithm
        if chosen not in backend.algorithms:
            raise ValueError(
                f"algorithm {algorithm!r} is not one of the {backend.name!r} backend's, which are "
                f"{', '.join(map(repr, backend.algorithms))}"
            )
        spec = self._spec()
        with np.errstate(over="ignore", under="ignore"):
            rounded = spec.dtype.type(step)
        if not 0 < rounded < np.inf:
            raise ValueError(f"h must be positive and finite in {spec.dtype}, not {h}")
        rows, targets = self._batch(spec, x, t)
        if chosen != "loop":
            compute = backend.nodal if chosen == "nodal" else backend.incremental
            gradients, diagnostics = compute(spec, rows, targets, step)
            return NumericalGradient(self._named(gradients), diagnostics)
        sizes = [p.size for p in spec.parameters]
        differences = backend.loop(spec, rows, targets, step, np.arange(sum(sizes)))
        pieces = np.split(differences, np.cumsum(sizes)[:-1])
        gradients = [piece.reshape(p.shape) for piece, p in zip(pieces, spec.parameters, strict=True)]
        base = backend.loss(spec, rows, targets)
        return NumericalGradient(self._named(gradients), Diagnostics(base, 2 * sum(sizes) * len(rows)))


class TwoLayerNet(AffineChain):
    """A network of one hidden layer: affine, sigmoid, affine, softmax; its loss is the cross entropy.

    Parameters
    ----------
    input_size, hidden_size, output_size : int
        How many inputs, hidden units and classes.
    weight_init_std : float, default 0.01
        The standard deviation of the normal distribution that the weights are drawn from; biases start at 0.
    dtype : {"float64", "float32"}
    seed : int, optional
        For the same weights each time.

    Attributes
    ----------
    params : dict of str to ndarray
        ``W1`` (input_size, hidden_size), ``b1`` (hidden_size,), ``W2`` (hidden_size, output_size), ``b2``
        (output_size,). Update them in place or put new arrays of the same shapes.

    Examples
    --------
    >>> import numpy as np, fastnet
    >>> net = fastnet.TwoLayerNet(784, 50, 10, seed=0)
    >>> x, t = fastnet.datasets.make_digits(100, seed=0)
    >>> difference = net.numerical_gradient(x, t)["W1"] - net.gradient(x, t)["W1"]
    >>> bool(np.abs(difference).max() < 1e-8)
    True
    """

    _layers = (_Layer("W1", "b1", Activation.SIGMOID), _Layer("W2", "b2", Activation.IDENTITY))

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        output_size: int,
        weight_init_std: float = 0.01,
        dtype: npt.DTypeLike = "float64",
        seed: int | None = None,
    ) -> None:
        inputs = _checks.as_count(input_size, "input_size")
        hidden = _checks.as_count(hidden_size, "hidden_size")
        classes = _checks.as_count(output_size, "output_size")
        std = _checks.as_real(weight_init_std, "weight_init_std")
        wanted = _checks.as_dtype(dtype)
        rng = np.random.default_rng(seed)
        self.params = {
            "W1": (std * rng.standard_normal((inputs, hidden))).astype(wanted),
            "b1": np.zeros(hidden, dtype=wanted),
            "W2": (std * rng.standard_normal((hidden, classes))).astype(wanted),
            "b2": np.zeros(classes, dtype=wanted),
        }


class SimpleNet(AffineChain):
    """One weight matrix W of shape (2, 3): the smallest network that has a gradient.

    Parameters
    ----------
    dtype : {"float64", "float32"}
    seed : int, optional
        For the same weights each time.

    Attributes
    ----------
    W : ndarray
        The weights, shape (2, 3); the same array as ``params["W"]``.
    """

    _layers = (_Layer("W", None, Activation.IDENTITY),)

    def __init__(self, dtype: npt.DTypeLike = "float64", seed: int | None = None) -> None:
        wanted = _checks.as_dtype(dtype)
        self.params = {"W": np.random.default_rng(seed).standard_normal((2, 3)).astype(wanted)}

    @property
    def W(self) -> FloatArray:  # noqa: N802
        return self.params["W"]

    @W.setter
    def W(self, value: FloatArray) -> None:  # noqa: N802
        self.params["W"] = value

    def predict(self, x: npt.ArrayLike) -> FloatArray:
        """The scores x·W, before the softmax that `loss` applies.

        Parameters
        ----------
        x : array_like
            Shape (2,) or (batch, 2).

        Returns
        -------
        ndarray
            Shape (3,) or (batch, 3).

        Raises
        ------
        ValueError, TypeError
            If `x` has the wrong shape or does not hold real numbers.
        """
        return self._predict(_scores(self._spec()), x)


def _scores(spec: NetworkSpec) -> NetworkSpec:
    return NetworkSpec(spec.weights, spec.biases, spec.activations, Output.IDENTITY, spec.loss)
